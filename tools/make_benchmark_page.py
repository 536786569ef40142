"""Write docs/benchmarks.md, and the README's figures of speed, from the records in results/.

    python tools/make_benchmark_page.py            # rewrites both
    python tools/make_benchmark_page.py --check    # says whether they are up to date, and changes nothing

A record holds one or more runs of one command on one machine. Figures are medians over the runs, with the least and
the greatest run in parentheses where there are several. Records that do not exist yet are left out.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

from pages import ROOT, markdown_table, replaced, wrap, write_pages

from halonet.benchmark.record import Row, figures_of
from halonet.benchmark.table import FORMATS, HEADINGS, heading
from halonet.models import HALONETS

PAGE, README, RESULTS = ROOT / "docs/benchmarks.md", ROOT / "README.md", ROOT / "results"
BEGIN = "<!-- speed: written by tools/make_benchmark_page.py -->"
END = "<!-- end of speed -->"

INTRODUCTION = """\
# Benchmarks

Written by `tools/make_benchmark_page.py` from the records in `results/`. Measured on CPUs, and on an H100 where a
heading says so. A CPU's milliseconds are of shared two-core machines and serve only the ratios.

`halonet benchmark operator`, `model` and `memory` repeat all of it on your machine; `--output FILE` keeps a record, and
appends to it when run again. How they measure:

- Implementations in a row run in turns, two rounds to warm up and then the timed ones, so that other work on the
  machine affects all of them alike. A run's figure is the median; its quartiles are in the record.
- All get the same queries, keys and values, and are first checked to compute the same as ours, each with its own
  tables and its own border rule. What cannot run a size, or computes something else, is listed with the reason.
- `timm` is its `HaloAttn` and `halonet-pytorch` its `HaloAttention`, both without their projections. FlexAttention is
  compiled, with the halo as its mask and relative logits; it has no backward on a CPU. NATTEN's strided neighborhood
  attention has no positions and moves windows inward at the border: it is checked in the interior, and does less.
- On a GPU, an operator's time is the device's, between two events that Python enqueues while the device is kept
  waiting; a network's is the host's, launches included.
- `training` is forward and backward with fresh gradients, `forward` and `inference` are without gradients.
- An operator's bound is matrix FLOPs / the measured rate of a large product + exponentials / the measured rate of
  `torch.exp` in the cache, of pairs of query and key inside the image only: two products forward, five backward, the
  products with the position tables, and one exponential for each pair and pass. On a GPU, whose units work at the same
  time, it is the largest of FLOPs, exponentials and bytes, each over its measured rate.
- A network's bound is the same network with attention replaced by its values: what remains if attention took no time.
- Memory is the peak of a fresh process above what inputs and weights take: the process's own on a CPU (Linux), and what
  PyTorch allocated on a GPU.
"""


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


H100 = "gpu/2026-11-27"
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
## Predicted, not measured: the Triton kernels

These counts come from no GPU; what one measured is above and in `results/gpu`. The kernels were compiled with the
configurations that the search proposed, before any was measured, by `halonet benchmark triton compile`, which reads
registers and shared memory from the compiled code and counts the instructions that a thread executes in its
disassembly; with the nominal rates of an H100 (132 multiprocessors at 1.7 GHz, 4 instructions, 2048 multiply-adds of
bf16 and 16 exponentials a clock on each, 3 TB/s) they give the milliseconds that each part would take if it alone
counted. A kernel takes at least the largest of them; instructions are issued in every clock only in theory, and two
thirds of it is what a good kernel reaches. Bytes are those of every tensor once. `queries` and `keys` are the two
kernels of the backward.
"""

OWED = """\
## Owed: what only a GPU can tell

Whoever has one runs these, in this order, and commits what they write to `results/`:

1. After a change of the kernels: `pytest tests/ops -m gpu`, then `pytest tests/ops/attention/test_triton.py`: the
   operator's suite, large sizes, poisoned memory, equal bits of two runs, and compute-sanitizer where it is installed.
   Hundreds of kernels are compiled: pytest-xdist's `-n 12` makes minutes of it. Where PyTorch, Triton and pytest
   are all there is, add `-o addopts=--import-mode=importlib -o filterwarnings=default`, and set `PYTHONPATH=src`.
2. `halonet benchmark all --sections networks networks_compiled operator_beside_compiled accelerate
   networks_of_21k operator_of_h0_to_h7`, and all of it where NATTEN is installed: what the H100 had no time for on this
   version, training of whole networks first.
3. `halonet benchmark tune --sizes h4 --output results/tune.json`: whether other configurations are faster for
   wider heads and in fp32; all layers of H1 have been tuned in bf16.
4. `halonet benchmark detector --device cuda`, and a detector that learns fifty photos of COCO by heart.
5. Training with several GPUs, by DDP and FSDP, through the Triton kernels.
"""

