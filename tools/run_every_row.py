"""Run every row of the family forward and backward at 224 px, at 97 x 161 and at its own size, and keep the record.

    python tools/run_every_row.py --output results/every_row_cpu.json

One image at a time, in training mode, fp32. What is recorded is that it ran: the loss, and that every gradient is
finite. Seconds are of this machine and only tell how long the script takes.
"""

import argparse
import json
import platform
import subprocess
import time
from pathlib import Path

import torch

import halonet


def run_row(name: str, height: int, width: int) -> dict:
    """Run one row at one size."""
    torch.manual_seed(0)
    model = halonet.create_model(name, num_classes=10)
    start = time.perf_counter()
    loss = torch.nn.functional.cross_entropy(model(torch.randn(1, 3, height, width)), torch.tensor([3]))
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    finite = all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)
    return {
        "model": name,
        "height": height,
        "width": width,
        "loss": loss.item(),
        "finite": finite and bool(torch.isfinite(loss)),
        "seconds": round(time.perf_counter() - start, 2),
    }


def main() -> None:
    """Run all, print a line each, write the JSON, and fail if any was not finite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("models", nargs="*", help="default: all")
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    rows = []
    for name in options.models or halonet.HALONETS:
        side = halonet.HALONETS[name].image_size
        for height, width in ((224, 224), (97, 161), (side, side)):
            rows.append(run_row(name, height, width))
            print("{model:14} {height:4} x {width:<4} loss {loss:6.3f} finite {finite} {seconds} s".format(**rows[-1]))
    record = {
        "command": "python tools/run_every_row.py",
        "commit": commit.stdout.strip(),
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "halonet": halonet.__version__,
        "rows": rows,
    }
    if options.output:
        options.output.write_text(json.dumps(record, indent=2) + "\n")
    if not all(row["finite"] for row in rows):
        raise SystemExit("a loss or a gradient is missing or not finite")


if __name__ == "__main__":
    main()
