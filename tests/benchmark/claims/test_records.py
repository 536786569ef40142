import copy
import dataclasses
import hashlib
import json
from typing import Any

import pytest

import halonet
from halonet.benchmark.claims.experiment import experiment_hash, hash_recipe, resolved_recipe
from halonet.benchmark.claims.records import (
    read_record,
    read_records,
    record_path,
    write_record,
)
from halonet.errors import UserError
from tests.benchmark.claims.synthetic import make_diverged, make_plan, make_record


@pytest.fixture
def plan(tmp_path_factory):
    return make_plan(tmp_path_factory.mktemp("plan"))


def keys_of(value: Any, prefix: str = "") -> list[str]:
    """All dotted keys of nested dictionaries."""
    keys = []
    for name, each in value.items():
        keys += [prefix + name, *(keys_of(each, f"{prefix}{name}.") if isinstance(each, dict) else ())]
    return keys


def put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    inner: Any = values
    for each in sections:
        inner = inner[int(each)] if isinstance(inner, list) else inner[each]
    if isinstance(inner, list):
        inner[int(name)] = value
    else:
        inner[name] = value


def write(folder, record, name=None):
    path = folder / (name or f"{record['row']}-seed{record['seed']}.json")
    path.write_text(json.dumps(record))
    return path


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        read_record(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_written_record_is_read_back(plan, tmp_path):
    for record in (make_record(plan), make_diverged(plan, seed=3)):
        path = write_record(tmp_path / "new", record)
        assert path == record_path(tmp_path / "new", "first", record["seed"])
        assert read_record(path) == json.loads(json.dumps(record))  # tuples are lists now
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["first-seed0.json", "first-seed3.json"]


def test_a_written_record_is_a_line_for_each_value_and_ends_with_a_newline(plan, tmp_path):
    text = write_record(tmp_path, make_record(plan)).read_text()
    assert text.startswith('{\n "benchmark": "claims",\n')
    assert text.endswith("}\n")


def test_a_nan_is_not_written_and_keeps_the_earlier_record(plan, tmp_path):
    path = write_record(tmp_path, make_record(plan))
    before = path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(tmp_path, make_record(plan, seconds={"process": float("nan"), "wall": 1.0}))
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_records_come_by_row_in_the_plans_order_and_by_seed(plan, tmp_path):
    for row, seed in (("second", 4), ("second", 0), ("first", 2)):
        write_record(tmp_path, make_record(plan, row, seed))
    found = read_records(tmp_path, plan)
    assert {row: [record["seed"] for record in records] for row, records in found.items()} == {
        "first": [2], "second": [0, 4], "third": [], "fourth": [],
    }  # fmt: skip
    assert list(found) == list(plan.rows)


def test_a_folder_that_is_not_there_holds_no_records(plan, tmp_path):
    assert set(map(len, read_records(tmp_path / "nowhere", plan).values())) == {0}


@pytest.mark.parametrize("text", ["", "{", '{"seed": NaN}', "\x00", "[" * 100_000])
def test_a_file_without_json_is_refused(text, tmp_path):
    path = tmp_path / "first-seed0.json"
    path.write_text(text)
    assert "it is not JSON; restore the file, or delete it and run its row again" in refusal(path)


def test_binary_files_and_folders_are_refused(tmp_path):
    path = tmp_path / "first-seed0.json"
    path.write_bytes(b"\xff\xfe{}")
    assert "it is not JSON" in refusal(path)
    (tmp_path / "first-seed1.json").mkdir()
    assert "cannot read record" in refusal(tmp_path / "first-seed1.json")


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"'])
def test_json_without_a_record_is_refused(text, tmp_path):
    path = tmp_path / "first-seed0.json"
    path.write_text(text)
    assert "but must be a section with keys of its own" in refusal(path)


def test_every_key_must_be_there_and_of_its_type(plan, tmp_path):
    record = json.loads(json.dumps(make_record(plan)))
    keys = [key for key in keys_of(record) if not key.startswith(("recipe.", "data.checksums.", "machine."))]
    keys += [f"epochs.1.{name}" for name in record["epochs"][1]]
    keys.remove("provenance.modified")
    assert len(keys) == 48
    for key in keys:
        broken = json.loads(json.dumps(record))
        put(broken, key, {"some": ["thing"]} if key != "recipe" else 3)
        assert key.rpartition(".")[2] in refusal(write(tmp_path, broken, "first-seed0.json")), key
        section, _, name = key.rpartition(".")
        broken = json.loads(json.dumps(record))
        inner: Any = broken
        for each in section.split(".") if section else ():
            inner = inner[int(each)] if isinstance(inner, list) else inner[each]
        del inner[name]
        assert f"{key} is missing" in refusal(write(tmp_path, broken, "first-seed0.json")), key


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("benchmark", "model", "benchmark is 'model', but must be claims"),
        ("seed", True, "seed is True, but must be a whole number"),
        ("seed", -1, "seed is -1, but must be at least 0"),
        ("seed", 0.0, "seed is 0.0, but must be a whole number"),
        ("status", "running", "status is 'running', but must be complete or diverged"),
        ("status", "diverged", "reason is None, but must be text"),
        ("reason", "it was late", "reason is 'it was late', but must be null"),
        ("recipe_hash", "0" * 16, "recipe_hash is 0000000000000000, but that of its recipe is"),
        ("recipe_hash", "0" * 15, "must be 16 hexadecimal digits"),
        ("recipe.optimizer.learning_rate", 0.3, "but that of its recipe is"),
        ("epochs.1.epoch", 2, "epochs are [0, 2], but its recipe has 2, counted from 0"),
        ("epochs", [], "epochs are [], but its recipe has 2"),
        ("epochs.0.train_loss", -0.1, "epochs.0.train_loss is -0.1, but must be at least 0"),
        ("epochs.0.train_loss", None, "epochs.0.train_loss is None"),
        ("epochs.0.validation_top1", 100.1, "epochs.0.validation_top1 is 100.1, but must be from 0 to 100"),
        ("test", None, "test is None, but must be a section with keys of its own"),
        ("test.top1", "60", "test.top1 is '60', but must be a finite number"),
        ("test.top1", True, "test.top1 is True, but must be a finite number"),
        ("test.images", 11, "predictions are 10, but test images are 11"),
        ("data.images.test", 9, "data.images.test is 9, but test.images is 10"),
        ("data.checksums.train", 3, "data.checksums is {'test': 'cd', 'train': 3}, but must be a dictionary of texts"),
        ("predictions", "388901234", "predictions are 9, but test images are 10"),
        ("predictions", "38890123x5", "predictions is '38890123x5', but must be digits"),
        ("predictions", "3889012345\n", "but must be digits"),
        ("predictions", "388901234\u0665", "but must be digits"),
        ("shifts.images", 11, "shifts.images is 11, but test images are 10"),
        ("shifts.pixels", [1, 2, 3], "shifts.pixels is [1, 2, 3], but must be 1 to 8"),
        ("shifts.changed", [1.0] * 7, "but must be a list of 8"),
        ("shifts.changed.3", 101.0, "shifts.changed.3 is 101.0, but must be from 0 to 100"),
        ("shifts.top1.7", None, "shifts.top1.7 is None, but must be a finite number"),
        ("parameters", 0, "parameters is 0, but must be from 1 to"),
        ("seconds.process", 10**400, "but must be a finite number"),
        ("machine.processor", None, "machine is {'processor': None}, but must be a dictionary of texts"),
        ("provenance.commit", 3, "provenance.commit is 3, but must be text, or null"),
        ("provenance.modified", None, "provenance.modified is None, but must be true or false"),
    ],
)
def test_a_value_out_of_its_range_is_named(key, value, message, plan, tmp_path):
    record = json.loads(json.dumps(make_record(plan)))
    put(record, key, value)
    assert message in refusal(write(tmp_path, record, "first-seed0.json"))


