"""Write docs/benchmarks.md, and the README's figures of speed, from the records in results/benchmark_*.json.

    python tools/make_benchmark_page.py            # rewrites both
    python tools/make_benchmark_page.py --check    # says whether they are up to date, and changes nothing

A record holds one or more runs of one command on one machine. Figures are medians over the runs, with the least and
the greatest run in parentheses where there are several. Records that do not exist yet are left out.
"""

import argparse
import json
import statistics
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from halonet.benchmark.record import Row, figures_of
from halonet.models import HALONETS

ROOT = Path(__file__).parents[1]
PAGE, README, RESULTS = ROOT / "docs/benchmarks.md", ROOT / "README.md", ROOT / "results"
BEGIN = "<!-- speed: written by tools/make_benchmark_page.py -->"
END = "<!-- end of speed -->"

INTRODUCTION = """\
# Benchmarks

Written by `tools/make_benchmark_page.py` from the records in `results/`. Measured on CPUs, and on an H100 where a
heading says so. A CPU's milliseconds are of shared two-core machines and serve only the ratios.

`halonet benchmark operator`, `model` and `memory` repeat all of it on your machine; `--output FILE` keeps a record, and
appends to it when run again. How they measure:

- Contestants of a row run in turns, two rounds for warming up and then the timed ones, so that other work on the
  machine meets all of them alike. A run's figure is the median; its quartiles are in the record.
- All get the same queries, keys and values, and are first checked to compute the same as ours, each with its own
  tables and its own border rule. Who cannot take a size, or computes something else, is listed with the reason.
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
        part: Which of the file's sections holds the record, where `tools/measure_gpu.py` wrote the file.
    """

    file: str
    title: str
    text: str
    part: str | None = None


