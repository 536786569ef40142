"""One small data set and one finished run for all tests of detection."""

from pathlib import Path

import pytest

from halonet.detection import train
from tests.detection.tiny import make_scenes, tiny_recipe, without_masks


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes") / "coco")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """A finished run of a Mask R-CNN; tests must not write into it."""
    return train(tiny_recipe(scenes), tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture(scope="session")
def box_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images with boxes only."""
    return without_masks(make_scenes(tmp_path_factory.mktemp("boxes") / "coco"))


@pytest.fixture(scope="session")
def box_run(tmp_path_factory: pytest.TempPathFactory, box_scenes: Path) -> Path:
    """A finished run of a Faster R-CNN; tests must not write into it."""
    return train(tiny_recipe(box_scenes, masks=False), tmp_path_factory.mktemp("runs") / "boxes")
