import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from halonet.errors import UserError
from halonet.training import list_recipes, resolve, to_yaml
from halonet.training.recipe import Recipe
from halonet.training.recipes import task_of
from tests.training.tiny import NETWORK, tiny_recipe

CLASSIFIERS = [name for name in list_recipes() if task_of(name) == "classification"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_recipe_reads_and_is_named_by_its_path(name: str):
    assert resolve(name).name == name


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_resolved_recipe_reads_back_the_same(name: str, tmp_path: Path):
    recipe = resolve(name, ["optimizer.weight_decay=1.23456789e-7", "engine.clip_gradient=0.1"])
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert resolve(tmp_path / "recipe.yaml") == recipe


def test_a_recipe_made_in_python_reads_back_the_same(tmp_path: Path):
    recipe = tiny_recipe("somewhere")
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert resolve(tmp_path / "recipe.yaml") == recipe


def test_a_recipe_file_is_named_by_its_stem(tmp_path: Path):
    text = to_yaml(dataclasses.replace(tiny_recipe("somewhere"), name="gone")).replace("name: gone\n", "", 1)
    (tmp_path / "mine.yaml").write_text(text)
    assert resolve(tmp_path / "mine.yaml").name == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ["--schedule.warmup-epochs=1", "--engine.seed=7"],
        ["--schedule.warmup_epochs", "1", "--engine.seed", "7"],
        ["schedule.warmup_epochs=1", "engine.seed=7"],
    ],
)
def test_overrides_are_read_in_every_spelling(words: list[str]):
    recipe = resolve("fashion-mnist", words)
    assert recipe.schedule.warmup_epochs == 1
    assert recipe.engine.seed == 7
    assert (
        dataclasses.replace(recipe, schedule=resolve("fashion_mnist").schedule).model == resolve("fashion_mnist").model
    )


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Recipe]:
    """Reads a recipe with one override."""
    (tmp_path / "tiny.yaml").write_text(to_yaml(tiny_recipe("somewhere")))
    return lambda override: resolve(tmp_path / "tiny.yaml", [override])


def test_overrides_take_the_type_of_their_key(read: Callable[[str], Recipe]):
    assert read("optimizer.weight_decay=1e-4").optimizer.weight_decay == 0.0001
    assert isinstance(read("optimizer.learning_rate=1").optimizer.learning_rate, float)
    assert read("engine.clip_gradient=null").engine.clip_gradient is None
    assert read("data.validation_split=null").data.validation_split is None
    assert read("data.source=2012").data.source == "2012"
    assert read("data.augmentation.mean=[0.25]").data.augmentation.mean == (0.25,)
    assert read("model.overrides.depths=[1, 2]").model.overrides == NETWORK | {"depths": [1, 2]}
    assert read("engine.compile=true").engine.compile is True


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.epcohs=3", "unknown key 'schedule.epcohs'. Did you mean 'schedule.epochs'"),
        ("shedule.epochs=3", "unknown key 'shedule'. Did you mean 'schedule'"),
        ("schedule=3", "schedule is a section: set one of its keys, such as schedule.epochs"),
        ("schedule.epochs.more=3", "schedule.epochs is a value without keys of its own"),
        ("--schedule.epochs", "--schedule.epochs has no value: write --schedule.epochs=VALUE"),
        ("engine.devices=many", 'tiny.yaml: "engine.devices": expected int. Got value: many'),
        ("engine.devices=1.5", '"engine.devices": expected int. Got value: 1.5'),
        ("engine.precision=fp8", "Literal['fp32', 'bf16-mixed', '16-mixed']. Got value: fp8"),
        ("data.augmentation.mean=[x]", '"data.augmentation.mean": expected float. Got value: x'),
        ("schedule.epochs=[1", "schedule.epochs: '[1' is not a value"),
        ("schedule.epochs=0", "schedule.epochs is 0, but must be at least 1"),
        ("optimizer.learning_rate=0", "optimizer.learning_rate is 0.0, but must be above 0"),
        ("engine.devices=3", "optimizer.batch_size is 4, but must be a positive multiple"),
        ("model.in_chans=3", "model.in_chans is 3, but must be data.augmentation.in_chans, which is 1"),
        ("data.augmentation.crop_pct=2", "crop_pct is 2.0, but must be above 0 and at most 1"),
    ],
)
def test_a_wrong_override_is_told_with_the_key_and_the_rule(override: str, message: str, read: Callable[[str], Recipe]):
    with pytest.raises(UserError) as caught:
        read(override)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schedule: {epcohs: 3}", "unknown key 'schedule.epcohs'. Did you mean 'schedule.epochs'"),
        ("schedule: 3", "schedule is 3, but must be a section"),
        ("just words", "is not a recipe: it holds no keys"),
        ("a: [1", "is not valid YAML"),
        ("description: none", "required"),
    ],
)
def test_a_wrong_file_is_told_with_its_name(text: str, message: str, tmp_path: Path):
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        resolve(tmp_path / "wrong.yaml")
    assert message in str(caught.value)
    assert str(tmp_path / "wrong.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_is_told_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown recipe 'fashion_mist'\. Did you mean 'fashion_mnist'"):
        resolve("fashion_mist")
    with pytest.raises(UserError, match=r"cannot read recipe .*gone.yaml: No such file"):
        resolve("gone.yaml")


def test_a_recipe_of_another_task_is_refused_with_the_command_that_runs_it():
    with pytest.raises(UserError, match="recipe detection/r50se is a recipe of detection.*halonet detect train"):
        resolve("detection/r50se")


def test_a_recipe_of_no_known_task_is_refused(tmp_path: Path):
    (tmp_path / "odd.yaml").write_text("task: juggling")
    with pytest.raises(UserError, match="is a recipe of juggling, which is for no command: known are classification"):
        resolve(tmp_path / "odd.yaml")