H100 = "gpu/2026-11-27"
NEWER = "Stage 4 and stage 3's strided layer are faster since, by the cuts that were timed that day (`results/gpu`)."
SECTIONS = (
    Section("benchmark_operator.json", "The operator and its peers", "H1's stages at 256 px."),
    Section(
        "benchmark_operator_avx512.json",
        "The same with AVX-512",
        "H1's stages at 256 px on another machine.",
    ),
    Section("benchmark_sizes.json", "Every size of H0 to H7, and awkward ones", "Each model at its own image size."),
    Section(
        "benchmark_operator_centered.json",
        "Relaxed and centered windows",
        "Does it pay that all queries of a block share its window, instead of each having its own?",
    ),
    Section(
        "benchmark_operator_strided.json",
        "Strided attention and pooling",
        "Attention at every second pixel, and attention at every pixel followed by 2 x 2 average pooling.",
    ),
    Section("benchmark_scaling_image.json", "Growth with the image", "The same number of pixels in every batch."),
    Section("benchmark_scaling_window.json", "Growth with the window", "Time for each pair of query and key in it."),
    Section("benchmark_model.json", "Networks", "Images of 256 px."),
    Section("benchmark_model_avx512.json", "Networks with AVX-512", "Images of 256 px, on another machine."),
    Section(
        "benchmark_model_compiled_avx512.json",
        "Compiled networks, with AVX-512",
        "`torch.compile`, which takes minutes for timm's; images of 256 px, inference.",
    ),
    Section("benchmark_model_centered.json", "H1 with centered windows", "The whole network."),
    Section("benchmark_model_strided.json", "H1 with pooling", "The whole network."),
    Section("benchmark_accelerate.json", "timm's networks, accelerated", "`halonet.accelerate`, before and after."),
    Section(
        "benchmark_accelerate_avx512.json",
        "All of timm's halo networks, accelerated, with AVX-512",
        "On another machine, each at the size it is made for.",
    ),
    Section("benchmark_memory.json", "Memory of a step", "Activations and gradients, without optimizer."),
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

COMPILED = "triton_compiled.json"
PREDICTED = """\
## Predicted, not measured: the Triton kernels

These counts come from no GPU; what one measured is above and in `results/gpu`. The kernels were compiled with the cuts
that the search proposed, before any was measured, by `tools/compile_triton.py`, which reads registers and shared memory
from the compiled code and counts the instructions that a thread executes in its disassembly; with the nominal rates of
an H100 (132 multiprocessors at 1.7 GHz, 4 instructions, 2048 multiply-adds of bf16 and 16 exponentials a clock on each,
3 TB/s) they give the milliseconds that each part would take if it alone counted. A kernel takes at least the largest of
them; instructions are issued in every clock only in theory, and two thirds of it is what a good kernel reaches. Bytes
are those of every tensor once. `queries` and `keys` are the two kernels of the backward.
"""

OWED = """\
## Owed: what only a GPU can tell

Whoever has one runs these, in this order, and commits what they write to `results/`:

1. After a change of the kernels: `pytest tests/ops -m gpu`, then `pytest tests/ops/attention/test_triton.py`: the
   operator's suite, large sizes, poisoned memory, equal bits of two runs, and compute-sanitizer where it is installed.
   Hundreds of kernels are compiled: pytest-xdist's `-n 12` makes minutes of it. Where PyTorch, Triton and pytest
   are all there is, add `-o addopts=--import-mode=importlib -o filterwarnings=default`, and set `PYTHONPATH=src`.
2. `python tools/measure_gpu.py --sections networks networks_compiled operator_beside_compiled accelerate
   networks_of_21k operator_of_h0_to_h7`, and all of it where NATTEN is installed: what the H100 had no time for on this
   version, training of whole networks first.
3. `halonet benchmark tune --sizes h4 --output results/tune.json`: whether other cuts are faster for wider heads and in
   fp32; all layers of H1 have been tuned in bf16.
4. `python tools/time_detectors.py --device cuda` and `python tools/overfit_detector.py COCO --photos 50`.
5. Training with several GPUs, by DDP and FSDP, through the Triton kernels.
"""

Figures = dict[str, list[float]]  # a contestant's milliseconds, times ours, ... in each run


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


def predictions(compiled: dict[str, Any]) -> str:
    """What the Triton kernels take for H1, and what a card would take for them; then the sums over networks' layers."""
    limits = ("issue ms", "bytes ms", "products ms", "exponentials ms")
    rows = [row for row in compiled["rows"] if limits[0] in row]
    head = ["size", "kernel", "tile, warps", "registers", "shared KiB", "at once", *limits]
    lines = [
        [
            row["size"],
            row["kernel"],
            f"{row['queries']} x ({row['key_rows']} x {row['key_columns']}), {row['num_warps']}",
            str(row["registers"]),
            f"{row['shared'] / 1024:.0f}",
            str(row["at once"]),
            *(f"{row[limit]:.3f}" for limit in limits),
        ]
        for row in rows
        if row["size"].startswith("h1/")
    ]
    for name in sorted({row["size"].partition("/")[0] for row in rows}):
        layers = layers_of(name)
        for kernels in (("forward",), ("queries", "keys")):
            chosen = [(layers[row["size"]], row) for row in rows if row["kernel"] in kernels and row["size"] in layers]
            sums = (f"{sum(count * row[limit] for count, row in chosen):.2f}" for limit in limits)
            lines.append([f"all layers of {name.upper()}", " and ".join(kernels), "", "", "", "", *sums])
    versions = (
        f"Triton {compiled['triton']}, compute capability 9.0, bf16 with tables in fp32, batch {compiled['batch']}."
    )
    return f"{markdown(head, lines, words=3)}\n{versions}\n"


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
    for name in ("benchmark_operator.json", "benchmark_operator_avx512.json"):
        record = read_record(results / name)
        if record is not None:
            text = prose(
                "On a CPU, time of the bare operator over that of our fused kernel `cpu`, at H1's stages, beside peers "
                "that compute the same, and peak memory above the inputs; training is forward and backward:"
            )
            parts.append(f"{text}\n\n{wide_table(record)}\n{origin(record)}")
            break
    record = read_record(results / "benchmark_model.json")
    if record is not None:
        parts.append(f"Time of whole networks over that of ours.\n\n{tall_table(record)}\n{origin(record)}")
    record = read_record(results / "benchmark_memory.json")
    if record is not None:
        parts.append(f"Peak memory of a step.\n\n{table(record)}\n{origin(record)}")
    parts.append(
        "All figures, and how they were measured: [docs/benchmarks.md](docs/benchmarks.md). What an H100 measured:\n"
        "[results/gpu](results/gpu)."
    )
    return "\n\n".join(parts)


def read_record(path: Path, part: str | None = None) -> dict[str, Any] | None:
    """Read a record, or that of a section of a file, or None if there is none."""
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if part is None else found["sections"][part]["record"]


def collect(record: dict[str, Any]) -> dict[tuple[str, str, str], Figures]:
    """Gather each figure of each case, pass and contestant over all runs."""
    collected: dict[tuple[str, str, str], Figures] = {}
    for run in record["runs"]:
        first: dict[tuple[str, str], float] = {}
        for row in (Row(**each) for each in run["rows"]):
            for name in {**row.milliseconds, **row.mebibytes}:
                figures = collected.setdefault((row.case, row.task, name), {})
                for kind, value in figures_of(row, name, first).items():
                    figures.setdefault(kind, []).append(value)
    return collected


def cell(values: list[float] | None, kind: str) -> str:
    """One figure: the median over runs, and the least and the greatest run."""
    if not values:
        return "-"
    suffix = {"times ours": " x", "MiB, times ours": " x", "of its bound": " %"}.get(kind, "")

    def number(value: float) -> str:
        return (
            f"{value:.0f}"
            if value >= 100 or kind == "of its bound"
            else f"{value:.1f}"
            if value >= 10
            else f"{value:.2f}"
        )

    spread = (
        f" ({number(min(values))} to {number(max(values))})" if len(values) > 1 and min(values) < max(values) else ""
    )
    return number(statistics.median(values)) + suffix + spread


def table(record: dict[str, Any]) -> str:
    """A row for each case, pass and contestant; a column for each kind of figure."""
    collected = collect(record)
    kinds = list(dict.fromkeys(kind for figures in collected.values() for kind in figures))
    head = ["case", "pass", "contestant", *kinds]
    rows = [[*key, *(cell(figures.get(kind), kind) for kind in kinds)] for key, figures in collected.items()]
    return markdown(head, rows, words=3)


def wide_table(record: dict[str, Any]) -> str:
    """A row for each case and pass; a column for each contestant's time over ours, and for each one's memory."""
    collected = collect(record)
    names = list(dict.fromkeys(name for _, _, name in collected))
    columns = [(name, kind) for kind in ("times ours", "MiB") for name in names]
    own = names[0]
    shown = [
        (name, kind)
        for name, kind in columns
        if (name, kind) != (own, "times ours")
        and any(key[2] == name and kind in each for key, each in collected.items())
    ]
    head = ["size", "pass", *(f"{name}{', MiB' if kind == 'MiB' else ''}" for name, kind in shown)]
    rows = [
        [case, task, *(cell(collected.get((case, task, name), {}).get(kind), kind) for name, kind in shown)]
        for case, task in dict.fromkeys((case, task) for case, task, _ in collected)
    ]
    return markdown(head, rows, words=2)


def tall_table(record: dict[str, Any]) -> str:
    """A row for each contestant; a column for its time over ours in each case and pass."""
    collected = collect(record)
    races = list(dict.fromkeys((case, task) for case, task, _ in collected))
    head = ["network", *(f"{task}, {case.rpartition(', ')[2]}" for case, task in races)]
    rows = [
        [name, *(cell(collected.get((*each, name), {}).get("times ours"), "times ours") for each in races)]
        for name in dict.fromkeys(name for _, _, name in collected)
    ]
    return markdown(head, rows, words=1)


def markdown(head: list[str], rows: list[list[str]], words: int) -> str:
    """A Markdown table whose first columns are words, and whose others are numbers, to the right."""
    rule = ["---" if index < words else "---:" for index in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)) + "\n"


