"""Exports of all networks, verified, with time and size; and the speed of one in ONNX Runtime beside ours."""

import tempfile
from pathlib import Path
from typing import Any

import torch

import halonet
from halonet.benchmark.networks import create_network
from halonet.benchmark.record import Row
from halonet.benchmark.settings import Settings
from halonet.benchmark.timing import time_in_turns
from halonet.export import FORMATS, export_network
from halonet.export.compiled import open_compiled
from halonet.export.onnx_model import open_session
from halonet.export.program import INPUT
from halonet.models import HALONETS


def measure_export(name: str, format: str) -> dict[str, Any]:
    """Export a row of `HALONETS`, verify the file, and return what the export took.

    Raises:
        ExportError: The file gives something else than the network.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}{FORMATS[format].suffix}"
        exported = export_network(create_network(name), path, format=format)
    return {
        "model": name,
        "format": format,
        "image_size": HALONETS[name].image_size,
        "cpu_seconds": round(exported.cpu_seconds, 1),
        "seconds": round(exported.seconds, 1),
        "mebibytes": round(exported.bytes / 2**20, 1),
        "verified": [list(size) for size in exported.verified],
        "error": float(f"{exported.error:.1e}"),
    }


def measure_speed(name: str, settings: Settings, image_size: int) -> Row:
    """Time a network in ONNX Runtime, compiled by AOTInductor, as it is, and with folded norms, in turns."""
    network = create_network(name).eval()
    fused = halonet.fuse_batch_norm(network)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        export_network(network, path, verify=False)
        session = open_session(str(path), settings.threads)
        compiled_path = path.with_suffix(".pt2")
        export_network(network, compiled_path, format="aoti", verify=False)
        compiled = open_compiled(compiled_path)
    image = torch.randn(settings.batch, 3, image_size, image_size)
    ours, theirs = image.contiguous(memory_format=torch.channels_last), {INPUT: image.numpy()}

    @torch.inference_mode()
    def run(model: torch.nn.Module) -> torch.Tensor:
        return model(ours)

    expected = run(network)
    for found in (torch.as_tensor(session.run(None, theirs)[0]), compiled(image)):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    steps = {
        "eager": lambda: run(network),
        "eager, norms folded": lambda: run(fused),
        "onnxruntime": lambda: session.run(None, theirs),
        "aotinductor": lambda: compiled(image),
    }
    return Row(
        case=f"{name}, {image_size} px, batch {settings.batch}",
        task="inference",
        baseline="eager",
        facts={"image_size": image_size, "batch": settings.batch},
        milliseconds=time_in_turns(steps, settings),
    )
