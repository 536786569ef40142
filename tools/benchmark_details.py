"""Every record in results/ as a table, with what was left out and where it was measured."""

import statistics
from pathlib import Path
from typing import Any, NamedTuple

from benchmark_records import H100, Source, collect, read_record, rows_of
from pages import markdown_table, wrap

from halonet.benchmark.table import FORMATS, HEADINGS, heading
from halonet.models import HALONETS


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        file: The record's name in `results/`.
        title: The heading.
        text: What is asked.
        part: Name of the record in a file of `halonet benchmark all`.
    """

    file: str
    title: str
    text: str
    part: str | None = None


NEWER = "Stage 4 and stage 3's strided layer are faster since, by the cuts that were timed that day (`results/gpu`)."
SECTIONS = (
    Section("operator/stages.json", "The operator and its peers", "H1's stages at 256 px."),
    Section(
        "operator/stages_avx512.json",
        "The same with AVX-512",
        "H1's stages at 256 px on another machine.",
    ),
    Section("operator/sizes.json", "Every size of H0 to H7, and awkward ones", "Each model at its own image size."),
    Section(
        "operator/centered.json",
        "Relaxed and centered windows",
        "Does it pay that all queries of a block share its window, instead of each having its own?",
    ),
    Section(
        "operator/strided.json",
        "Strided attention and pooling",
        "Attention at every second pixel, and attention at every pixel followed by 2 x 2 average pooling.",
    ),
    Section("operator/growth_image.json", "Growth with the image", "The same number of pixels in every batch."),
    Section("operator/growth_window.json", "Growth with the window", "Time for each pair of query and key in it."),
    Section("model/networks.json", "Networks", "Images of 256 px."),
    Section("model/networks_avx512.json", "Networks with AVX-512", "Images of 256 px, on another machine."),
    Section(
        "model/compiled_avx512.json",
        "Compiled networks, with AVX-512",
        "`torch.compile`, which takes minutes for timm's; images of 256 px, inference.",
    ),
    Section("model/centered.json", "H1 with centered windows", "The whole network."),
    Section("model/strided.json", "H1 with pooling", "The whole network."),
    Section("model/accelerate.json", "timm's networks, accelerated", "`halonet.accelerate`, before and after."),
    Section(
        "model/accelerate_avx512.json",
        "All of timm's halo networks, accelerated, with AVX-512",
        "On another machine, each at the size it is made for.",
    ),
    Section("memory/step.json", "Memory of a step", "Activations and gradients, without optimizer."),
    Section(
        f"{H100}/measured.json", "On an H100: the operator and its peers", f"H1's stages at 256 px. {NEWER}", "operator"
    ),
    Section(
        f"{H100}/measured.json",
        "On an H100: strided layers",
        f"Those of H1 at 256 px. {NEWER}",
        "operator_strided_sizes",
    ),
    Section(
        f"{H100}/measured.json",
        "On an H100: strided attention and pooling",
        "Attention at every second pixel, and attention at every pixel followed by 2 x 2 average pooling.",
        "strided_or_pooled",
    ),
    Section(
        f"{H100}/measured.json",
        "On an H100: relaxed and centered windows",
        "Does it cost to give each query its own window?",
        "relaxed_or_centered",
    ),
    Section(
        f"{H100}/measured.json",
        "On an H100: growth with the image",
        "The same number of pixels in every batch.",
        "growth_with_the_image",
    ),
    Section(f"{H100}/networks.json", "On an H100: networks", "Images of 256 px, inference.", "networks"),
    Section(
        f"{H100}/memory.json", "On an H100: memory of a step", "Activations and gradients, without optimizer.", "memory"
    ),
)

COMPILED = "triton/compiled.json"
PREDICTED = """\
### Predicted, not measured: the Triton kernels

