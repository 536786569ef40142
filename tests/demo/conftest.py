from pathlib import Path

import pytest

from halonet.demo.model import CIFAR10, Model, open_model

GOLDEN = Path(__file__).parents[1] / "golden" / "detection" / "finished"


@pytest.fixture(scope="session")
def cifar10() -> Model:
    return open_model(CIFAR10)


@pytest.fixture(scope="session")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A detector's checkpoint with masks, and the same one without."""
    from halonet.engine.weights import read_weights, save_weights

    state, information, _ = read_weights(GOLDEN)
    boxes = tmp_path_factory.mktemp("boxes") / "boxes.safetensors"
    without = {name: tensor for name, tensor in state.items() if "roi_heads.mask_" not in name}
    save_weights(boxes, without, information | {"network": "FasterRCNN"})
    return {"masks": GOLDEN, "boxes": boxes}
