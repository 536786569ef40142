from pathlib import Path

import pytest

from halonet.training import train
from tests.engine.stopping import Stop
from tests.engine.tiny import tiny_recipe


@pytest.fixture
def stopped_run(images: Path, tmp_path: Path) -> Path:
    """A run that died after the fifth of eighteen steps."""
    with pytest.raises(ZeroDivisionError):
        train(tiny_recipe(images), tmp_path / "stopped", callbacks=[Stop(5, ZeroDivisionError())])
    return tmp_path / "stopped"
