import ast
import importlib
import re
import shlex
import shutil
from functools import partial
from importlib.resources import files

import lightning
import pytest
import torch
from torch._inductor import config as inductor

import halonet
import halonet.training  # before `few_batches` replaces the Trainer that its annotations name
from halonet.recipes.load import resolve
from halonet_cli.main import main
from tests.docs.pages import DOCS, FENCE, run_steps, steps_of
from tests.export.conftest import unchecked_shapes  # noqa: F401 - a fixture

NAMES = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", ["index.md", "backends.md", "pictures.md"])
def test_the_examples_run(page):
    steps = steps_of((DOCS / page).read_text(encoding="utf-8"))
    assert run_steps(steps) == [step.expected for step in steps]
    assert steps


@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_the_page_of_folders_for_the_hub_runs_offline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    steps = steps_of((DOCS / "hub.md").read_text(encoding="utf-8"))
    assert run_steps(steps) == [step.expected for step in steps]
    assert sum(bool(step.expected) for step in steps) == 4
    for script in steps[-2:]:  # with timm alone, and with transformers alone
        assert run_steps([script]) == [script.expected] == ["airplane\n"]


def test_the_page_of_the_demo_runs(finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(finished_run, tmp_path / "runs" / "photos")
    (step,) = steps_of((DOCS / "demo.md").read_text(encoding="utf-8"))
    run_steps([step])
    assert (run / "model.familiarity.json").is_file()


def test_the_page_of_exports_runs(unchecked_shapes):  # noqa: F811
    steps = steps_of((DOCS / "export.md").read_text(encoding="utf-8"))
    assert run_steps(steps) == [step.expected for step in steps]
    assert steps


def test_the_detector_of_the_page_of_detection_runs():
    detector, _ = steps_of((DOCS / "detection.md").read_text(encoding="utf-8"))  # the other: tests/detection/export
    assert run_steps([detector]) == [detector.expected]


def run_commands(page: str, containing: str = "") -> None:
    """Run the first block of commands of a page, or those lines of it that contain a text."""
    code = next(code for language, code in FENCE.findall(page) if language == "bash")
    lines = [line for line in code.splitlines() if containing in line]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        assert (words[0], main(words[1:])) == ("halonet", 0), line


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's and torchao's own
def test_the_page_of_int8_runs(finished_run, images, tmp_path, monkeypatch, unchecked_shapes):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # half a minute without it
    shutil.copytree(finished_run, "runs/mine")
    shutil.copytree(images / "train", "photos")
    page = (DOCS / "int8.md").read_text(encoding="utf-8")
    run_commands(page, "mine.pt2")  # the Python writes mine.onnx
    steps = steps_of(page)
    with inductor.patch(freezing=False):  # the page sets it; pytest's monkeypatch would remove it at the end
        assert run_steps(steps) == [step.expected for step in steps]
    assert len(steps) == 2


def test_the_commands_that_draw_attention_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/photos").mkdir(parents=True)
    package = files("halonet")
    shutil.copy(package / "models/weights/mini32.cifar10.safetensors", "runs/photos/model.safetensors")
    shutil.copy(package / "demo/examples/cat.jpg", "picture.jpg")
    run_commands((DOCS / "pictures.md").read_text(encoding="utf-8"))
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["0000_picture.png"]


def test_the_recipe_of_the_training_page_is_one(tmp_path):
    page = (DOCS / "training.md").read_text(encoding="utf-8")
    (code,) = [code for language, code in FENCE.findall(page) if language == "yaml"]
    path = tmp_path / "my_recipe.yaml"
    path.write_text(code)
    recipe = resolve(str(path))
    assert (recipe.model.name, recipe.model.num_classes, recipe.schedule.epochs) == ("h0", 100, 90)


@pytest.fixture
def few_batches(monkeypatch, tmp_path):
    limits = {"limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1, "accelerator": "cpu"}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    monkeypatch.setattr(lightning, "Trainer", partial(lightning.Trainer, **limits, **quiet))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("few_batches")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated")
@pytest.mark.filterwarnings("ignore:.*log_every_n_steps")
def test_the_notebook_lines_of_the_training_page_train_and_test_a_network():
    page = (DOCS / "training.md").read_text(encoding="utf-8")
    (step,) = steps_of(page)
    lines = [line for line in step.code.splitlines() if line]
    assert len(lines) <= 10
    namespace = {}
    exec(step.code, namespace)
    assert namespace["trainer"].global_step == 3 * 2
    assert 0 <= namespace["trainer"].callback_metrics["test_top1"] <= 100


def test_every_public_name_is_in_the_reference():
    reference = (DOCS / "api.md").read_text(encoding="utf-8")
    for name in (name for name in vars(halonet) if not name.startswith("_")):
        value = getattr(halonet, name)
        if getattr(value, "__module__", "").startswith("halonet.") or name == "HALONETS":
            assert f"halonet.{name}" in reference, name


def test_names_that_the_pages_import_are_in_the_reference():
    documented = {name.rpartition(".")[2] for name in NAMES}
    imported = set()
    for page in DOCS.glob("*.md"):
        for step in steps_of(page.read_text(encoding="utf-8")):
            statements = [each for each in ast.walk(ast.parse(step.code)) if isinstance(each, ast.ImportFrom)]
            ours = [each for each in statements if each.module.partition(".")[0] == "halonet"]
            imported |= {alias.name for each in ours for alias in each.names}
    assert len(imported) > 15
    assert imported - documented == set()


def test_every_name_in_the_reference_exists():
    assert len(NAMES) > 40
    assert [name for name in NAMES if not exists(name)] == []


def exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    return hasattr(importlib.import_module(module), attribute)
