"""What int8 costs and gains in ONNX Runtime: accuracy, size and time beside float32."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import halonet
from halonet.benchmark.record import Row
from halonet.benchmark.settings import Settings
from halonet.benchmark.timing import time_in_turns
from halonet.classification.metrics import wilson_interval
from halonet.classification.prediction import TrainedClassifier
from halonet.data import load_source
from halonet.export import export_network
from halonet.export.onnx_model import open_session

QUESTION = {"weights": "tiny28.fashion_mnist", "calibrated": 256, "images": 2000}
FLOAT, INT8 = "float32", "int8"


def measure_int8(settings: Settings) -> Iterator[Row]:
    """Measure packaged weights on the embedded test images, then H0 with random weights, which has no accuracy."""
    trained = halonet.load(QUESTION["weights"])
    calibration, _ = _read(trained, "train", QUESTION["calibrated"])
    images, labels = _read(trained, "test", QUESTION["images"])
    yield _compare(trained.model, calibration, images, labels, f"{QUESTION['weights']}, 28 px", settings)
    torch.manual_seed(0)
    noise = torch.randn(max(10, settings.batch), 3, 256, 256)
    yield _compare(halonet.create_model("h0").eval(), noise, noise, None, "h0, 256 px", settings)


def _read(trained: TrainedClassifier, split: str, count: int) -> tuple[Tensor, Tensor]:
    source = load_source("fashion-mnist", split)
    pairs = [source[index] for index in range(count)]
    return torch.stack([trained.transform(image) for image, _ in pairs]), torch.tensor([label for _, label in pairs])


def _compare(
    network: nn.Module, calibration: Tensor, images: Tensor, labels: Tensor | None, case: str, settings: Settings
) -> Row:
    """Export in both precisions, and compare time, size and, with labels, accuracy."""
    facts: dict[str, Any] = {"batch": settings.batch}
    steps = {}
    batch = {"image": images[: settings.batch].numpy()}
    with tempfile.TemporaryDirectory() as folder:
        for name, chosen in ((FLOAT, None), (INT8, calibration)):
            exported = export_network(network, Path(folder) / f"{name}.onnx", calibration=chosen)
            session = open_session(str(exported.path), settings.threads)
            steps[name] = lambda session=session: session.run(None, batch)
            facts[f"bytes_{name}"] = exported.bytes
            if labels is not None:
                found = [session.run(None, {"image": some.numpy()})[0] for some in images.split(200)]
                right = int((torch.cat([torch.as_tensor(each) for each in found]).argmax(1) == labels).sum())
                facts[f"top1_{name}"] = 100 * right / len(labels)
                facts[f"top1_interval_{name}"] = list(wilson_interval(right, len(labels)))
    milliseconds = time_in_turns(steps, settings)
    return Row(case=case, task="inference", baseline=FLOAT, facts=facts, milliseconds=milliseconds)
