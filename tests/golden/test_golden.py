"""Files of commit f6ecc6c load, resume and give the same numbers: see README.md in this folder."""

import json
import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from halonet import detection, training
from halonet.engine.run import read_result
from halonet.errors import UserNote
from halonet.recipes.load import list_recipes, resolve, to_yaml
from halonet.training import load_checkpoint

FOLDER = Path(__file__).parent
NETWORKS = sorted(path.stem for path in (FOLDER / "networks").glob("*.json"))
RECIPES = sorted(str(path.relative_to(FOLDER / "recipes").with_suffix("")) for path in FOLDER.glob("recipes/**/*.yaml"))
RESUME: dict[str, Callable[[Path], Path]] = {"classification": training.resume, "detection": detection.resume}
LOAD: dict[str, Callable[[Path], tuple[torch.nn.Module, Any]]] = {
    "classification": load_checkpoint,
    "detection": detection.load_detector,
}
CLOSE = 1e-4


def images_of(batch: int) -> torch.Tensor:
    """As in write.py."""
    return torch.sin(torch.arange(batch * 3 * 32 * 32).double() * 0.7).float().reshape(batch, 3, 32, 32)


@pytest.fixture
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def task_folder(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a task's folder, as working directory: the recipes name their data relative to it."""
    folder = tmp_path / request.param
    shutil.copytree(FOLDER / request.param, folder)
    monkeypatch.chdir(folder)
    return folder


each_task = pytest.mark.parametrize("task_folder", ["classification", "detection"], indirect=True)


def assert_numbers_agree(found: dict[str, Any], expected: dict[str, Any], close: float) -> None:
    """Every number of `expected` is in `found`, to a relative difference."""
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_numbers_agree(found[name], value, close)
        elif isinstance(value, float) and math.isfinite(value):
            assert found[name] == pytest.approx(value, rel=close, abs=1e-6), name


def test_every_kind_of_network_is_here() -> None:
    assert NETWORKS == ["absolute_wide_values", "convolutions", "plain", "pooled_full_tables", "zeros_no_position"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_the_same_logits(name: str) -> None:
    network, _ = load_checkpoint(FOLDER / f"networks/{name}.safetensors")
    expected = torch.tensor(json.loads((FOLDER / f"networks/{name}.json").read_text())["logits"])
    with torch.no_grad():
        torch.testing.assert_close(network(images_of(2)), expected, rtol=CLOSE, atol=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_a_resolved_recipe_means_what_it_meant(name: str) -> None:
    old = yaml.safe_load((FOLDER / f"recipes/{name}.yaml").read_text(encoding="utf-8"))
    read = yaml.safe_load(to_yaml(resolve(FOLDER / f"recipes/{name}.yaml")))

    def assert_kept(found: Any, expected: Any, key: str) -> None:
        if isinstance(expected, dict):
            for part, value in expected.items():
                assert_kept(found[part], value, f"{key}.{part}")
        else:
            assert found == expected, key

    assert_kept(read, old, name)


def test_no_recipe_was_lost() -> None:
    assert set(RECIPES) <= set(list_recipes())


@each_task
def test_a_finished_run_is_left_as_it_is(task_folder: Path) -> None:
    before = {path: path.read_bytes() for path in (task_folder / "finished").rglob("*") if path.is_file()}
    RESUME[task_folder.name](task_folder / "finished")
    assert {path: path.read_bytes() for path in before} == before


@each_task
@pytest.mark.usefixtures("one_thread")
def test_an_interrupted_run_ends_as_the_finished_one_did(task_folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserNote)  # other versions, perhaps another processor
        RESUME[task_folder.name](task_folder / "interrupted")
    finished, resumed = (task_folder / name for name in ("finished", "interrupted"))
    measured = read_result(finished)
    for name in ("images_per_second", "seconds"):
        del measured[name]
    # A detector trains on boxes chosen by their scores: where another processor rounds otherwise, it chooses others.
    chaotic = task_folder.name == "detection" and read_result(resumed)["hardware"] != measured["hardware"]
    if not chaotic:
        assert_numbers_agree(read_result(resumed), measured, CLOSE)
    old, new = (LOAD[task_folder.name](run)[0].state_dict() for run in (finished, resumed))
    for name, tensor in old.items():
        torch.testing.assert_close(
            new[name], tensor, rtol=CLOSE, atol=1e-2 if chaotic else 1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("task_folder", ["classification"], indirect=True)
def test_a_finished_classifier_measures_the_same(task_folder: Path) -> None:
    for checkpoint in ("finished", "finished/checkpoints/last.ckpt"):
        measured = training.evaluate(checkpoint)
        result = read_result(task_folder / "finished")
        assert measured["top1"] == result["top1"]
        assert measured["loss"] == pytest.approx(result["loss"], rel=CLOSE)
