import contextlib
import copy
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import halonet
from halonet.detection.export import ExportableDetector, export_detector
from halonet.detection.export.exportable import OUTPUTS, THRESHOLD
from halonet.detection.export.verification import compare_detections, verify_detector
from halonet.detection.mask_rcnn import FasterRCNN
from halonet.errors import UserError
from halonet.installation import command_for_extra
from tests.detection.export.detectors import (
    BACKBONES,
    MIN_SIZE,
    SIZES,
    make_detector,
)
from tests.docs.pages import DOCS, steps_of

NAMES = ["box", "disc", "star"]


def by_name(outputs: Any) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(each) for name, each in zip(OUTPUTS, outputs, strict=False)}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    """Compare detections in order: scores within `tolerance`, boxes within ten times as many pixels."""
    assert len(found["boxes"]) == len(expected["boxes"])
    assert found["labels"].dtype == torch.int64
    assert found.keys() == expected.keys()
    assert torch.equal(found["labels"], expected["labels"])
    torch.testing.assert_close(found["scores"], expected["scores"], atol=tolerance, rtol=0)
    torch.testing.assert_close(found["boxes"], expected["boxes"], atol=10 * tolerance, rtol=0)
    if "masks" not in expected:
        return
    assert found["masks"].shape == expected["masks"].shape
    # Rounding may move a corner, and with it the mask, over the border of a pixel.
    assert ((found["masks"] - expected["masks"]).abs() > 10 * tolerance).sum() <= 1e-3 * expected["masks"].numel()