def absent(record: dict[str, Any]) -> str:
    """Who took no part, where and why."""
    places: dict[tuple[str, str], list[str]] = {}
    for run in record["runs"]:
        for row in run["rows"]:
            for name, reason in row["absent"].items():
                place = f"{row['case']} {row['task']}"
                if place not in places.setdefault((name, reason), []):
                    places[name, reason].append(place)
    lines = [
        f"- `{name}`: {reason} ({', '.join(where) if len(where) < 4 else f'{where[0]} and {len(where) - 1} more'})"
        for (name, reason), where in places.items()
    ]
    return "".join(["Left out:\n\n", *(line + "\n" for line in lines), "\n"]) if lines else ""


def origin(record: dict[str, Any]) -> str:
    """Where the figures come from: runs, machine, settings, versions, commits and command."""
    runs = [run["provenance"] for run in record["runs"]]

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
    machine = ", ".join(
        what for name, what in record["machine"].items() if not (on_gpu and name == "halonet cpu backend")
    )
    repeats = ", ".join(dict.fromkeys(str(run["repeats"]) for run in record["runs"]))
    return prose(
        f"{count}{when}: {machine}; {settings}; medians of {repeats}; torch {every('torch')}, "
        f"timm {every('timm')}; commit {commits or 'unknown'}; load of the machine before: "
        f"{every('load') or 'unknown'}; `{every('command')}`."
    )


def prose(text: str) -> str:
    """Break a paragraph into lines of at most 120 columns."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def split_readme(text: str) -> tuple[str, str, str]:
    """The README before, between and after its markers."""
    before, rest = text.split(BEGIN)
    between, after = rest.split(END)
    return before, between.strip("\n"), after


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether both are up to date")
    arguments = parser.parse_args()
    before, _, after = split_readme(README.read_text(encoding="utf-8"))
    wanted = {PAGE: make_page(), README: f"{before}{BEGIN}\n\n{make_speed()}\n\n{END}{after}"}
    stale = [path for path, text in wanted.items() if path.read_text(encoding="utf-8") != text]
    if arguments.check:
        print("up to date" if not stale else f"stale: {', '.join(map(str, stale))}; run tools/make_benchmark_page.py")
        return int(bool(stale))
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
