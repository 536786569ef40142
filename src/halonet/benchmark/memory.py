"""Peak memory of one pass above its inputs, in a process of its own: `python -m halonet.benchmark.memory JSON`.

A first, small pass lets the libraries allocate their own buffers.
"""

import ctypes
import gc
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from halonet.benchmark.settings import Settings
from halonet.benchmark.timing import synchronize
from halonet.errors import UserError

CLEAR = Path("/proc/self/clear_refs")  # writing 5 resets the peak memory of a process (Linux)


def can_measure(device: str) -> bool:
    """Whether peak memory on a device can be measured on this system."""
    return device != "cpu" or CLEAR.exists()


def peak_mebibytes(prepare: str, settings: Settings, **arguments: Any) -> float:
    """Measure one pass in a fresh process.

    Args:
        prepare: "module:function"; called with the settings and the arguments, it returns the pass.
        settings: The first, small pass takes a batch of two instead.
        **arguments: JSON values.

    Raises:
        UserError: If this system cannot measure it.
        RuntimeError: If the process fails.
    """
    if not can_measure(settings.device):
        raise UserError("peak memory on a CPU needs Linux's /proc/self/clear_refs, which this system lacks")
    request = json.dumps({"prepare": prepare, "settings": vars(settings), "arguments": arguments})
    argv = [sys.executable, "-m", "halonet.benchmark.memory", request]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(f"the process that measures memory failed: {last}")
    return float(done.stdout.split()[-1])


def measure_here(step: Callable[[], object], device: str) -> float:
    """Peak memory of one pass in this process, in MiB, above what is there before."""
    gc.collect()
    if device != "cpu":
        torch.accelerator.empty_cache()
        torch.accelerator.reset_peak_memory_stats(device)
        before = torch.accelerator.memory_allocated(device)
        step()
        synchronize(device)
        return (torch.accelerator.max_memory_allocated(device) - before) / 2**20
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc keeps freed memory, which would hide new allocations
        trim(0)
    CLEAR.write_text("5")
    before = _status("VmRSS")
    step()
    return (_status("VmHWM") - before) / 2**10


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def main() -> None:
    """Measure what the request on the command line names, and print MiB."""
    request = json.loads(sys.argv[1])
    settings = Settings(**request["settings"])
    torch.set_num_threads(settings.threads)
    module, _, function = request["prepare"].partition(":")
    prepare = getattr(importlib.import_module(module), function)
    # Batch norm cannot train on one image where maps are one pixel.
    prepare(Settings(**request["settings"] | {"batch": 2}), **request["arguments"])()
    step = prepare(settings, **request["arguments"])
    print(measure_here(step, settings.device))


if __name__ == "__main__":
    main()