Figures = dict[str, list[float]]  # of one implementation, by their columns in `table.HEADINGS`, in each run


def make_page(results: Path = RESULTS) -> str:
    """Write the page from the records that are there."""
    parts = [INTRODUCTION]
    for section in SECTIONS:
        record = read_record(results / section.file, section.part)
        if record is not None:
            parts.append(f"## {section.title}\n\n{section.text}\n\n{table(record)}\n{absent(record)}{origin(record)}\n")
    compiled = read_record(results / COMPILED)
    if compiled is not None:
        parts.append(f"{PREDICTED}\n{predictions(compiled)}")
    parts.append(OWED)
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


def make_speed(results: Path = RESULTS) -> str:
    """Write the README's part: the operator beside its peers, networks and memory."""
    parts = []
    # The earlier version's figures stand in as long as there are none of this one.
    for name in ("operator/stages.json", "operator/stages_avx512.json"):
        record = read_record(results / name)
        if record is not None:
            text = wrap(
                "On a CPU, time of the bare operator over that of our fused kernel `cpu`, at H1's stages, beside peers "
                "that compute the same, and peak memory above the inputs; training is forward and backward:"
            )
            parts.append(f"{text}\n\n{wide_table(record)}\n{origin(record)}")
            break
    record = read_record(results / "model/networks.json")
    if record is not None:
        parts.append(f"Time of whole networks over that of ours.\n\n{tall_table(record)}\n{origin(record)}")
    record = read_record(results / "memory/step.json")
    if record is not None:
        parts.append(f"Peak memory of a step.\n\n{table(record)}\n{origin(record)}")
    parts.append(
        "All figures, and how they were measured: [docs/benchmarks.md](docs/benchmarks.md). What an H100 measured:\n"
        "[results/gpu](results/gpu)."
    )
    return "\n\n".join(parts)


def read_record(path: Path, part: str | None = None) -> dict[str, Any] | None:
    """Read a record, or one of several in a file, or return None if there is none."""
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if part is None else found["records"][part]


def rows_of(record: dict[str, Any]) -> list[list[Row]]:
    """Read the rows of each run that has any."""
    return [[Row(**row) for row in run["rows"]] for run in record["runs"] if run["rows"]]


def collect(record: dict[str, Any]) -> dict[tuple[str, str, str], Figures]:
    """Gather the figures of each case, pass and implementation over all runs."""
    collected: dict[tuple[str, str, str], Figures] = {}
    for rows in rows_of(record):
        first: dict[tuple[str, str], float] = {}
        for row in rows:
            for name in {**row.milliseconds, **row.mebibytes}:
                figures = collected.setdefault((row.case, row.task, name), {})
                for column, value in figures_of(row, name, first).items():
                    figures.setdefault(column, []).append(value)
    return collected


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


def wide_table(record: dict[str, Any]) -> str:
    """A row for each case and pass; columns for each implementation's time over ours and for its memory."""
    collected = collect(record)
    names = list(dict.fromkeys(name for _, _, name in collected))
    shown = [
        (name, column)
        for column, chosen in (("ratio", names[1:]), ("mebibytes", names))
        for name in chosen
        if any(key[2] == name and column in figures for key, figures in collected.items())
    ]
    head = ["size", "pass", *(f"{name}{', MiB' * (column == 'mebibytes')}" for name, column in shown)]
    lines = [
        [case, task, *(cell(collected.get((case, task, name), {}).get(column), column) for name, column in shown)]
        for case, task in dict.fromkeys((case, task) for case, task, _ in collected)
    ]
    return markdown_table(head, lines, words=2)


def tall_table(record: dict[str, Any]) -> str:
    """A row for each network; a column for its time over ours in each case and pass."""
    collected = collect(record)
    cases = list(dict.fromkeys((case, task) for case, task, _ in collected))
    head = ["network", *(f"{task}, {case.rpartition(', ')[2]}" for case, task in cases)]
    lines = [
        [name, *(cell(collected.get((*each, name), {}).get("ratio"), "ratio") for each in cases)]
        for name in dict.fromkeys(name for _, _, name in collected)
    ]
    return markdown_table(head, lines, words=1)


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


def make_pages() -> dict[Path, str]:
    return {PAGE: make_page(), README: replaced(README, BEGIN, END, make_speed())}


if __name__ == "__main__":
    sys.exit(write_pages(__doc__, make_pages))
