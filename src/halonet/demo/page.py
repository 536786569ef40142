"""The demo page: a picture, what the network makes of it, and where a clicked pixel looks."""

import html
import os
from pathlib import Path
from typing import Any
from urllib.request import getproxies_environment

import gradio as gr
from gradio.themes import Default

from halonet.console import printable
from halonet.data.detection.nuclei import FOLDER as NUCLEI
from halonet.demo.attention import View, describe_view, draw_view, pixel_at
from halonet.demo.model import MEGABYTES, Answer, Model
from halonet.errors import UserError
from halonet.visual.attention_figures import BLOCK, WINDOW

EXAMPLES = Path(__file__).parent / "examples"

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Ubuntu", "DejaVu Sans", "sans-serif"]
CSS = f"""
.gradio-container {{ max-width: 1240px !important; margin: 0 auto !important; }}
#head .html-container {{ padding: 0; }}
#head h1 {{ font-size: 1.7rem; margin-bottom: .5rem; }}
#head p {{ max-width: 75rem; }}
#notice .doubt, #notice .error {{ border-radius: 8px; padding: .6rem .85rem; margin-top: .4rem; }}
#notice .doubt {{ background: #fff4d6; color: #5c4200; border-left: 4px solid #e0a100; }}
#notice .error {{ background: #fde7e7; color: #7a1313; border-left: 4px solid #d03030; }}
#notice .doubt b {{ color: inherit; }}
#notice .html-container, #key .html-container {{ padding: 0; }}
#key {{ font-size: .9rem; }}
#key span:first-child {{ margin-left: 0 !important; }}
#key span {{ display: inline-block; width: 1.05em; height: 1.05em; margin: 0 .35em 0 1em; vertical-align: -.15em; }}
#key .block {{ border: 3px solid {BLOCK}; }}
#key .window {{ border: 3px dashed {WINDOW}; }}
#key .heat {{ width: 4em; background: linear-gradient(90deg, #f6dbe6, #e12850, #ff8228, #fff05a); }}
#key .pixel {{ border: 2px solid #000; background: #fff; border-radius: 50%; width: .8em; height: .8em; }}
#key .beyond {{ background: repeating-linear-gradient(-45deg, #f2f3f5 0 3px, #c3c8d0 3px 5px); }}
#attention img {{ cursor: crosshair; }}
@media (max-width: 640px) {{ #attention, #attention * {{ height: auto !important; }} }}
footer {{ display: none !important; }}
"""
KEY = (
    '<span class="pixel"></span>pixel<span class="block"></span>its block<span class="window"></span>what it sees: '
    'block and halo<span class="heat"></span>attention<span class="beyond"></span>outside'
)


