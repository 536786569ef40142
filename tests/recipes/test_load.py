import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from halonet.classification.recipe import Recipe
from halonet.errors import UserError, UserNote
from halonet.recipes.load import task_of
from halonet.training import list_recipes, resolve, to_yaml
from tests.engine.tiny import NETWORK, tiny_recipe

# Nine levels of ten aliases each expand to a billion values.
BOMB = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(9))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 10)}]}}\n" for n in range(9))
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
    """Read a recipe with one override."""
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
        ("schedule.epochs=many", "tiny.yaml: schedule.epochs is 'many', but must be a whole number"),
        ("schedule.epochs=1.5", "schedule.epochs is 1.5, but must be a whole number"),
        ("engine.precision=fp8", "engine.precision is 'fp8', but must be fp32, bf16-mixed or 16-mixed"),
        ("data.augmentation.mean=[x]", "data.augmentation.mean.0 is 'x', but must be a finite number"),
        ("schedule.epochs=[1", "schedule.epochs: '[1' is not a value"),
        ("schedule.epochs=0", "schedule.epochs is 0, but must be from 1 to 1,000,000,000"),
        ("optimizer.learning_rate=0", "optimizer.learning_rate is 0, but must be above 0"),
        ("engine.devices=3", "optimizer.batch_size is 4, but must be a positive multiple"),
        ("model.in_chans=3", "model.in_chans is 3, but must be data.augmentation.in_chans, which is 1"),
        ("data.augmentation.crop_pct=1e-9", "crop_pct is 1e-09, but must be from 0.1 to 1"),
        ("data.augmentation.mean=[.nan]", "data.augmentation.mean.0 is nan, but must be a finite number"),
        ("data.augmentation.in_chans=true", "data.augmentation.in_chans is True, but must be a whole number"),
        ("optimizer.learning_rate=.inf", "optimizer.learning_rate is inf, but must be a finite number"),
        ("optimizer.learning_rate=true", "optimizer.learning_rate is True, but must be a finite number"),
        ("model.drop_rate=2", "model.drop_rate is 2, but must be at least 0 and below 1"),
        ("model.name=h9", "model.name is wrong: unknown model 'h9'. Did you mean"),
        ("model.overrides.bottleneck_ratio=0", "model.overrides.bottleneck_ratio is 0, but must be from 0.01 to 100"),
        ("model.overrides.depths=1.5", "model.overrides.depths is 1.5, but must be a list"),
        ("model.overrides.name=h1", "unknown key 'model.overrides.name'"),
        ("model.overrides.global_pool=x", "unknown key 'model.overrides.global_pool'"),
        ("model.overrides=3", "model.overrides is 3, but must be a section with keys"),
        ("engine.seed=-1", "engine.seed is -1, but must be at least 0 and below 9,223,372,036,854,775,808"),
        ("data.source=", "data.source is '', but must be text of 1 letter or more"),
        ("name=../../../x", "name is '../../../x', but must be a path below runs/, such as imagenet/h0"),
    ],
)
def test_a_wrong_override_names_key_and_rule(override: str, message: str, read: Callable[[str], Recipe]):
    with pytest.raises(UserError) as caught:
        read(override)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just words", "holds no keys: it must be YAML of the form KEY: VALUE"),
        ("a: [1", "is not valid YAML"),
        ("a: [1]\na: [2]", "key 'a' stands there twice"),
        ("a: !!python/object:os.system {}", "could not determine a constructor for the tag"),
        ("a: !!bool maybe", "is not valid YAML"),
        ("a: 2012-13-45", "is not valid YAML: month must be in 1..12"),
        ("a: 1\n---\nb: 2", "is not valid YAML: expected a single document"),
        pytest.param("a: " + "9" * 5000, "is not valid YAML: Exceeds the limit", id="digits"),
        pytest.param("a: " + "[" * 1000 + "]" * 1000, "it is nested over 32 deep", id="deep"),
        pytest.param("".join(f"{'  ' * n}a:\n" for n in range(300)), "it is nested over 32 deep", id="deep block"),
        pytest.param(BOMB, "its aliases written out, it has over 20,000 values", id="bomb"),
        pytest.param(MERGES, "its aliases written out, it has over 20,000 values", id="merges"),
        ("a: &a [*a]", "an alias stands for what holds it"),
        ("a: \0", "is not valid YAML: unacceptable character"),
        pytest.param("a: 1\n" * 100_000, "has over 200,000 letters: no recipe is that long", id="long"),
        ("task: {a: b}", "is a recipe for {'a': 'b'}, which is not a task"),
    ],
)
def test_a_wrong_file_is_named(text: str, message: str, tmp_path: Path):
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        resolve(tmp_path / "wrong.yaml")
    assert message in str(caught.value)
    assert str(tmp_path / "wrong.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_reported_at_once(tmp_path: Path):
    text = to_yaml(tiny_recipe("somewhere")).replace("label_smoothing: 0.1", "label_smoothing: 1.0\n  cutmix: 0.5")
    (tmp_path / "tiny.yaml").write_text(text + "colour: red\n")
    with pytest.raises(UserError) as caught:
        resolve(tmp_path / "tiny.yaml", ["schedule.epcohs=3", "model.drop_rate=-1", "optimizer.batch_size=big"])
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'tiny.yaml'}: 6 mistakes",
        "  unknown key 'schedule.epcohs'. Did you mean 'schedule.epochs'? Known: schedule.epochs, "
        "schedule.final_fraction, schedule.warmup_epochs.",
        "  model.drop_rate is -1, but must be at least 0 and below 1",
        "  optimizer.batch_size is 'big', but must be a whole number",
        "  regularization.label_smoothing is 1.0, but must be at least 0 and below 1",
        "  unknown key 'regularization.cutmix'. Known: regularization.label_smoothing.",
        "  unknown key 'colour'. Known: data, description, ema, engine, model, name, optimizer, provenance, "
        "regularization, reproduces, schedule, task.",
    ]


