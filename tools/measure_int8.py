"""Measure what int8 costs and gains: `python tools/measure_int8.py`, added to `results/export/int8.json`.

Accuracy is that of the weights tiny28.fashion_mnist on the embedded test images. Times are taken in turns, of ONNX
files on one thread; H0 has random weights.
"""

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
from pages import ROOT
from torch import Tensor, nn

import halonet
from halonet.benchmark.record import Row, describe_run, make_record, write_record
from halonet.benchmark.settings import Settings
from halonet.benchmark.timing import time_in_turns
from halonet.classification.metrics import wilson_interval
from halonet.classification.prediction import TrainedClassifier
from halonet.data import load_source
from halonet.export import export_network
from halonet.export.onnx_model import open_session

WEIGHTS = "tiny28.fashion_mnist"
CALIBRATED, IMAGES = 256, 2000
FLOAT, INT8 = "float32", "int8"


def read(trained: TrainedClassifier, split: str, count: int) -> tuple[Tensor, Tensor]:
    source = load_source("fashion-mnist", split)
    pairs = [source[index] for index in range(count)]
    return torch.stack([trained.transform(image) for image, _ in pairs]), torch.tensor([label for _, label in pairs])


def measure_onnx(
    network: nn.Module,
    calibration: Tensor,
    images: Tensor,
    labels: Tensor | None,
    case: str,
    settings: Settings,
    folder: Path,
) -> Row:
    """Export in both precisions, and compare time, size and, with labels, accuracy."""
    facts, steps = {"batch": settings.batch}, {}
    for name, chosen in ((FLOAT, None), (INT8, calibration)):
        exported = export_network(network, folder / f"{name}.onnx", calibration=chosen)
        session = open_session(str(exported.path), settings.threads)
        batch = {"image": images[: settings.batch].numpy()}
        steps[name] = lambda session=session, batch=batch: session.run(None, batch)
        facts[f"bytes_{name}"] = exported.bytes
        if labels is not None:
            found = [session.run(None, {"image": some.numpy()})[0] for some in images.split(200)]
            right = int((torch.cat([torch.as_tensor(each) for each in found]).argmax(1) == labels).sum())
            facts[f"top1_{name}"] = 100 * right / len(labels)
            facts[f"top1_interval_{name}"] = list(wilson_interval(right, len(labels)))
        print(f"{case}: {name} written", file=sys.stderr, flush=True)
    milliseconds = time_in_turns(steps, settings)
    return Row(case=case, task="inference", baseline=FLOAT, facts=facts, milliseconds=milliseconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "results/export/int8.json")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = describe_run([])
    run["command"] = "python tools/measure_int8.py"
    settings = Settings(batch=1, repeats=options.repeats, threads=1)
    trained = halonet.load(WEIGHTS)
    calibration, _ = read(trained, "train", CALIBRATED)
    images, labels = read(trained, "test", IMAGES)
    torch.manual_seed(0)
    large, noise = halonet.create_model("h0").eval(), torch.randn(10, 3, 256, 256)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [
            measure_onnx(trained.model, calibration, images, labels, f"{WEIGHTS}, 28 px", settings, folder),
            measure_onnx(large, noise, noise, None, "h0, 256 px", settings, folder),
        ]
    record = make_record("int8", {"weights": WEIGHTS, "calibrated": CALIBRATED, "images": IMAGES}, settings)
    options.output.parent.mkdir(exist_ok=True)
    kept = {"provenance": run, "repeats": options.repeats, "rows": [asdict(row) for row in rows]}
    write_record(record, kept, options.output)


if __name__ == "__main__":
    main()
