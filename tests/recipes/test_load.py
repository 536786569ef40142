import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from halonet.classification.recipe import Recipe
from halonet.errors import UserError, UserNote
from halonet.recipes.load import task_of
from halonet.recipes.schema import NOT_YET_RUN, ProvenanceSection
from halonet.recipes.yaml_text import parse_yaml
from halonet.training import list_recipes, resolve, to_yaml
from tests.engine.tiny import NETWORK, tiny_recipe

# Nine levels of ten aliases each stand for a billion values.
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
def test_a_wrong_override_is_told_with_the_key_and_the_rule(override: str, message: str, read: Callable[[str], Recipe]):
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
        pytest.param("a: 1\n" * 100_000, "has over 200,000 letters: no recipe is so long", id="long"),
        ("task: {a: b}", "is a recipe of {'a': 'b'}, which is no task"),
    ],
)
def test_a_wrong_file_is_told_with_its_name(text: str, message: str, tmp_path: Path):
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        resolve(tmp_path / "wrong.yaml")
    assert message in str(caught.value)
    assert str(tmp_path / "wrong.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_with_a_recipe_is_said_at_once(tmp_path: Path):
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


def test_a_value_where_a_section_belongs_is_told_whatever_is_overridden(tmp_path: Path):
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
def test_a_name_that_leads_elsewhere_is_refused(name: str):
    with pytest.raises(UserError, match="Recipe: name is .*, but must be a path below runs/"):
        dataclasses.replace(tiny_recipe("somewhere"), name=name)


@pytest.mark.parametrize("name", ["", "mine", "imagenet/h0", "My recipe (2), größer", "..x", "x" * 100])
def test_other_names_are_taken(name: str):
    assert dataclasses.replace(tiny_recipe("somewhere"), name=name).name == name


def test_a_file_that_is_no_recipe_is_told_before_it_is_read(tmp_path: Path):
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


def test_a_batch_changed_alone_is_told_with_the_rate_in_proportion():
    with pytest.warns(UserNote) as caught:
        resolve("imagenet/h0", ["--optimizer.batch_size=32", "--optimizer.accumulate=1"])
    (note,) = [str(each.message) for each in caught]
    assert "optimizer.batch_size is 32 in place of 4096, but optimizer.learning_rate is still 1.6" in note
    assert "in proportion to the batch is 0.0125; set it with --optimizer.learning_rate=0.0125" in note


def test_a_batch_changed_with_its_rate_or_not_at_all_is_told_nothing():
    resolve("imagenet/h0", ["optimizer.batch_size=32", "optimizer.accumulate=1", "optimizer.learning-rate=1.6"])
    resolve("imagenet/h0", ["optimizer.batch_size=4096"])


def test_an_unknown_recipe_is_told_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown recipe 'fashion_mist'\. Did you mean 'fashion_mnist'"):
        resolve("fashion_mist")
    with pytest.raises(UserError, match=r"cannot read recipe .*gone.yaml: No such file"):
        resolve("gone.yaml")


def test_a_recipe_of_another_task_is_refused_with_the_command_that_runs_it():
    with pytest.raises(UserError, match="recipe detection/r50se is a recipe of detection.*halonet detect train"):
        resolve("detection/r50se", task="classification")


def test_a_recipe_of_no_known_task_is_refused(tmp_path: Path):
    (tmp_path / "odd.yaml").write_text("task: juggling")
    with pytest.raises(UserError, match="is a recipe of juggling, which is no task: known are classification"):
        resolve(tmp_path / "odd.yaml")


def test_a_batch_that_follows_from_the_data_has_no_rate_in_proportion_yet():
    assert resolve("imagenet/h0", ["optimizer.batch_size=null"]).optimizer.batch_size is None
    with pytest.warns(UserNote, match="a rate in proportion to the batch is"):
        resolve("imagenet/h0", ["optimizer.batch_size=1024"])


def mine(folder: Path, text: str, **others: str) -> Path:
    for name, other in others.items():
        (folder / f"{name}.yaml").write_text(other)
    (folder / "mine.yaml").write_text(text)
    return folder / "mine.yaml"


def test_a_recipe_is_its_base_but_for_what_it_says(tmp_path: Path):
    recipe = resolve(mine(tmp_path, "base: imagenet/h4\nschedule: {epochs: 90}"), ["schedule.warmup_epochs=3"])
    base = resolve("imagenet/h4")
    assert (recipe.name, recipe.description, recipe.reproduces) == ("mine", "", "")
    assert recipe.schedule == dataclasses.replace(base.schedule, epochs=90, warmup_epochs=3)
    for section in ("model", "data", "optimizer", "regularization", "ema", "engine"):
        assert getattr(recipe, section) == getattr(base, section)


def test_what_a_base_gave_is_not_said_of_the_recipe(tmp_path: Path):
    assert resolve("fashion_mnist").provenance.result != NOT_YET_RUN
    assert resolve(mine(tmp_path, "base: fashion_mnist")).provenance == ProvenanceSection()


def test_a_resolved_recipe_needs_no_base(tmp_path: Path):
    recipe = resolve(mine(tmp_path, "base: imagenet/components/resnet50_ls_ra\nengine: {seed: 1}"))
    text = to_yaml(recipe)
    assert "base" not in parse_yaml(text, "it")
    (tmp_path / "mine.yaml").write_text(text)
    assert resolve(tmp_path / "mine.yaml") == recipe


@pytest.mark.parametrize(
    ("text", "file", "message"),
    [
        ("base: base.yaml\nshedule: {epochs: 3}", "mine", "unknown key 'shedule'. Did you mean 'schedule'?"),
        ("base: base.yaml\nschedule: 3", "mine", "schedule is 3, but must be a section with keys of its own"),
        ("base: base.yaml\nschedule: null", "mine", "schedule is None, but must be a section with keys of its own"),
        ("base: unknown_key.yaml\nschedule: {epochs: 3}", "unknown_key", "unknown key 'schedule.epcohs'"),
        ("base: no_section.yaml\nschedule: {epochs: 3}", "no_section", "schedule is 3, but must be a section"),
        ("base: middle.yaml", "unknown_key", "unknown key 'schedule.epcohs'"),
        ("base: not_yaml.yaml", "not_yaml", "is not valid YAML"),
        ("base: incomplete.yaml\nmodel: {name: h0}", "incomplete", "model is missing: add it"),
    ],
)
def test_a_mistake_is_told_with_the_file_that_has_it(text: str, file: str, message: str, tmp_path: Path):
    others = {
        "base": "base: imagenet/h0",
        "unknown_key": "base: imagenet/h0\nschedule: {epcohs: 3}",
        "no_section": "base: imagenet/h0\nschedule: 3",
        "middle": "base: unknown_key.yaml",
        "not_yaml": "a: [1",
        "incomplete": "schedule: {epochs: 3}",
    }
    with pytest.raises(UserError) as caught:
        resolve(mine(tmp_path, text, **others))
    first, *rest = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path / file}.yaml")
    assert message in str(caught.value)
    assert bool(rest) == (file == "incomplete")


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("imagenet/h9", "unknown base 'imagenet/h9'. Did you mean 'imagenet/h"),
        ("gone.yaml", "gone.yaml, but there is no such file"),
        ("mine.yaml", "mine.yaml is its own base"),
        ("detection/r50se", "is a recipe of classification, but its base, recipe detection/r50se, is one of detection"),
        ("[imagenet/h0]", "base is ['imagenet/h0'], but must be the name of a recipe, such as imagenet/h0"),
    ],
)
def test_a_wrong_base_is_refused(base: str, message: str, tmp_path: Path):
    with pytest.raises(UserError) as caught:
        resolve(mine(tmp_path, f"task: classification\nbase: {base}"))
    assert str(tmp_path / "mine.yaml") in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_with_a_base_of_detection_is_one_of_detection(tmp_path: Path):
    path = mine(tmp_path, "base: detection/r50se")
    assert task_of(path) == "detection"
    with pytest.raises(UserError, match="mine.yaml is a recipe of detection, which is for halonet detect train"):
        resolve(path, task="classification")


def test_a_batch_that_alone_differs_from_the_base_is_told_too(tmp_path: Path):
    alone = "base: imagenet/h0\noptimizer: {batch_size: 1024}"
    with pytest.warns(UserNote, match="batch_size is 1024 in place of 4096, but .* a rate in proportion .* is 0.4"):
        resolve(mine(tmp_path, alone))
    with pytest.warns(UserNote, match="batch_size is 512 in place of 4096"):
        resolve(mine(tmp_path, "base: alone.yaml", alone=alone), ["optimizer.batch_size=512"])
    resolve(mine(tmp_path, alone), ["optimizer.learning_rate=0.4"])
    resolve(mine(tmp_path, "base: imagenet/h0\noptimizer: {batch_size: 1024, learning_rate: 0.4}"))
    with pytest.warns(UserNote, match="batch_size is 512 in place of 1024"):
        resolve(
            mine(tmp_path, "base: both.yaml", both=alone.replace("}", ", learning_rate: 0.4}")),
            ["optimizer.batch_size=512"],
        )
