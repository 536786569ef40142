"""A named data set in a folder that moves between training and evaluation."""

import warnings
from pathlib import Path

import lightning
import pytest

from halonet.data import load_source
from halonet.engine.run import read_result
from halonet.errors import UserError, UserNote
from halonet.training import evaluate, resolve, resume, train
from halonet_cli.main import main
from tests.data import cifar10_archives
from tests.engine.tiny import tiny_cifar10_recipe


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    cifar10_archives.expect_small_archives(monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return cifar10_archives.write_batches(tmp_path / "data", cifar10_archives.BINARY)


def test_a_run_says_which_variant_it_was_measured_on(data, tmp_path, capsys):
    run = train(tiny_cifar10_recipe(data, train_images=40), tmp_path / "run")
    result = read_result(run)
    assert (result["data"], result["variant"], result["images"], result["steps"]) == ("cifar10", "CIFAR-10", 20, 8)
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    assert "on 20 images of CIFAR-10 (test)" in capsys.readouterr().out


def test_a_moved_data_set_can_be_measured(data, tmp_path, capsys):
    run = train(tiny_cifar10_recipe(data), tmp_path / "run")
    before = evaluate(run, device="cpu")
    data.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="is not a folder"):
        evaluate(run, device="cpu")
    assert evaluate(run, root=tmp_path / "moved", device="cpu")["loss"] == before["loss"]
    words = ["evaluate", str(run), "--device", "cpu", "--data.root", str(tmp_path / "moved")]
    assert main(words) == 0
    assert main([*words, "--data", "cifar10"]) == 0
    assert capsys.readouterr().out.count("of CIFAR-10 (test)") == 2


class StopAfterTwoSteps(lightning.Callback):
    def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        if trainer.global_step == 2:
            raise RuntimeError("stop")


def test_a_run_resumes_with_moved_data(data, tmp_path):
    whole = read_result(train(tiny_cifar10_recipe(data), tmp_path / "whole"))
    with pytest.raises(RuntimeError, match="stop"):
        train(tiny_cifar10_recipe(data), tmp_path / "run", callbacks=[StopAfterTwoSteps()])
    data.rename(tmp_path / "moved")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserNote)  # the folder of the data is not part of the experiment
        resume(tmp_path / "run", root=tmp_path / "moved")
    assert read_result(tmp_path / "run")["loss"] == whole["loss"]


def test_the_root_is_made_absolute(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train(tiny_cifar10_recipe(Path("data")), tmp_path / "run")
    assert resolve(run / "recipe.yaml").data.root == str(data)


def test_only_the_root_may_change_on_resume(capsys):
    assert main(["train", "--resume", "run", "--data.root", "here", "--schedule.epochs", "3"]) == 2
    assert "except data.root: leave out schedule.epochs" in capsys.readouterr().err
    assert main(["detect", "train", "--resume", "run", "--data.root", "here"]) == 2
    assert "--resume takes the recipe of the run as it is: leave out data.root" in capsys.readouterr().err
    assert main(["train", "--resume", "run", "--run-dir", "other"]) == 2
    assert "leave --run-dir out" in capsys.readouterr().err


def test_images_to_label_are_found_from_the_root(data, tmp_path, capsys):
    run = train(tiny_cifar10_recipe(data), tmp_path / "run")
    load_source("cifar10", "test", root=data)[0][0].save(tmp_path / "photo.png")
    assert main(["predict", str(run), "photo.png", "--data.root", str(tmp_path), "--device", "cpu"]) == 0
    assert str(tmp_path / "photo.png") in capsys.readouterr().out
