import ast
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from halonet.recipes import files as recipe_files
from halonet.recipes.files import MOST_BASES, RecipeFileError, RecipeFiles, UnknownRecipeError, merge
from halonet.recipes.load import find
from halonet.training import list_recipes

PACKAGED = resources.files("halonet") / "recipes"

WHOLE = """
name: told
description: Of the base.
reproduces: Table 1
provenance: {result: 80 %}
model: {name: h0, overrides: {depths: [1, 2], heads: 4}}
schedule: {epochs: 3, warmup: 1}
"""
STUDY = """
base: whole
schedule: {epochs: 5}
variations:
  short:
    description: Short.
    schedule: {warmup: 0}
  shorter:
    base: study/short
    schedule: {epochs: 1}
  other:
    base: whole
    model: {name: h1}
"""


@pytest.fixture
def package(tmp_path: Path) -> RecipeFiles:
    return files(tmp_path / "package", {"whole": WHOLE, "study": STUDY, "study/more": "model: {name: h2}"})


def files(folder: Path, texts: dict[str, str]) -> RecipeFiles:
    for name, text in texts.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return RecipeFiles(folder)


def write(folder: Path, **texts: str) -> str:
    """Write files outside the package; return the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return str(folder / f"{next(iter(texts))}.yaml")


def test_only_sections_are_merged():
    values = {"a": {"b": [1, 2], "c": {"d": 1}}, "e": {"f": 1}, "g": 1}
    changes = {"a": {"b": [3], "c": {"h": 2}}, "e": None, "g": {"i": 1}}
    assert merge(values, changes) == {"a": {"b": [3], "c": {"d": 1, "h": 2}}, "e": None, "g": {"i": 1}}
    assert values == {"a": {"b": [1, 2], "c": {"d": 1}}, "e": {"f": 1}, "g": 1}


def test_merging_copies():
    values, changes = {"a": {"b": [1]}}, {"c": {"d": [2]}}
    merged = merge(values, changes)
    merged["a"]["b"].append(1)
    merged["c"]["d"].append(2)
    assert (values, changes) == ({"a": {"b": [1]}}, {"c": {"d": [2]}})


def test_variations_are_named_by_their_file(package: RecipeFiles):
    assert package.names() == ["study/more", "study/other", "study/short", "study/shorter", "whole"]
    assert package.find("study/short").name == "study/short"


def test_variations_share_the_other_keys(package: RecipeFiles):
    assert package.find("study/short").values["schedule"] == {"epochs": 5, "warmup": 0}
    assert package.find("study/short").values["model"] == package.find("whole").values["model"]


def test_a_variation_with_a_base_takes_only_that(package: RecipeFiles):
    assert package.find("study/other").values["schedule"] == {"epochs": 3, "warmup": 1}
    assert package.find("study/shorter").values["schedule"] == {"epochs": 1, "warmup": 0}


def test_a_file_of_variations_is_not_a_recipe(package: RecipeFiles):
    with pytest.raises(UnknownRecipeError, match="unknown recipe 'study'"):
        package.find("study")


def test_descriptions_are_not_inherited(package: RecipeFiles):
    assert set(package.find("whole").values) >= {"name", "description", "reproduces", "provenance"}
    assert set(package.find("study/other").values) == {"model", "schedule"}
    assert package.find("study/short").values["description"] == "Short."
    assert set(package.find("study/shorter").values) == {"model", "schedule"}


@pytest.mark.parametrize("key", ["name", "description", "reproduces", "provenance"])
def test_variations_must_describe_themselves(key: str, tmp_path: Path):
    package = files(tmp_path, {"study": f"{key}: x\nvariations: {{a: {{}}}}"})
    with pytest.raises(RecipeFileError, match=f"recipes study: {key} stands beside variations"):
        package.names()


def test_duplicate_recipe_names_are_refused(tmp_path: Path):
    with pytest.raises(RecipeFileError, match="recipe study/a is defined twice"):
        files(tmp_path, {"study": "variations: {a: {}}", "study/a": "{}"}).names()


def test_the_path_of_a_base_is_relative_to_its_file(package: RecipeFiles, tmp_path: Path):
    write(tmp_path / "bases/deep", far="base: whole\nschedule: {epochs: 7}")
    write(tmp_path / "bases", near="base: deep/far.yaml\nschedule: {warmup: 2}")
    mine = write(tmp_path / "mine", mine="base: ../bases/near.yaml\nmodel: {name: h3}")
    found = package.find(mine)
    assert found.values["schedule"] == {"epochs": 7, "warmup": 2}
    assert found.values["model"] == {"name": "h3", "overrides": {"depths": [1, 2], "heads": 4}}
    assert found.name == "mine"
    assert found.base is not None
    assert found.base.source == str(tmp_path / "mine/../bases/near.yaml")


def test_packaged_recipes_have_packaged_bases(tmp_path: Path):
    package = files(tmp_path, {"a": "base: b.yaml", "b": "{}"})
    with pytest.raises(UnknownRecipeError) as caught:
        package.find("a")
    assert (caught.value.name, caught.value.asked_by, caught.value.known) == ("b.yaml", "recipe a", ["a", "b"])


def test_names_cannot_leave_the_folder(tmp_path: Path):
    write(tmp_path, outside="{}")
    with pytest.raises(UnknownRecipeError):
        files(tmp_path / "package", {"a": "{}"}).find("../outside")


@pytest.mark.parametrize(
    ("bases", "message"),
    [
        ({"a": "a"}, "{a} is its own base"),
        ({"a": "b", "b": "a"}, "{a} is its own base, through {b}"),
        ({"a": "b", "b": "c", "c": "b"}, "{b} is its own base, through {c}"),
        ({"a": "b", "b": "c", "c": "a"}, "{a} is its own base, through {b} and {c}"),
    ],
)
def test_a_recipe_that_is_its_own_base_is_refused(bases: dict[str, str], message: str, tmp_path: Path):
    package = files(tmp_path / "package", {name: f"base: {base}" for name, base in bases.items()})
    with pytest.raises(RecipeFileError) as caught:
        package.find("a")
    assert str(caught.value) == message.format(**{name: f"recipe {name}" for name in bases})
    mine = write(tmp_path, **{name: f"base: ../{tmp_path.name}/{base}.yaml" for name, base in bases.items()})
    with pytest.raises(RecipeFileError, match="is its own base"):
        package.find(mine)


def test_the_depth_of_bases_is_limited(tmp_path: Path):
    texts = {f"b{number}": f"base: b{number + 1}" for number in range(MOST_BASES + 1)}
    package = files(tmp_path, texts | {f"b{MOST_BASES + 1}": "schedule: {epochs: 3}"})
    assert package.find("b1").values == {"schedule": {"epochs": 3}}
    with pytest.raises(RecipeFileError, match=f"recipe b0 has a chain of over {MOST_BASES} bases"):
        package.find("b0")


def test_a_base_of_another_task_is_refused(tmp_path: Path):
    texts = {"whole": "{}", "boxes": "task: detection", "a": "base: whole\ntask: detection", "b": "base: boxes"}
    package = files(tmp_path, texts | {"c": "base: b\ntask: classification"})
    with pytest.raises(RecipeFileError) as caught:
        package.find("a")
    assert (
        str(caught.value) == "recipe a is a recipe for detection, but its base, recipe whole, is one for classification"
    )
    assert package.find("b").values["task"] == "detection"
    with pytest.raises(
        RecipeFileError, match="recipe c is a recipe for classification, but its base, recipe b, is one for"
    ):
        package.find("c")


@pytest.mark.parametrize("base", ["3", "null", '""', "[whole]", '"a\\nb"', '"a\\0"', "x" * 501, "9" * 5000, "{a: b}"])
def test_a_base_must_be_a_name(base: str, package: RecipeFiles, tmp_path: Path):
    mine = write(tmp_path, mine=f"base: {base}")
    if base.startswith("99"):  # YAML cannot read such a long number
        package = RecipeFiles(tmp_path / "package", lambda file, source: {"base": int("9" * 4000) ** 2})
    with pytest.raises(RecipeFileError) as caught:
        package.find(mine)
    assert str(caught.value).startswith(f"{mine}: base is ")
    assert "but must be the name of a recipe, such as imagenet/h0, or the path of a YAML file" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_missing_base_is_refused(package: RecipeFiles, tmp_path: Path):
    mine = write(tmp_path, mine="base: gone.yaml")
    with pytest.raises(RecipeFileError) as caught:
        package.find(mine)
    assert str(caught.value).startswith(f"{mine}: base is {tmp_path}/gone.yaml, but there is no such file")
    with pytest.raises(UnknownRecipeError) as unknown:
        package.find(write(tmp_path, mine="base: wohle"))
    assert (unknown.value.name, unknown.value.asked_by) == ("wohle", mine)


def test_only_packaged_files_have_variations(package: RecipeFiles, tmp_path: Path):
    with pytest.raises(RecipeFileError, match="has variations, which only recipes of the package have"):
        package.find(write(tmp_path, mine=STUDY))


def test_the_module_imports_only_yaml():
    code = f"""
import importlib.util, pathlib, sys, yaml
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("recipe_files", {recipe_files.__file__!r})
sys.modules["recipe_files"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.RecipeFiles(pathlib.Path({str(PACKAGED)!r})).names())
print({{name.partition(".")[0] for name in sys.modules.keys() - before}} - sys.stdlib_module_names)
"""
    shown = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=with_yaml()
    )
    names, imported = map(ast.literal_eval, shown.stdout.splitlines())
    assert names == list_recipes()
    assert imported == {"recipe_files"}


def with_yaml() -> dict[str, str]:
    """An environment in which Python finds PyYAML, but starts without `.pth` files, which import other packages."""
    import yaml

    return {"PYTHONPATH": str(Path(yaml.__file__).parents[1])}


@pytest.mark.parametrize("name", list_recipes())
def test_packaged_recipes_are_plain_yaml(name: str):
    assert RecipeFiles(PACKAGED).find(name).values == find(name).values