def test_a_value_in_place_of_a_section_is_refused(tmp_path: Path):
    (tmp_path / "wrong.yaml").write_text("schedule: 3")
    with pytest.raises(UserError) as caught:
        resolve(tmp_path / "wrong.yaml", ["schedule.epochs=3"])
    assert "  schedule is 3, but must be a section with keys of its own" in str(caught.value).splitlines()
    assert "  model is missing: add it" in str(caught.value).splitlines()


def test_description_and_origin_may_be_left_out(tmp_path: Path):
    lines = to_yaml(tiny_recipe("somewhere")).splitlines()
    (tmp_path / "mine.yaml").write_text("\n".join(line for line in lines if not line.startswith(("desc", "repro"))))
    recipe = resolve(tmp_path / "mine.yaml")
    assert (recipe.description, recipe.reproduces) == ("", "")


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../b", "a//b", "a/", ".", "a\0b", "a\nb", "x" * 5000, "a\\b", "\ud800"]
)
def test_names_outside_the_runs_folder_are_refused(name: str):
    with pytest.raises(UserError, match="Recipe: name is .*, but must be a path below runs/"):
        dataclasses.replace(tiny_recipe("somewhere"), name=name)


@pytest.mark.parametrize("name", ["", "mine", "imagenet/h0", "My recipe (2), größer", "..x", "x" * 100])
def test_ordinary_names_are_accepted(name: str):
    assert dataclasses.replace(tiny_recipe("somewhere"), name=name).name == name


def test_a_file_of_another_kind_is_refused_unread(tmp_path: Path):
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: größer".encode("latin-1"))
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(10**12)
    for name, message in (
        ("folder.yaml", "Is a directory"),
        ("pipe.yaml", "it is neither a file nor a folder"),
        ("latin.yaml", "byte 8 is not UTF-8"),
        ("huge.yaml", "has over 200,000 letters"),
        ("a\0.yaml", "null byte"),
        (f"{'x' * 5000}.yaml", "File name too long"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            resolve(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_batch_changed_alone_gets_a_note():
    with pytest.warns(UserNote) as caught:
        resolve("imagenet/h0", ["--optimizer.batch_size=32", "--optimizer.accumulate=1"])
    (note,) = [str(each.message) for each in caught]
    assert "optimizer.batch_size is 32 in place of 4096, but optimizer.learning_rate is still 1.6" in note
    assert "in proportion to the batch is 0.0125; set it with --optimizer.learning_rate=0.0125" in note


def test_a_batch_with_its_rate_gets_no_note():
    resolve("imagenet/h0", ["optimizer.batch_size=32", "optimizer.accumulate=1", "optimizer.learning-rate=1.6"])
    resolve("imagenet/h0", ["optimizer.batch_size=4096"])


def test_an_unknown_recipe_gets_a_suggestion():
    with pytest.raises(UserError, match=r"unknown recipe 'fashion_mist'\. Did you mean 'fashion_mnist'"):
        resolve("fashion_mist")
    with pytest.raises(UserError, match=r"cannot read recipe .*gone.yaml: No such file"):
        resolve("gone.yaml")


def test_a_recipe_of_another_task_is_refused():
    with pytest.raises(UserError, match="recipe detection/r50se is a recipe for detection.*halonet detect train"):
        resolve("detection/r50se", task="classification")


def test_an_unknown_task_is_refused(tmp_path: Path):
    (tmp_path / "odd.yaml").write_text("task: juggling")
    with pytest.raises(UserError, match="is a recipe for juggling, which is not a task: choose one of classification"):
        resolve(tmp_path / "odd.yaml")


def test_an_unknown_batch_gets_no_note():
    assert resolve("imagenet/h0", ["optimizer.batch_size=null"]).optimizer.batch_size is None
    with pytest.warns(UserNote, match="a rate in proportion to the batch is"):
        resolve("imagenet/h0", ["optimizer.batch_size=1024"])
