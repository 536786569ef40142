"""Records of benchmarks: one format, one writer.

A record is a dictionary of `benchmark`, `question`, `settings`, `machine` and `runs`; a run has its `provenance` and
its `rows`. Running the same benchmark again appends a run.
"""

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any

import torch

import halonet
from halonet.benchmark.settings import Settings
from halonet.engine.files import check_output_file, write_atomically
from halonet.errors import UserError
from halonet.ops.attention import describe_backends

PACKAGES = ("torch", "triton", "timm", "natten", "halonet-pytorch")


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured together, and the figures of each implementation by its name.

    Attributes:
        case: What was run, e.g. "h1/stage1".
        task: "forward", "inference" or "training".
        baseline: The implementation of ours that ratios are over.
        facts: Numbers of the case, e.g. its block and batch; `unit` ("pixel" or "pair" of query and key) and `units`
            where times are compared per unit.
        milliseconds: Lower quartile, median and upper quartile.
        bounds: Least possible milliseconds.
        mebibytes: Peak memory above the inputs, in MiB.
        absent: Why an implementation was left out.
    """

    case: str
    task: str
    baseline: str
    facts: dict[str, Any]
    milliseconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    bounds: dict[str, float] = dataclasses.field(default_factory=dict)
    mebibytes: dict[str, float] = dataclasses.field(default_factory=dict)
    absent: dict[str, str] = dataclasses.field(default_factory=dict)


def reason_of(error: Exception) -> str:
    """Describe an error on one line, for `Row.absent`."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


def figures_of(row: Row, name: str, first: dict[tuple[str, str], float]) -> dict[str, float]:
    """Compute the figures of one implementation in one row, by the columns of `table.HEADINGS`.

    `first` is the time per unit in the first row, which growth is relative to; it is filled here.
    """
    figures = {}
    if name in row.milliseconds:
        figures["milliseconds"] = median = row.milliseconds[name][1]
        if row.baseline in row.milliseconds:
            figures["ratio"] = median / row.milliseconds[row.baseline][1]
        if name in row.bounds:
            figures["bound_percent"] = 100 * row.bounds[name] / median
        if "units" in row.facts:
            each = median / row.facts["units"]
            figures["growth"] = each / first.setdefault((row.task, name), each)
    if name in row.mebibytes:
        figures["mebibytes"] = row.mebibytes[name]
        if own := row.mebibytes.get(row.baseline):
            figures["memory_ratio"] = row.mebibytes[name] / own
    return figures


def describe_machine() -> dict[str, str]:
    """Name the processor, and the accelerator if there is one."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    machine = {"processor": processor, "instructions": torch.backends.cpu.get_cpu_capability()}
    backends = {row["backend"]: row["summary"] for row in describe_backends()}
    machine["cpu_backend"] = backends["cpu"]  # with its instruction set, or why it is not here
    if torch.cuda.is_available():
        machine["accelerator"] = torch.cuda.get_device_name()
        machine["driver"] = _describe_driver()
        machine["triton_backend"] = backends["triton"]
    return machine


@functools.cache
def _describe_driver() -> str:
    """Driver of an NVIDIA card and CUDA version of PyTorch, or its ROCm version."""
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"unknown, CUDA {torch.version.cuda}"
    return f"{done.stdout.split()[0]}, CUDA {torch.version.cuda}"


def describe_run(argv: list[str]) -> dict[str, Any]:
    """Describe a run: command (`argv` after the program's name), time, commit, load of the machine, versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "command": shlex.join(["halonet", *argv]),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **_describe_commit(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "halonet": halonet.__version__,
        **versions,
    }


def _describe_commit() -> dict[str, Any]:
    """Commit of the checkout that the package runs from, and whether its code was modified since."""
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


def make_record(benchmark: str, question: dict[str, Any], settings: Settings | None = None) -> dict[str, Any]:
    """Begin a record with what all its runs share."""
    shared = {} if settings is None else dataclasses.asdict(settings)
    shared.pop("repeats", None)  # runs may differ in it
    return {"benchmark": benchmark, "question": question, "settings": shared, "machine": describe_machine(), "runs": []}


def join_file(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """Take over the runs of the file, if it exists; raise a `UserError` if it is not a record of the same question."""
    found = read_output(path)
    return record if found is None else join(record, found, path)


def read_output(path: Path) -> dict[str, Any] | None:
    """Read the JSON dictionary that `--output` names, or return None; raise a `UserError` for another file."""
    check_output_file(path)
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(not_a_record(path)) from error
    if not isinstance(found, dict):
        raise UserError(not_a_record(path))
    return found


def join(record: dict[str, Any], found: Any, path: Path) -> dict[str, Any]:
    """Take over the runs of a record found in a file; raises as `join_file`."""
    if not isinstance(found, dict) or not isinstance(found.get("runs"), list):
        raise UserError(not_a_record(path))
    for name in ("benchmark", "question", "settings", "machine"):
        if found.get(name) != record[name]:
            raise UserError(
                f"--output {path} is a record of {name} {found.get(name)}, this is {record[name]}; name another file"
            )
    return record | {"runs": found["runs"]}


def not_a_record(path: Path) -> str:
    """Say that a file is not a record."""
    return f"--output {path} exists and is not a record of a benchmark; name another file"


def write_record(record: dict[str, Any], run: dict[str, Any], path: Path) -> None:
    """Append a run to those in the file, and write it; raises as `join_file`."""
    joined = join_file(record, path)
    joined["runs"] = [*joined["runs"], run]
    write_output(joined, path)


def write_output(document: dict[str, Any], path: Path) -> None:
    """Write a file atomically."""
    content = (json.dumps(document, indent=1) + "\n").encode()
    write_atomically(path, lambda file: file.write(content))
