import importlib
import re
import shutil
from functools import partial

import lightning
import pytest

import halonet
import halonet.training  # before `few_batches` replaces the Trainer that its annotations name
from tests.docs.pages import DOCS, run_steps, steps_of
from tests.export.conftest import unchecked_shapes  # noqa: F401 - a fixture


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


def test_every_name_in_the_reference_exists():
    names = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) > 40
    assert [name for name in names if not exists(name)] == []


def exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    return hasattr(importlib.import_module(module), attribute)