@contextlib.contextmanager
def unchecked_shapes() -> Iterator[None]:
    """Switch the shape checks off, which do not know the symbolic sizes of an export."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[FasterRCNN, Path, str]:
    """A detector, its verified file, and the output of the export."""
    torch.manual_seed(0)
    detector = make_detector().train()
    path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    said = io.StringIO()
    with unchecked_shapes(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        assert export_detector(detector, str(path), class_names=NAMES) == path
    assert detector.training
    return detector.eval(), path, said.getvalue()


def open_session(path: Path, threshold: float | None = None) -> onnxruntime.InferenceSession:
    """Open the file, optionally with another score threshold."""
    model = onnx.load(path)
    for initializer in model.graph.initializer:
        if threshold is not None and initializer.name == THRESHOLD:
            initializer.CopyFrom(onnx.numpy_helper.from_array(torch.tensor(threshold).numpy(), THRESHOLD))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_exportable_form_agrees_with_the_detector(backbone):
    detector = make_detector(backbone, BACKBONES[backbone])
    exportable = ExportableDetector(detector)
    for size in SIZES[:3]:
        image = torch.rand(3, *size)
        expected = detector([image])[0]
        assert len(expected["boxes"]) > 20
        assert_same(by_name(exportable(image)), expected, 1e-5)


def test_an_exportable_box_detector_has_no_masks():
    detector = make_detector(masks=False)
    exportable = ExportableDetector(detector)
    assert exportable.outputs == ("boxes", "labels", "scores")
    for size in SIZES[:3]:
        image = torch.rand(3, *size)
        (expected,) = detector([image])
        assert set(expected) == set(exportable.outputs)
        assert len(expected["boxes"]) > 20
        assert_same(by_name(exportable(image)), expected, 1e-5)


def test_the_exportable_form_shares_the_weights():
    detector = make_detector()
    exportable = ExportableDetector(detector)
    assert {id(each) for each in exportable.parameters()} == {id(each) for each in detector.parameters()}
    assert set(exportable.state_dict()) == {f"detector.{name}" for name in detector.state_dict()}


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_onnxruntime_agrees_at_other_sizes(exported, size):
    detector, path, _ = exported
    image = torch.rand(3, *size)
    expected = detector([image])[0]
    assert len(expected["boxes"]) > 20
    found = by_name(open_session(path).run(None, {"image": image.numpy()}))
    assert_same(found, expected, 1e-3)


def test_onnxruntime_agrees_on_few_detections(exported):
    detector, path, _ = exported
    image = torch.rand(3, 150, 185)
    expected = detector([image])[0]
    for count in (0, 1):
        best = expected["scores"][: count + 1]
        threshold = 1.0 if count == 0 else float(best.mean())
        found = by_name(open_session(path, threshold).run(None, {"image": image.numpy()}))
        assert_same(found, {name: each[:count] for name, each in expected.items()}, 1e-3)


def test_the_lines_of_the_page_read_the_file(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(exported[1], "detector.onnx")
    Image.new("RGB", (146, 98)).save("photo.jpg")
    *_, step = steps_of((DOCS / "detection.md").read_text(encoding="utf-8"))
    namespace = {}
    exec(step.code, namespace)
    assert namespace["masks"].shape == (len(namespace["boxes"]), 1, 98, 146)


def test_the_file_is_valid_and_names_its_inputs_and_outputs(exported):
    _, path, _ = exported
    assert list(path.parent.iterdir()) == [path]
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    shapes = {
        each.name: [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim]
        for each in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "image": [3, "height", "width"],
        "boxes": ["detections", 4],
        "labels": ["detections"],
        "scores": ["detections"],
        "masks": ["detections", 1, "height", "width"],
    }
    assert {each.domain for each in model.opset_import} == {""}


def test_the_file_has_instructions_but_no_paths(exported):
    _, path, _ = exported
    metadata = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert json.loads(metadata["class_names"]) == NAMES
    assert metadata["halonet_version"] == halonet.__version__
    preprocessing = json.loads(metadata["preprocessing"])
    assert (preprocessing["channels"], preprocessing["range"]) == ("RGB", [0, 1])
    assert preprocessing["done_inside"]["min_size"] == MIN_SIZE
    assert str(Path(halonet.__file__).parent).encode() not in path.read_bytes()


def test_export_prints_nothing(exported):
    assert exported[2] == ""


def test_verification_refuses_a_wrong_file(exported):
    detector, path, _ = exported
    model = onnx.load(path)
    (bias,) = (each for each in model.graph.initializer if each.name.endswith("mask_fcn_logits.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
    with pytest.raises(RuntimeError, match="does not find what the detector finds in an image of 97 x 81 pixels"):
        verify_detector(copy.deepcopy(detector), model)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_remedy(package, monkeypatch, tmp_path):
    monkeypatch.setattr("halonet.detection.export.file.find_spec", lambda name: None if name == package else name)
    with pytest.raises(UserError, match=re.escape(f"needs {package}: {command_for_extra('export')}")):
        export_detector(make_detector(), tmp_path / "detector.onnx")


def test_class_names_must_be_as_many_as_the_classes(tmp_path):
    with pytest.raises(UserError, match="2 class names for 3 classes"):
        export_detector(make_detector(), tmp_path / "detector.onnx", class_names=NAMES[:2])


def test_comparing_detections_ignores_rounding():
    def compare(one: Any, other: Any) -> int:
        return compare_detections(one, other, 40)

    masks = torch.zeros(2, 1, 40, 40)
    masks[:, :, :20, :20] = 1
    boxes = torch.tensor([[0.0, 0, 20, 20], [0, 0, 19, 19]])
    expected = {"boxes": boxes, "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.8]), "masks": masks}
    nothing = {name: each[:0] for name, each in expected.items()}
    assert compare(expected, expected) == compare(nothing, nothing) == 0
    assert compare(expected, nothing) == compare(nothing, expected) == 2
    assert compare(expected, {name: each.flip(0) for name, each in expected.items()}) == 0
    assert compare(expected, {name: each[:1] for name, each in expected.items()}) == 1
    for name, change, different in (
        ("boxes", 1e-3, 0),
        ("boxes", 0.5, 4),
        ("labels", 5, 4),
        ("scores", 1e-3, 0),
        ("scores", 0.05, 4),
        ("masks", 1e-3, 0),
        ("masks", 0.1, 4),
    ):
        assert compare(expected, expected | {name: expected[name] + change}) == different, (name, change)
    del expected["masks"]
    assert compare(expected, expected) == 0
    assert compare(expected, expected | {"boxes": boxes + 0.5}) == 4