These counts come from no GPU; what one measured is above and in `results/gpu`. The kernels were compiled with the
configurations that the search proposed, before any was measured, by `halonet benchmark triton compile`, which reads
registers and shared memory from the compiled code and counts the instructions that a thread executes in its
disassembly; with the nominal rates of an H100 (132 multiprocessors at 1.7 GHz, 4 instructions, 2048 multiply-adds of
bf16 and 16 exponentials a clock on each, 3 TB/s) they give the milliseconds that each part would take if it alone
counted. A kernel takes at least the largest of them; instructions are issued in every clock only in theory, and two
thirds of it is what a good kernel reaches. Bytes are those of every tensor once. `queries` and `keys` are the two
kernels of the backward.
"""


def make_details(results: Path) -> str:
    """Write a section for each record that is there."""
    parts = []
    for section in SECTIONS:
        record = read_record(results, Source(section.file, section.part))
        if record is not None:
            parts.append(
                f"### {section.title}\n\n{section.text}\n\n{table(record)}\n{absent(record)}{origin(record)}\n"
            )
    compiled = read_record(results, Source(COMPILED))
    if compiled is not None:
        parts.append(f"{PREDICTED}\n{predictions(compiled)}")
    return "\n".join(parts)


def predictions(record: dict[str, Any]) -> str:
    """Tabulate what the Triton kernels take for H1, and their limits on a card; then sums over networks' layers."""
    limits = [f"{part}_milliseconds" for part in ("issue", "bytes", "products", "exponentials")]
    head = ["size", "kernel", "tile", "registers", "shared", "programs_at_once", *limits]
    (run,) = record["runs"]
    lines = [
        [
            row["size"],
            row["kernel"],
            f"{row['queries']} x ({row['key_rows']} x {row['key_columns']}), {row['num_warps']}",
            str(row["registers"]),
            f"{row['shared'] / 1024:.0f}",
            str(row["programs_at_once"]),
            *(f"{row[limit]:.3f}" for limit in limits),
        ]
        for row in run["rows"]
        if row["size"].startswith("h1/")
    ]
    for name in sorted({row["size"].partition("/")[0] for row in run["rows"]}):
        layers = layers_of(name)
        for kernels in (("forward",), ("queries", "keys")):
            chosen = [
                (layers[row["size"]], row) for row in run["rows"] if row["kernel"] in kernels and row["size"] in layers
            ]
            sums = (f"{sum(count * row[limit] for count, row in chosen):.2f}" for limit in limits)
            lines.append([f"all layers of {name.upper()}", " and ".join(kernels), "", "", "", "", *sums])
    versions = (
        f"Triton {run['provenance']['triton']}, compute capability 9.0, bf16 with tables in fp32, "
        f"batch {record['question']['batch']}."
    )
    return f"{markdown_table([HEADINGS[column] for column in head], lines, words=3)}\n{versions}\n"


def layers_of(name: str) -> dict[str, int]:
    """How many layers of each size a network has."""
    first, *others = HALONETS[name].depths
    layers = {f"{name}/stage1": first}
    for stage, depth in enumerate(others, 2):
        layers |= {f"{name}/stage{stage}-strided": 1, f"{name}/stage{stage}": depth - 1}
    return layers


def cell(values: list[float] | None, column: str) -> str:
    """Format a figure: the median over runs, and the least and the greatest run."""
    if not values:
        return "-"

    def number(value: float) -> str:
        if value >= 100 or column == "bound_percent":
            return f"{value:.0f}"
        return f"{value:.1f}" if value >= 10 else f"{value:.2f}"

    suffix = FORMATS[column].partition("}")[2]
    least, greatest = min(values), max(values)
    spread = f" ({number(least)} to {number(greatest)})" if least < greatest else ""
    return number(statistics.median(values)) + suffix + spread


def table(record: dict[str, Any]) -> str:
    """A row for each case, pass and implementation; a column for each kind of figure."""
    collected = collect(record)
    columns = list(dict.fromkeys(column for figures in collected.values() for column in figures))
    every = [row for rows in rows_of(record) for row in rows]
    head = [heading(column, every) for column in ("case", "task", "name", *columns)]
    lines = [[*key, *(cell(figures.get(column), column) for column in columns)] for key, figures in collected.items()]
    return markdown_table(head, lines, words=3)


def absent(record: dict[str, Any]) -> str:
    """List what was left out, where and why."""
    places: dict[tuple[str, str], dict[str, None]] = {}
    for row in (row for rows in rows_of(record) for row in rows):
        for name, reason in row.absent.items():
            places.setdefault((name, reason), {})[f"{row.case} {row.task}"] = None
    lines = []
    for (name, reason), where in places.items():
        first, *others = where
        shown = ", ".join(where) if len(where) < 4 else f"{first} and {len(others)} more"
        lines.append(f"- `{name}`: {reason} ({shown})")
    return "".join(["Left out:\n\n", *(line + "\n" for line in lines), "\n"]) if lines else ""


def origin(record: dict[str, Any]) -> str:
    """Say where the figures come from: runs, machine, settings, versions, commits and command."""
    measured = [run for run in record["runs"] if run["rows"]]
    runs = [run["provenance"] for run in measured]

    def every(name: str) -> str:
        return ", ".join(dict.fromkeys(str(run[name]) for run in runs if run.get(name) is not None))

    changes = {True: " and changes", False: "", None: ""}
    found = (f"`{run['commit']}`{changes[run.get('modified')]}" for run in runs if run["commit"])
    commits = ", ".join(dict.fromkeys(found))
    times = sorted(run["time"] for run in runs if run.get("time"))
    count = f"{len(runs)} runs" if len(runs) > 1 else "One run"
    when = f", {times[0]}" + (f" to {times[-1]}" if len(times) > 1 else "") if times else ""
    settings = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
    on_gpu = "accelerator" in record["machine"]
    machine = ", ".join(what for name, what in record["machine"].items() if not (on_gpu and name == "cpu_backend"))
    repeats = ", ".join(dict.fromkeys(str(run["repeats"]) for run in measured))
    return wrap(
        f"{count}{when}: {machine}; {settings}; medians of {repeats}; torch {every('torch')}, "
        f"timm {every('timm')}; commit {commits or 'unknown'}; load of the machine before: "
        f"{every('load') or 'unknown'}; `{every('command')}`."
    )
