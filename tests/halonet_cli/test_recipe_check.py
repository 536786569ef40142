import json

import pytest

from halonet.training import list_recipes, resolve, to_yaml
from halonet_cli.hints import unknown_name
from halonet_cli.parser import UsageError
from halonet_cli.recipe_check import MOST_LETTERS, NOT_YET_RUN, TASKS, check_recipe, fields_of, find_recipe
from tools.make_recipe_keys import make_keys


def test_the_keys_are_those_of_the_recipes():
    assert json.loads(TASKS.read_text()) == make_keys(), "run `python tools/make_recipe_keys.py`"


def test_fields_are_values_with_a_section():
    assert "schedule.epochs" in fields_of("classification")
    assert "schedule.steps" in fields_of("detection")
    assert not {"name", "schedule", "schedule.epochs"} & set(fields_of("detection"))


def test_a_missing_result_is_worded_as_in_a_recipe():
    assert resolve("imagenet/h0").provenance.result == NOT_YET_RUN


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "fashion_mnst",
            [],
            "unknown recipe 'fashion_mnst'. Did you mean 'fashion_mnist'? `halonet recipes` lists",
        ),
        ("no.yaml", [], "cannot read recipe no.yaml: there is no such file"),
        (
            "fashion_mnist",
            ["schedule.epoch=3"],
            "recipe fashion_mnist: unknown key 'schedule.epoch'. Did you mean",
        ),
        ("fashion_mnist", ["shedule.epochs=3"], "unknown key 'shedule'. Did you mean 'schedule'? Known: name, task"),
        ("fashion_mnist", ["model.overrides.halo=3"], "unknown key 'model.overrides.halo'. Did you mean 'model.over"),
        ("detection/r50", [], "recipe detection/r50 is a recipe for detection: train it with halonet detect train"),
        ("fashion_mnist", ["a.b=1", "c.d=2"], "recipe fashion_mnist: 2 mistakes\n  unknown key 'a'. "),
    ],
)
def test_a_mistake_in_the_name_or_a_key_is_found(name, changes, message):
    with pytest.raises(UsageError) as caught:
        check_recipe(name, changes, "classification")
    assert str(caught.value).startswith(message) or message in str(caught.value)


@pytest.fixture
def write(tmp_path):
    def write(text):
        (tmp_path / "mine.yaml").write_text(text)
        return str(tmp_path / "mine.yaml")

    return write


def test_unknown_keys_of_a_file_are_found_in_every_section(write):
    text = to_yaml(resolve("fashion_mnist")).replace("epochs:", "epoch:", 1).replace("image_size:", "size:")
    with pytest.raises(UsageError) as caught:
        check_recipe(write(text), ["engine.sed=1"], "classification")
    first, *mistakes = str(caught.value).splitlines()
    assert first.endswith("mine.yaml: 3 mistakes")
    named = [line.partition("'")[2].partition("'")[0] for line in mistakes]
    assert named == ["data.augmentation.size", "schedule.epoch", "engine.sed"]


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "- a",
        "",
        "a: &x 1\nb: *x",
        "[" * 10_000,
        "unknown: " + "x" * MOST_LETTERS,
        "1: 2\ntask: 3",
        "\x00",
        "task: unheard_of\nkey: 1",
    ],
)
def test_an_odd_file_is_left_to_halonet(write, text):
    check_recipe(write(text), ["schedule.epochs=3"], "classification")


def test_a_folder_is_left_to_halonet(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    check_recipe(str(tmp_path / "folder.yaml"), [], "classification")
    find_recipe(str(tmp_path / "folder.yaml"))


@pytest.mark.parametrize("name", list_recipes())
def test_no_recipe_is_refused(name):
    task = "detection" if name.startswith("detection/") else "classification"
    check_recipe(name, ["engine.seed=3", "model.overrides.halo_size=3"], task)


def test_a_long_wrong_name_is_cut_short():
    assert len(unknown_name("recipe", "x" * 1000, ["a"])) < 200
