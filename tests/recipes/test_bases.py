import dataclasses
from pathlib import Path

import pytest

from halonet.errors import UserError, UserNote
from halonet.recipes.load import task_of
from halonet.recipes.schema import NOT_YET_RUN, ProvenanceSection
from halonet.recipes.yaml_text import parse_yaml
from halonet.training import resolve, to_yaml


def mine(folder: Path, text: str, **others: str) -> Path:
    for name, other in others.items():
        (folder / f"{name}.yaml").write_text(other)
    (folder / "mine.yaml").write_text(text)
    return folder / "mine.yaml"


def test_a_recipe_changes_its_base(tmp_path: Path):
    recipe = resolve(mine(tmp_path, "base: imagenet/h4\nschedule: {epochs: 90}"), ["schedule.warmup_epochs=3"])
    base = resolve("imagenet/h4")
    assert (recipe.name, recipe.description, recipe.reproduces) == ("mine", "", "")
    assert recipe.schedule == dataclasses.replace(base.schedule, epochs=90, warmup_epochs=3)
    for section in ("model", "data", "optimizer", "regularization", "ema", "engine"):
        assert getattr(recipe, section) == getattr(base, section)


def test_the_result_of_a_base_is_not_inherited(tmp_path: Path):
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
def test_a_mistake_names_its_file(text: str, file: str, message: str, tmp_path: Path):
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
        (
            "detection/r50se",
            "is a recipe for classification, but its base, recipe detection/r50se, is one for detection",
        ),
        ("[imagenet/h0]", "base is ['imagenet/h0'], but must be the name of a recipe, such as imagenet/h0"),
    ],
)
def test_a_wrong_base_is_refused(base: str, message: str, tmp_path: Path):
    with pytest.raises(UserError) as caught:
        resolve(mine(tmp_path, f"task: classification\nbase: {base}"))
    assert str(tmp_path / "mine.yaml") in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_base_determines_the_task(tmp_path: Path):
    path = mine(tmp_path, "base: detection/r50se")
    assert task_of(path) == "detection"
    with pytest.raises(UserError, match="mine.yaml is a recipe for detection: train it with halonet detect train"):
        resolve(path, task="classification")


def test_a_batch_unlike_the_base_gets_a_note(tmp_path: Path):
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
