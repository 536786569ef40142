import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.testing import assert_close

import halonet
from halonet.export.onnx_model import open_session
from halonet.training import load_checkpoint
from halonet_cli.main import main
from tests.detection.conftest import box_run, box_scenes  # noqa: F401 - fixtures
from tests.export.conftest import unchecked_shapes  # noqa: F401 - a fixture
from tests.halonet_cli.mistakes import assert_a_users_mistake

CHECKPOINT = str(next((Path(halonet.__file__).parent / "models/weights").glob("mini32.cifar10.safetensors")))


def test_a_trained_classifier_is_exported_with_its_labels_and_preprocessing(tmp_path, capsys):
    path = tmp_path / "photos.onnx"
    assert main(["export", CHECKPOINT, str(path), "--normalize", "--softmax", "--min-size", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"written to {path}: onnx, ")
    assert "for images of other sizes in pixels: 1 of 2 x 3, 3 of 22 x 12, 1 of 49 x 50" in shown
    network, information = load_checkpoint(CHECKPOINT)
    texts = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert json.loads(texts["class_names"]) == information["class_names"]
    prepared = json.loads(texts["preprocessing"])
    assert (prepared["mean"], prepared["input_size"]) == (information["preprocessing"]["mean"], [3, 32, 32])
    image = torch.rand(2, 3, 41, 35)
    mean, std = (torch.tensor(information["preprocessing"][name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        expected = network((image - mean) / std).softmax(1)
    assert_close(
        torch.as_tensor(open_session(str(path)).run(None, {"image": image.numpy()})[0]), expected, atol=1e-5, rtol=0
    )


def test_a_folder_for_the_hub_is_written_by_the_same_command(tmp_path, capsys):
    assert main(["export", "mini32.cifar10", str(tmp_path / "folder"), "--format", "hub"]) == 0
    assert capsys.readouterr().out == f"written to {tmp_path / 'folder'}\n"
    assert halonet.load(tmp_path / "folder").labels == load_checkpoint(CHECKPOINT)[1]["class_names"]


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_detector_is_exported_by_the_same_command(box_run, tmp_path, capsys):  # noqa: F811
    path = tmp_path / "boxes.onnx"
    assert main(["export", str(box_run), str(path)]) == 0
    assert "gives what PyTorch gives at three other sizes" in capsys.readouterr().out
    session = open_session(str(path))
    assert [each.name for each in session.get_outputs()] == ["boxes", "labels", "scores"]
    boxes, _, _ = session.run(None, {"image": np.zeros((3, 40, 50), np.float32)})
    assert boxes.shape[1] == 4


def test_the_flags_of_classifiers_are_refused_for_a_detector(box_run, tmp_path, capsys, monkeypatch):  # noqa: F811
    for words, message in (
        (["a.onnx", "--softmax"], "leave out --softmax: .* is a detector"),
        (["b.onnx", "--min-size", "3"], "leave out --min-size: .* is a detector"),
        (["a.pt2"], "a detector can be exported to onnx only: name the file a.onnx"),
    ):
        folder = tmp_path / words[0]
        folder.mkdir()
        assert_a_users_mistake(["export", str(box_run), *words], message, capsys, folder, monkeypatch)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "a.onnx"], "there is no checkpoint nowhere"),
        ([CHECKPOINT, "a.txt"], "cannot tell the format of a.txt: name it with the suffix .onnx or .pt2, or give"),
        (
            [CHECKPOINT, "a.onnx", "--format", "onx"],
            "--format is 'onx', but must be onnx, pt2, aoti or hub. Did you mean 'onnx'",
        ),
        ([CHECKPOINT, "a.onnx", "--format", "aoti"], "the name of a file of format aoti must end in .pt2"),
        (
            [CHECKPOINT, "a.pt2", "--format", "aoti", "--int8", "."],
            "leave out --int8: --format aoti computes",
        ),
        ([CHECKPOINT, "a", "--format", "hub", "--softmax"], "leave out --softmax: --format hub writes the network as"),
        ([CHECKPOINT, "no/a.onnx"], "there is no folder no; make it first"),
        ([CHECKPOINT, "a.onnx", "--features", "--softmax"], "leave --softmax out"),
        ([CHECKPOINT, "a.onnx", "--min-size", "0"], "--min-size is 0, but must be from 1 to 2,048"),
        ([CHECKPOINT, "a.onnx", "--min-size", "9", "--max-size", "9"], "must be less than --max-size, which is 9"),
        ([__file__, "a.onnx"], "test_export.py"),
    ],
)
def test_a_mistake_is_one_line(words, message, capsys, tmp_path, monkeypatch):
    assert_a_users_mistake(["export", *words], message, capsys, tmp_path, monkeypatch)
