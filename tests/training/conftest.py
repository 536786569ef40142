"""One small data set, and one finished run, for all tests of training."""

from pathlib import Path

import pytest

from halonet.training import train
from tests.training.tiny import make_images, tiny_recipe


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images") / "two_sides")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """Nobody may write into it."""
    return train(tiny_recipe(images), tmp_path_factory.mktemp("runs") / "finished")
