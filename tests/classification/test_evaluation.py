import shutil
from pathlib import Path

import pytest

from halonet.classification.evaluation import describe_accuracy, match_classes
from halonet.classification.metrics import wilson_interval
from halonet.engine.device import choose_device
from halonet.engine.run import read_result
from halonet.engine.weights import read_weights, save_weights
from halonet.errors import UserError
from halonet.training import evaluate, predict


def test_evaluating_a_run_reproduces_its_result(finished_run: Path):
    measured, result = evaluate(finished_run, device="cpu"), read_result(finished_run)
    for name in ("top1", "top5", "loss", "parameters", "images"):
        assert measured[name] == result[name]
    assert measured["split"] == "test"
    assert measured["images_per_second"] > 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_batches_and_workers_do_not_change_results(finished_run: Path):
    whole = evaluate(finished_run, device="cpu")
    parts = evaluate(finished_run, device="cpu", batch_size=3, workers=1)
    assert parts["top1"] == whole["top1"]
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_another_split_or_folder_can_be_measured(finished_run: Path, images: Path):
    measured = evaluate(finished_run, str(images / "train"), "all", device="cpu")
    assert measured["images"] == 24
    assert evaluate(finished_run, split="validation", device="cpu")["images"] == 8


def test_labels_hold_when_classes_are_missing(finished_run: Path, images: Path, tmp_path: Path):
    shutil.copytree(images / "train" / "right", tmp_path / "data" / "right")
    measured = evaluate(finished_run, str(tmp_path / "data"), "all", device="cpu")
    guesses = [row["label"] for row in predict(finished_run, list(tmp_path.rglob("*.png")), device="cpu")]
    assert measured["top1"] == 100 * guesses.count("right") / len(guesses)
    assert guesses.count("right") != guesses.count("left")


def test_classes_are_matched_by_name():
    assert match_classes(["b", "a"], ["a", "b", "c"]) == [1, 0]
    assert match_classes(["crane", "dog", "crane"], ["crane", "dog", "crane"]) == [0, 1, 2]
    assert match_classes(["crane", "crane"], ["dog", "crane", "crane"]) == [1, 2]
    assert match_classes(["a", "b"], ["a", "b"]) == [0, 1]


def test_numbered_folders_match_the_classes():
    assert match_classes([str(number) for number in range(12)], [f"n{number}" for number in range(12)]) == list(
        range(12)
    )


def test_unknown_classes_are_refused():
    with pytest.raises(UserError, match="the data's class 'z' is not one of the checkpoint's 2 classes"):
        match_classes(["a", "z"], ["a", "b"])


def test_all_bad_images_are_named_before_evaluating(finished_run: Path, images: Path, tmp_path: Path):
    folder = shutil.copytree(images / "train", tmp_path / "data")
    for name in ("left/3.png", "right/0.png"):
        (folder / name).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"^2 image\(s\) of .* cannot be read: .*left/3\.png .*right/0\.png"):
        evaluate(finished_run, str(folder), device="cpu")


def test_null_in_a_checkpoint_counts_as_missing(finished_run: Path, images: Path, tmp_path: Path):
    state, information, _ = read_weights(finished_run)
    path = tmp_path / "other.safetensors"
    save_weights(path, state, information | {"data": None})
    with pytest.raises(UserError, match="does not say what data it was trained on: name some with --data"):
        evaluate(path)
    save_weights(path, state, information | dict.fromkeys(["class_names", "test_split", "root", "hold_out", "seed"]))
    assert evaluate(path, device="cpu")["images"] == 8
    assert predict(path, [images / "train" / "left" / "3.png"], device="cpu")[0]["label"] in ("0", "1")
    save_weights(path, state, information | {"preprocessing": None})
    with pytest.raises(UserError, match="does not say how images were prepared"):
        evaluate(path)


def test_data_named_only_by_a_checkpoint_is_not_downloaded(finished_run: Path, tmp_path: Path, monkeypatch):
    state, information, _ = read_weights(finished_run)
    save_weights(tmp_path / "other.safetensors", state, information | {"data": "hfds/owner/name"})
    monkeypatch.setattr("halonet.classification.evaluation.load_source", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(UserError, match=r"hfds/owner/name, which would be downloaded: allow it with --data hfds"):
        evaluate(tmp_path / "other.safetensors")


def test_an_accuracy_is_described_with_its_interval(finished_run: Path):
    measured = evaluate(finished_run, device="cpu")
    low, high = wilson_interval(measured["top1"] / 100 * 8, 8)
    assert measured["top1_interval"] == pytest.approx([low, high])
    assert f"(95 % interval {low:.1f} to {high:.1f}), loss" in describe_accuracy(measured)
    old = {"top1": 50.0, "top5": 90.0, "loss": 1.0}
    assert describe_accuracy(old) == "top-1 50.00 %, top-5 90.00 %, loss 1.0000"


def test_a_missing_device_is_refused():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto") is not None
    with pytest.raises(UserError, match="device 'toaster' cannot be used here"):
        choose_device("toaster")