def make_page(model: Model) -> gr.Blocks:
    """Build the page of a network."""
    examples = [*(EXAMPLES / f"{name}.jpg" for name in ("cat", "bird", "rocket", "coffee")), NUCLEI / "test.png"]
    if model.finds_instances:
        examples = examples[::-1]
    with gr.Blocks(title=f"halonet: {model.name}", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        answer = gr.State(None, time_to_live=3600)
        pixel = gr.State(None)
        gr.HTML(f"<h1>halonet · {html.escape(printable(model.name))}</h1><p>{model.knows}</p>", elem_id="head")
        with gr.Row():
            with gr.Column(scale=5):
                gr.Markdown(f"### Picture: drop, paste or choose one of at most {MEGABYTES} MB")
                upload = gr.Image(
                    str(examples[0]),
                    label="Picture",
                    show_label=False,
                    type="filepath",
                    sources=["upload", "clipboard"],
                    height=250,
                    buttons=[],
                    elem_id="upload",
                )
                # Gradio would open the file itself, before any limit, and meet a broken one with a traceback.
                upload.preprocess = lambda payload: payload and payload.path
                chosen = gr.Examples([[str(path)] for path in examples], upload, label="Examples", elem_id="examples")
                notice = gr.HTML(elem_id="notice")
                labels = gr.Label(
                    label="Labels",
                    show_label=False,
                    show_heading=False,
                    num_top_classes=5,
                    elem_id="labels",
                    visible=not model.finds_instances,
                )
                instances = gr.Image(
                    label="Instances",
                    show_label=False,
                    interactive=False,
                    format="png",
                    buttons=["fullscreen"],
                    elem_id="instances",
                    visible=model.finds_instances,
                )
            with gr.Column(scale=6):
                gr.Markdown("### Where a pixel looks: click another one")
                attention = gr.Image(
                    label="Where a pixel looks",
                    show_label=False,
                    interactive=False,
                    format="png",
                    height=500,
                    buttons=[],
                    elem_id="attention",
                )
                gr.HTML(KEY, elem_id="key")
                with gr.Row(equal_height=True):
                    layer = _slider("Layer", "layer", len(model.heads) - 1)
                    head = _slider("Head", "one-head", max(model.heads) - 1)
                    mean = gr.Checkbox(True, label="Mean of all heads", elem_id="mean")
                told = gr.Markdown(elem_id="told")

        def draw(answer: Answer | None, pixel: tuple[int, int] | None, layer: int, head: int, mean: bool) -> Any:
            if answer is None or pixel is None:
                return None, ""
            view = View(pixel, layer, None if mean else min(head, model.heads[layer] - 1))
            return draw_view(answer.layers, answer.seen, view), describe_view(answer.layers, view)

        def clear(message: str = "") -> Any:
            return None, None, message, None, None, None, ""

        def show(path: str, layer: int, head: int, mean: bool) -> Any:
            try:
                answer = model.answer(path)
            except UserError as error:
                return clear(f'<div class="error" role="alert">{html.escape(printable(str(error)))}</div>')
            height, width = answer.layers[0].image_size
            pixel = (height // 2, width // 2)
            results = (_tell(model, answer), answer.probabilities or None, answer.instances)
            return answer, pixel, *results, *draw(answer, pixel, layer, head, mean)

        def click(answer: Answer | None, layer: int, head: int, mean: bool, event: gr.SelectData) -> Any:
            if answer is None:
                return None, *draw(None, None, layer, head, mean)
            pixel = pixel_at(answer.layers[layer], *event.index)
            return pixel, *draw(answer, pixel, layer, head, mean)

        view, drawn = [layer, head, mean], [attention, told]
        results = [answer, pixel, notice, labels, instances]
        # Not `upload.change`, which comes twice for a file.
        for happens in (page.load, upload.upload, chosen.load_input_event.success):
            happens(show, [upload, *view], [*results, *drawn], show_progress="minimal", trigger_mode="always_last")
        upload.clear(clear, None, [*results, *drawn], show_progress="hidden")
        attention.select(click, [answer, *view], [pixel, *drawn], show_progress="hidden")
        head.input(lambda: False, None, mean, show_progress="hidden")
        gr.on(
            [layer.input, head.input, mean.change],
            draw,
            [answer, pixel, *view],
            drawn,
            show_progress="hidden",
            trigger_mode="always_last",
        )
    return page


def _slider(label: str, place: str, last: int) -> gr.Slider:
    slider = gr.Slider(
        0, max(1, last), 0, step=1, precision=0, label=label, elem_id=place, buttons=[], interactive=last > 0
    )
    # People can type any number, or delete it; Gradio would answer with a traceback.
    slider.preprocess = lambda payload: min(max(round(payload or 0), 0), last)
    return slider


def _tell(model: Model, answer: Answer) -> str:
    """What the network says of a picture, and what speaks against it."""
    doubts = "".join(
        f'<div class="doubt"><b>Unlike what it knows.</b> {html.escape(each)}</div>' for each in answer.doubts
    )
    if model.finds_instances:
        said = f"It finds: <b>{html.escape(answer.summary)}</b>."
    else:
        said = (
            f"Of its {len(model.labels)} labels it chooses <b>{html.escape(answer.summary)}</b>. "
            "If the picture shows none of them, that is wrong, however sure it is."
        )
    return f'<div class="said">{said}</div>{doubts}'


def launch(model: Model, port: int | None) -> gr.Blocks:
    """Serve the page on this machine alone, in the background; `close` ends it.

    Args:
        model: What the page shows.
        port: None takes the first free one from 7860 on.

    Raises:
        UserError: The port is in use, or not allowed.
    """
    page = make_page(model)
    # Gradio asks its own server whether it answers, and fails if a proxy is to carry that.
    direct = ",".join(filter(None, [getproxies_environment().get("no"), "127.0.0.1"]))
    os.environ |= {"no_proxy": direct, "NO_PROXY": direct}
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MEGABYTES * 2**20,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            footer_links=[],
            theme=Default(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=FONTS),
            css=CSS,
        )
    except OSError as error:
        where = "ports 7860 to 7959 are" if port is None else f"port {port} is"
        raise UserError(f"{where} in use or not allowed: choose another with --port N") from error
    return page
