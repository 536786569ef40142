"""What is kept of a benchmark: rows of figures, where they come from, and the runs of one file."""

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import halonet
from halonet.benchmark.settings import Settings
from halonet.errors import UserError
from halonet.ops.attention import describe_backends
from halonet.training.files import check_output_file, write_atomically

PACKAGES = ("torch", "triton", "timm", "natten", "halonet-pytorch")


@dataclasses.dataclass(frozen=True)
class Row:
    """One race: what was run, and the figures of every contestant.

    Attributes:
        case: What was run, e.g. "h1/stage1".
        task: "forward", "inference" or "training".
        baseline: The contestant of ours that ratios are taken over.
        facts: The numbers of the case, e.g. its block and batch; where they are compared per pixel, or per pair of
            query and key, `unit` and `units`.
        milliseconds: Lower quartile, median and upper quartile of each contestant.
        bounds: Milliseconds that a contestant would take at best.
        mebibytes: Peak memory of each contestant above its inputs, in MiB.
        absent: Why a contestant did not take part.
    """

    case: str
    task: str
    baseline: str
    facts: dict[str, Any]
    milliseconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    bounds: dict[str, float] = dataclasses.field(default_factory=dict)
    mebibytes: dict[str, float] = dataclasses.field(default_factory=dict)
    absent: dict[str, str] = dataclasses.field(default_factory=dict)


def figures_of(row: Row, name: str, first: dict[tuple[str, str], float]) -> dict[str, float]:
    """Compute one contestant's figures of one row, in the order and by the names in which they are shown.

    Args:
        row: The row.
        name: The contestant.
        first: Remembers, from row to row, what growth is relative to.
    """
    figures = {}
    if name in row.milliseconds:
        figures["ms"] = median = row.milliseconds[name][1]
        if row.baseline in row.milliseconds:
            figures["times ours"] = median / row.milliseconds[row.baseline][1]
        if name in row.bounds:
            figures["of its bound"] = 100 * row.bounds[name] / median
        if "units" in row.facts:
            each = median / row.facts["units"]
            growth = each / first.setdefault((row.task, name), each)
            figures[f"for each {row.facts['unit']}, to the first"] = growth
    if name in row.mebibytes:
        figures["MiB"] = row.mebibytes[name]
        if own := row.mebibytes.get(row.baseline):
            figures["MiB, times ours"] = row.mebibytes[name] / own
    return figures


def describe_machine() -> dict[str, str]:
    """Name the processor, and the accelerator if there is one."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    machine = {"processor": processor, "torch instructions": torch.backends.cpu.get_cpu_capability()}
    backends = {row["backend"]: row["summary"] for row in describe_backends()}
    machine["halonet cpu backend"] = backends["cpu"]  # with its instruction set, or why it is not there
    if torch.cuda.is_available():
        machine["accelerator"] = torch.cuda.get_device_name()
        machine["driver"] = _describe_driver()
        machine["halonet triton backend"] = backends["triton"]
    return machine


@functools.cache
def _describe_driver() -> str:
    """The driver of an NVIDIA card and the CUDA that PyTorch was built for, or the ROCm that it was built for."""
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"unknown, CUDA {torch.version.cuda}"
    return f"{done.stdout.split()[0]}, CUDA {torch.version.cuda}"


def describe_run(words: list[str], program: Sequence[str] = ("halonet",)) -> dict[str, Any]:
    """Say when a run was made, with what, by which command, and how much else the machine did (`load`).

    Args:
        words: The command line after the program's name, as typed.
        program: The words that start it.
    """
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "command": shlex.join([*program, *words]),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **_describe_commit(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "halonet": halonet.__version__,
        **versions,
    }


def _describe_commit() -> dict[str, Any]:
    """The commit of the checkout that the package runs from, and whether its code was modified since."""
    package = Path(halonet.__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(package), *words], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", "__init__.py") is None:  # an installed package inside some other checkout
        return {"commit": None}
    modified = bool(git("status", "--porcelain", "--", str(package), str(package.parents[1] / "csrc")))
    return {"commit": git("rev-parse", "--short", "HEAD"), "modified": modified}


def make_record(benchmark: str, question: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Begin a record: what all its runs share."""
    shared = {name: value for name, value in dataclasses.asdict(settings).items() if name != "repeats"}
    return {"benchmark": benchmark, "question": question, "settings": shared, "machine": describe_machine(), "runs": []}


def join_file(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """Take over the runs of a file that exists already.

    Args:
        record: As `make_record` begins it.
        path: A file, or where one is to be.

    Raises:
        UserError: If the file is no record, or one of another benchmark, question, setting or machine.
    """
    found = read_output(path)
    return record if found is None else join(record, found, path)


def read_output(path: Path) -> dict[str, Any] | None:
    """Read what `--output` names, or None if it is yet to be written.

    Raises:
        UserError: If it is no JSON of a dictionary, or cannot be written.
    """
    check_output_file(path)
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(_no_record(path)) from error
    if not isinstance(found, dict):
        raise UserError(_no_record(path))
    return found


def join(record: dict[str, Any], found: Any, path: Path) -> dict[str, Any]:
    """Take over the runs of a record that was found in a file.

    Raises:
        UserError: As `join_file`.
    """
    if not isinstance(found, dict) or not isinstance(found.get("runs"), list):
        raise UserError(_no_record(path))
    for name in ("benchmark", "question", "settings", "machine"):
        if found.get(name) != record[name]:
            raise UserError(
                f"--output {path} is a record of {name} {found.get(name)}, this is {record[name]}; name another file"
            )
    return record | {"runs": found["runs"]}


def _no_record(path: Path) -> str:
    return f"--output {path} exists and is no record of a benchmark; name another file"


def write_record(record: dict[str, Any], run: dict[str, Any], path: Path) -> None:
    """Append a run to the runs that the file holds by now, and write it.

    Raises:
        UserError: As `join_file`.
    """
    joined = join_file(record, path)
    joined["runs"] = [*joined["runs"], run]
    write_output(joined, path)


def write_output(document: dict[str, Any], path: Path) -> None:
    """Write a file, whose earlier content an interrupted write must not cost."""
    content = (json.dumps(document, indent=1) + "\n").encode()
    write_atomically(path, lambda file: file.write(content))
