"""Writes a classifier as a folder for the Hugging Face Hub, which timm, transformers and `halonet.load` read."""

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import timm
import torch
from timm.data.imagenet_info import infer_imagenet_subset
from timm.models import save_for_hf

import halonet
from halonet.classification.checkpoint import load_checkpoint
from halonet.classification.evaluation import describe_accuracy, preprocessing
from halonet.data import AugmentationConfig
from halonet.data.classification.sources import is_named
from halonet.engine.files import check_output_folder, explain_full_disk, read_json
from halonet.engine.weights import save_weights
from halonet.errors import UserError
from halonet.models.pretrained import weights_path
from halonet.models.registry import nearest_row
from halonet.recipes.schema import Seed
from halonet.rules import Count, FilledText, hints_of, within
from halonet.schemas import check, record

FIGURES = ("top1", "top5", "loss", "images", "split")  # of a run's result
RUN = ("recipe", "seed", "epochs", "best", "hardware", "threads", "versions")
CITATION = """\
@inproceedings{vaswani2021scaling,
  title     = {Scaling Local Self-Attention for Parameter Efficient Visual Backbones},
  author    = {Vaswani, Ashish and Ramachandran, Prajit and Srinivas, Aravind and Parmar, Niki and Hechtman, Blake and
               Shlens, Jonathon},
  booktitle = {CVPR},
  year      = {2021}
}
"""


@record
class Figures:
    """What the model card says of a measurement."""

    top1: Annotated[float, within(least=0, most=100)]
    top5: Annotated[float, within(least=0, most=100)]
    loss: float
    images: Count
    split: FilledText
    data: FilledText


@record
class Training:
    """What the model card says of a training."""

    recipe: FilledText
    epochs: Count
    seed: Seed


def save_to_hub_folder(checkpoint: str | Path, folder: str | Path) -> Path:
    """Write `config.json`, `model.safetensors` and a model card, and read them back with timm.

    Args:
        checkpoint: A run folder, a `model.safetensors`, a `.ckpt` or the name of weights.
        folder: Must not exist, or be empty.

    Returns:
        The folder.

    Raises:
        UserError: The checkpoint cannot be read, it does not say how images were prepared, the folder holds files, or
            what was written does not give the same outputs when it is read back. Nothing is left behind then.
    """
    folder = Path(folder)
    check_output_folder(folder)
    is_new = not folder.exists()
    if not is_new and any(folder.iterdir()):
        raise UserError(f"{folder} already holds files: choose a new folder, or empty it")
    network, information = load_checkpoint(checkpoint)
    prepared = preprocessing(information, str(checkpoint))
    information = _for_others(information, Path(checkpoint))
    is_ours = weights_path(str(checkpoint)) is not None
    license_of = {"license": "apache-2.0"} if is_ours else {}
    around = folder.parent if is_new else folder
    around.mkdir(parents=True, exist_ok=True)
    with explain_full_disk(folder), tempfile.TemporaryDirectory(dir=around, prefix=".halonet-") as place:
        draft = Path(place) / "draft"
        save_for_hf(network, str(draft), {"pretrained_cfg": license_of}, safe_serialization=True)
        _suit_transformers(draft / "config.json", information.get("class_names"))
        save_weights(draft / "model.safetensors", network.state_dict(), information)
        (draft / "README.md").write_text(model_card(information, prepared, network, is_ours), encoding="utf-8")
        _verify(draft, network)
        if is_new:
            os.replace(draft, folder)
        else:  # it may be a link, a mount or the working directory, which cannot be replaced
            for file in draft.iterdir():
                os.replace(file, folder / file.name)
    return folder


def _for_others(information: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Add the results of a run, check what the card says, and leave out where the data was on this machine."""
    information = {name: value for name, value in information.items() if name != "root"}
    if "data" in information and not is_named(information["data"]):
        information["data"] = Path(information["data"]).name
    source = f"the description in {checkpoint}"
    path = checkpoint / "result.json"
    if "figures" not in information and path.is_file():
        source, result = str(path), read_json(path)
        data = result.get("variant") or information.get("data")
        information["run"] = {key: result[key] for key in RUN if key in result}
        information["figures"] = {key: result[key] for key in FIGURES if key in result} | {"data": data}
    for name, schema in (("figures", Figures), ("run", Training)):
        if name in information:
            said = information[name]
            check(
                schema,
                {key: said[key] for key in hints_of(schema) if key in said} if type(said) is dict else said,
                source,
            )
    return information


def _suit_transformers(path: Path, names: list[str] | None) -> None:
    """Write the classes for transformers (5.24) at the root; timm reads the names in `pretrained_cfg`.

    `num_classes` of `model_args` would reach timm twice, which fails. `label_names` would be read too, but would stay
    the same after fine-tuning for other classes. A network with as many classes as ImageNet needs them all the same:
    without, transformers takes ImageNet's names.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["model_args"]["num_classes"]
    labels = names or [str(number) for number in range(config["num_classes"])]
    if infer_imagenet_subset(config):
        config["label_names"] = labels
    else:
        config["id2label"] = {str(number): label for number, label in enumerate(labels)}
        config["label2id"] = {label: number for number, label in enumerate(labels)}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _verify(folder: Path, network: halonet.HaloNet) -> None:
    read_back = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    side = 3 * max(network.config.block_size, 8)
    images = torch.randn(2, network.in_chans, side, side + 1, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        if not torch.equal(read_back(images), network(images)):
            raise UserError("timm reads another network from the folder than was written: nothing was kept")


def model_card(
    information: dict[str, Any], prepared: AugmentationConfig, network: halonet.HaloNet, is_ours: bool
) -> str:
    """Write the README.md of a Hub folder: what it is, its figures, how to use it, license and citation."""
    run, figures = information.get("run"), information.get("figures")
    trained = f"Trained on `{information['data']}`" if "data" in information else "Its training data are not recorded"
    if run:
        trained += f" by halonet's recipe `{run['recipe']}` ({run['epochs']} epochs, seed {run['seed']})"
    measured = "It was not measured when this card was written."
    if figures:
        accuracy = describe_accuracy(figures | {"classes": information["num_classes"]})
        measured = f"Accuracy on {figures['images']:,} images of {figures['data']} ({figures['split']}): {accuracy}."
    names = information.get("class_names", [])
    classes = f"Classes: {', '.join(names[:100])}{', ...' if len(names) > 100 else ''}." if names else ""
    license_text = (
        "The weights are under the Apache License 2.0. The data have a license of their own."
        if is_ours
        else "State the license of the weights here, and as `license:` at the top."
    )
    return f"""\
---
{"license: apache-2.0" if is_ours else "# license: state yours"}
library_name: timm
pipeline_tag: image-classification
tags: [image-classification, halonet, timm, transformers]
---
# HaloNet `{nearest_row(network.config)[0]}`

A network of blocked local self-attention with {sum(each.numel() for each in network.parameters()):,} parameters.
{trained}.

{measured}

Images: {prepared.in_chans} channels, {prepared.image_size} x {prepared.image_size} pixels, mean
{list(prepared.mean)}, standard deviation {list(prepared.std)}.
{classes}

```python
import halonet  # registers the architecture; pip install halonet
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # or hf-hub:OWNER/NAME
```

`halonet.load("FOLDER")` gives the network with its labels and its transform, and transformers'
`pipeline("image-classification", model="FOLDER")` reads the same folder.

## License

{license_text}

## Citation

```bibtex
{CITATION}```
"""