def test_a_number_beyond_the_range_of_floats_is_refused(plan, tmp_path):
    path = write(tmp_path, make_record(plan))
    path.write_text(path.read_text().replace('"loss": 1.1', '"loss": 1e999'))
    assert "test.loss is inf, but must be a finite number" in refusal(path)


def test_a_diverged_run_measured_nothing_on_the_test_images(plan, tmp_path):
    diverged = make_diverged(plan)
    for key in ("test", "predictions", "shifts"):
        path = write(tmp_path, diverged | {key: make_record(plan)[key]})
        assert f"{key} is " in refusal(path)
    write(tmp_path, diverged | {"epochs": make_record(plan)["epochs"][:1]})
    assert len(read_record(path)["epochs"]) == 1


def test_a_record_outside_a_checkout_has_no_commit(plan, tmp_path):
    record = make_record(plan)
    record["provenance"]["commit"] = None
    del record["provenance"]["modified"]
    assert read_record(write(tmp_path, record))["provenance"]["commit"] is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("first-seed1.json", "it holds row 'first' with seed 0"),
        ("second-seed0.json", "it holds row 'first' with seed 0"),
        ("first-seed00.json", "its name is not ROW-seedK.json"),
        ("first.json", "its name is not ROW-seedK.json"),
    ],
)
def test_a_record_under_another_name_is_refused(name, message, plan, tmp_path):
    assert message in refusal(write(tmp_path, make_record(plan), name))


