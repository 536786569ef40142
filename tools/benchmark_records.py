"""Reading of the records in results/: what the page of benchmarks and its charts share."""

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from pages import ROOT

from halonet.benchmark.record import Row, figures_of

RESULTS = ROOT / "results"
H100 = "gpu/2026-11-27"

Figures = dict[str, list[float]]  # of one implementation, by their columns in `table.HEADINGS`, in each run
Medians = dict[tuple[str, str, str], dict[str, float]]  # by case, pass and implementation


class Source(NamedTuple):
    """A record.

    Attributes:
        file: Its name in `results/`.
        part: Its name in a file of `halonet benchmark all`.
    """

    file: str
    part: str | None = None


class Device(NamedTuple):
    """A machine with a record for each question: of H1's stages, images of growing size, networks and memory."""

    name: str
    details: str
    stages: Source
    growth: Source
    networks: Source
    memory: Source


DEVICES = (
    Device(
        "CPU",
        "two threads of an AMD EPYC with AVX2, fp32",
        Source("operator/stages.json"),
        Source("operator/growth_image.json"),
        Source("model/networks.json"),
        Source("memory/step.json"),
    ),
    Device(
        "H100",
        "bf16",
        Source(f"{H100}/measured.json", "operator"),
        Source(f"{H100}/measured.json", "growth_with_the_image"),
        Source(f"{H100}/networks.json", "networks"),
        Source(f"{H100}/memory.json", "memory"),
    ),
)
WINDOWS = Source("operator/growth_window.json")


def read_record(results: Path, source: Source) -> dict[str, Any] | None:
    """Read a record, or return None if its file does not exist."""
    path = results / source.file
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if source.part is None else found["records"][source.part]


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


def read_medians(results: Path, source: Source) -> Medians:
    """Read the medians over the runs of a record; none if its file does not exist."""
    record = read_record(results, source)
    if record is None:
        return {}
    return {
        key: {column: statistics.median(values) for column, values in figures.items()}
        for key, figures in collect(record).items()
    }


def best_ratio(medians: Medians, network: str, batch: str, task: str) -> float | None:
    """Find a network's time over H1's, in the memory format in which it is faster; `batch` as in "batch 4"."""
    names = (network, f"{network} channels_last")
    ratios = [
        figures["ratio"]
        for (case, each, name), figures in medians.items()
        if case.endswith(f", {batch}") and each == task and name in names and "ratio" in figures
    ]
    return min(ratios, default=None)
