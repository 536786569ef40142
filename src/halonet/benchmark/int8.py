"""What int8 costs and gains, in ONNX Runtime and compiled by PyTorch: accuracy, size and time beside float32."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor import config as inductor

import halonet
from halonet.benchmark.networks import create_network
from halonet.benchmark.record import Row
from halonet.benchmark.settings import Settings
from halonet.benchmark.timing import time_in_turns
from halonet.classification.metrics import wilson_interval
from halonet.classification.prediction import TrainedClassifier
from halonet.data import load_source
from halonet.export import export_network
from halonet.export.onnx_model import open_session

QUESTION = {"weights": "tiny28.fashion_mnist", "calibrated": 256, "images": 2000}
EVALUATED = 200  # images at a time


def measure_int8(settings: Settings) -> Iterator[Row]:
    """Measure packaged weights on the embedded test images, then H0 with random weights, which has no accuracy."""
    trained = halonet.load(QUESTION["weights"])
    calibration, _ = _read(trained, "train", QUESTION["calibrated"])
    images, labels = _read(trained, "test", QUESTION["images"])
    yield _compare(trained.model, calibration, images, labels, f"{QUESTION['weights']}, 28 px", settings)
    torch.manual_seed(0)
    noise = torch.randn(max(10, settings.batch), 3, 256, 256)
    yield _compare(create_network("h0").eval(), noise, noise, None, "h0, 256 px", settings)


def _read(trained: TrainedClassifier, split: str, count: int) -> tuple[Tensor, Tensor]:
    source = load_source("fashion-mnist", split)
    pairs = [source[index] for index in range(count)]
    return torch.stack([trained.transform(image) for image, _ in pairs]), torch.tensor([label for _, label in pairs])


def _compare(
    network: nn.Module, calibration: Tensor, images: Tensor, labels: Tensor | None, case: str, settings: Settings
) -> Row:
    """Export in both precisions and formats, and compare time, size and, with labels, accuracy."""
    facts: dict[str, Any] = {"batch": settings.batch}
    steps = {}
    image = images[: settings.batch]
    with tempfile.TemporaryDirectory() as folder:
        for format, (precision, chosen) in product(("onnx", "pt2"), (("float32", None), ("int8", calibration))):
            name = f"{format}_{precision}"
            exported = export_network(network, Path(folder) / f"{name}.{format}", calibration=chosen)
            run = _open(exported.path, settings)
            steps[name] = lambda run=run: run(image)
            facts[f"bytes_{name}"] = exported.bytes
            if labels is not None:
                found = torch.cat([run(some) for some in images.split(EVALUATED)]).argmax(1)
                right = int((found == labels).sum())
                facts[f"top1_{name}"] = 100 * right / len(labels)
                facts[f"top1_interval_{name}"] = list(wilson_interval(right, len(labels)))
        milliseconds = time_in_turns(steps, settings)
    return Row(case=case, task="inference", baseline="onnx_float32", facts=facts, milliseconds=milliseconds)


def _open(path: Path, settings: Settings) -> Callable[[Tensor], Tensor]:
    """Open a file; a program of PyTorch is compiled, as int8 needs to be fast."""
    if path.suffix == ".onnx":
        session = open_session(str(path), settings.threads)
        return lambda image: torch.as_tensor(session.run(None, {"image": image.numpy()})[0])
    module = torch.compile(torch.export.load(path).module(), dynamic=False)

    @torch.inference_mode()
    def run(image: Tensor) -> Tensor:
        with inductor.patch(freezing=True), warnings.catch_warnings():  # freezing: weights become constants
            warnings.filterwarnings("ignore", "To copy construct", UserWarning)  # of Inductor's own code
            return module(image)

    return run