def test_a_record_of_another_plan_is_refused(plan, tmp_path):
    other = resolved_recipe(plan.rows["third"].recipe)
    recipe = {"recipe": other, "recipe_hash": experiment_hash(plan.rows["third"].recipe)}
    data = make_record(plan)["data"] | {"variant": "CIFAR-10"}
    for record, message in (
        (make_record(plan) | {"row": "frist"}, "unknown row 'frist'. Did you mean 'first'?"),
        (make_record(plan) | recipe, "is of another recipe: its hash is"),
        (make_record(plan, seed=5), "has seed 5, but row first has seeds 0 to 4"),
        (make_record(plan, data=data), "is of 'CIFAR-10', but the plan is for 'CIFAR-10 (JPEG)'"),
    ):
        path = write(tmp_path, record)
        read_record(path)
        with pytest.raises(UserError, match="elete the file, or move it to another folder") as caught:
            read_records(tmp_path, plan)
        assert message in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        path.unlink()


def change(recipe, key, value):
    section, _, name = key.rpartition(".")
    if not section:
        return dataclasses.replace(recipe, **{name: value})
    return dataclasses.replace(recipe, **{section: dataclasses.replace(getattr(recipe, section), **{name: value})})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "other"),
        ("description", "other"),
        ("reproduces", "other"),
        ("provenance.result", "other"),
        ("data.root", "/elsewhere"),
        ("data.workers", 3),
        ("engine.seed", 3),
        ("engine.checkpoint_every_steps", 3),
        ("engine.log_every_steps", 3),
    ],
)
def test_names_places_and_seeds_do_not_change_the_hash(key, value, plan):
    recipe = plan.rows["first"].recipe
    assert experiment_hash(change(recipe, key, value)) == experiment_hash(recipe)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.name", "micro32"),
        ("model.overrides", {"depths": [1, 2, 1]}),
        ("data.train_images", 9),
        ("data.test_split", "other"),
        ("optimizer.learning_rate", 0.21),
        ("schedule.epochs", 3),
        ("regularization.label_smoothing", 0.1),
        ("ema.decay", 0.9),
        ("engine.precision", "bf16-mixed"),
        ("engine.devices", 2),
    ],
)
def test_a_changed_experiment_has_another_hash(key, value, plan):
    recipe = plan.rows["first"].recipe
    assert experiment_hash(change(recipe, key, value)) != experiment_hash(recipe)


def test_tuples_and_lists_hash_alike(plan):
    recipe = plan.rows["first"].recipe
    assert experiment_hash(change(recipe, "model.overrides", {"depths": (1, 1, 1)})) == experiment_hash(recipe)


def test_default_values_do_not_enter_the_hash(plan):
    experiment = {
        "model": {
            "num_classes": 10,
            "config": {
                "bottleneck_ratio": 2.0,
                "depths": [1, 1, 1],
                "image_size": 32,
                "num_heads": [4, 8, 8],
                "stem": "conv3x3",
            },
        },
        "data": {"source": "cifar10", "augmentation": {"image_size": 32, "mean": [0.5, 0.4, 0.3]}},
        "optimizer": {"learning_rate": 0.2},
        "schedule": {"epochs": 2},
    }
    digest = hashlib.sha256(json.dumps(experiment, sort_keys=True).encode()).hexdigest()
    assert experiment_hash(plan.rows["first"].recipe) == digest[:16]


def test_a_new_recipe_field_keeps_the_hashes_of_old_records(plan):
    values = resolved_recipe(plan.rows["first"].recipe)
    old = copy.deepcopy(values)
    del old["model"]["config"]["centered"], old["regularization"], old["optimizer"]["accumulate"]
    assert hash_recipe(old) == hash_recipe(values)


def test_different_networks_of_one_name_have_different_hashes(plan, monkeypatch):
    before = experiment_hash(plan.rows["first"].recipe)
    changed = dataclasses.replace(halonet.HALONETS["small32"], halo_size=2)
    monkeypatch.setitem(halonet.HALONETS, "small32", changed)
    assert experiment_hash(plan.rows["first"].recipe) != before


def test_names_of_networks_do_not_matter(plan, monkeypatch):
    recipe = plan.rows["first"].recipe
    monkeypatch.setitem(halonet.HALONETS, "renamed", halonet.HALONETS["small32"])
    assert experiment_hash(change(recipe, "model.name", "renamed")) == experiment_hash(recipe)
