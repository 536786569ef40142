import contextlib
import copy
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import MultiScaleRoIAlign, batched_nms
from torchvision.ops.poolers import LevelMapper

import halonet
from halonet.data.detection.dataset import DetectionAugmentation
from halonet.detection.export import ExportableDetector, export_detector
from halonet.detection.export.exportable import OUTPUTS, THRESHOLD
from halonet.detection.export.parts import align, keep_best, paste, prepare
from halonet.detection.export.verification import compare_detections, verify_detector
from halonet.detection.mask_rcnn import FasterRCNN, create_detector
from halonet.errors import UserError
from halonet.installation import command_for_extra

MIN_SIZE, MAX_SIZE = 128, 192
TINY = {"depths": (1, 1), "num_heads": (2, 2), "stem_width": 16, "width_ratio": 0.25}
NARROW = {"width_ratio": 0.125, "stem_width": 16, "depths": (1, 1, 1, 1)}
BACKBONES = {"tiny28": TINY, "r50se_halo_b8": NARROW, "r50se_halo_b32": NARROW}
BOTH_KINDS = TINY | {"convolution_stages": (1,), "squeeze_excitation_stages": (1,)}
# Enlarged, to a shorter side that float64 rounds to 127 and float32 to 128; reduced; limited by the longer side.
# All fit into multiples of 32 but for a few pixels: where an image is padded, untrained scores are equal, in no order.
SIZES = [(98, 146), (301, 211), (109, 333), (250, 370)]
NAMES = ["box", "disc", "star"]


def make_detector(backbone: str = "tiny28", overrides: dict[str, Any] = BOTH_KINDS, masks: bool = True) -> FasterRCNN:
    """A detector that was not trained, but is as sure and as varied in what it finds as if it had been.

    It has few proposals: among many, some are so near a threshold that rounding decides.
    """
    augmentation = DetectionAugmentation(min_size=MIN_SIZE, max_size=MAX_SIZE, train_min_sizes=(MIN_SIZE,))
    narrow = {"pyramid_channels": 16, "box_channels": 32, "mask_channels": 8}
    detector = create_detector(backbone, 3, augmentation, masks=masks, backbone_overrides=overrides, **narrow).eval()
    heads: Any = detector.roi_heads
    rpn: Any = detector.rpn
    rpn._pre_nms_top_n, rpn._post_nms_top_n = {"testing": 100}, {"testing": 50}
    deviations = {
        rpn.head.cls_logits: 2.0,
        rpn.head.bbox_pred: 0.3,
        heads.box_predictor.cls_score: 2.0,
        heads.box_predictor.bbox_pred: 1.0,
    }
    if masks:
        deviations[heads.mask_predictor.mask_fcn_logits] = 2.0
    seen = set()

    def spread(layer: nn.Module, inputs: Any, output: Any) -> Any:
        if layer in seen:
            return None
        seen.add(layer)
        others = [axis for axis in range(output.ndim) if axis != 1]
        factors = deviations[layer] / output.std(others)
        layer.weight.mul_(factors.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.copy_((layer.bias - output.mean(others)) * factors)
        return layer(*inputs)

    hooks = [layer.register_forward_hook(spread) for layer in deviations]
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        detector([torch.rand(3, 128, 128)])
    for hook in hooks:
        hook.remove()
    return detector.requires_grad_(False)


def by_name(outputs: Any) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(each) for name, each in zip(OUTPUTS, outputs, strict=False)}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    """Every detection in its place: scores within `tolerance`, boxes within ten times as many pixels."""
    assert len(found["boxes"]) == len(expected["boxes"])
    assert found["labels"].dtype == torch.int64
    assert found.keys() == expected.keys()
    assert torch.equal(found["labels"], expected["labels"])
    torch.testing.assert_close(found["scores"], expected["scores"], atol=tolerance, rtol=0)
    torch.testing.assert_close(found["boxes"], expected["boxes"], atol=10 * tolerance, rtol=0)
    if "masks" not in expected:
        return
    assert found["masks"].shape == expected["masks"].shape
    # A corner that rounding takes over a pixel's border moves its mask.
    assert ((found["masks"] - expected["masks"]).abs() > 10 * tolerance).sum() <= 1e-3 * expected["masks"].numel()


@contextlib.contextmanager
def unchecked_shapes() -> Iterator[None]:
    """The checks of the tests know no symbols, which stand for sizes while a detector is exported."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[FasterRCNN, Path, str]:
    """A detector, its file, and what the export said; from training mode, and verified."""
    torch.manual_seed(0)
    detector = make_detector().train()
    path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    said = io.StringIO()
    with unchecked_shapes(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        assert export_detector(detector, str(path), class_names=NAMES) == path
    assert detector.training
    return detector.eval(), path, said.getvalue()


def open_session(path: Path, threshold: float | None = None) -> onnxruntime.InferenceSession:
    """A session of the file, or of one with another score threshold."""
    model = onnx.load(path)
    for initializer in model.graph.initializer:
        if threshold is not None and initializer.name == THRESHOLD:
            initializer.CopyFrom(onnx.numpy_helper.from_array(torch.tensor(threshold).numpy(), THRESHOLD))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_exportable_form_finds_what_the_detector_finds(backbone):
    detector = make_detector(backbone, BACKBONES[backbone])
    exportable = ExportableDetector(detector)
    for size in SIZES[:3]:
        image = torch.rand(3, *size)
        expected = detector([image])[0]
        assert len(expected["boxes"]) > 20
        assert_same(by_name(exportable(image)), expected, 1e-5)


def test_the_exportable_form_of_a_detector_of_boxes_gives_no_masks():
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
def test_onnxruntime_finds_what_the_detector_finds_at_sizes_unseen_at_export(exported, size):
    detector, path, _ = exported
    image = torch.rand(3, *size)
    expected = detector([image])[0]
    assert len(expected["boxes"]) > 20
    found = by_name(open_session(path).run(None, {"image": image.numpy()}))
    assert_same(found, expected, 1e-3)


def test_onnxruntime_finds_nothing_or_one_thing_where_the_detector_does(exported):
    detector, path, _ = exported
    image = torch.rand(3, 150, 185)
    expected = detector([image])[0]
    for count in (0, 1):
        best = expected["scores"][: count + 1]
        threshold = 1.0 if count == 0 else float(best.mean())
        found = by_name(open_session(path, threshold).run(None, {"image": image.numpy()}))
        assert_same(found, {name: each[:count] for name, each in expected.items()}, 1e-3)


def test_the_file_is_valid_whole_and_names_what_it_takes_and_gives(exported):
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


def test_the_file_says_how_to_use_it_and_nothing_of_the_machine_it_comes_from(exported):
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


def test_verification_refuses_a_file_that_computes_something_else(exported):
    detector, path, _ = exported
    model = onnx.load(path)
    (bias,) = (each for each in model.graph.initializer if each.name.endswith("mask_fcn_logits.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
    with pytest.raises(RuntimeError, match="does not find what the detector finds in an image of 97 x 81 pixels"):
        verify_detector(copy.deepcopy(detector), model)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(package, monkeypatch, tmp_path):
    monkeypatch.setattr("halonet.detection.export.file.find_spec", lambda name: None if name == package else name)
    with pytest.raises(UserError, match=re.escape(f"needs {package}: {command_for_extra('export')}")):
        export_detector(make_detector(), tmp_path / "detector.onnx")


def test_class_names_must_be_as_many_as_the_classes(tmp_path):
    with pytest.raises(UserError, match="2 class names for 3 classes"):
        export_detector(make_detector(), tmp_path / "detector.onnx", class_names=NAMES[:2])


def test_detections_differ_by_box_label_score_or_mask_and_not_by_rounding():
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


@pytest.mark.parametrize("size", [*SIZES, (128, 128), (1, 1), (98, 150), (110, 150), (64, 333)], ids=str)
def test_an_image_is_prepared_as_torchvision_does(size):
    transform = make_detector().transform
    image = torch.rand(3, *size)
    expected, _ = transform([image])
    padded, sides = prepare(transform.normalize(image), MIN_SIZE, MAX_SIZE, 32)
    assert torch.equal(padded, expected.tensors)
    assert tuple(sides.tolist()) == expected.image_sizes[0]


@pytest.mark.parametrize("decimals", [1, 6])
def test_boxes_are_suppressed_by_class_as_torchvision_does_and_in_its_order(decimals):
    corners = torch.rand(3, 50, 2) * 40
    boxes, scores = (
        torch.cat([corners, corners + 5 + torch.rand(3, 50, 2) * 40], 2),
        torch.rand(3, 50).round(decimals=decimals),
    )
    scores[0, :10] = -1
    scores[2] = -1
    kept, kept_scores, classes = keep_best(boxes, scores, 0.3, 12)
    flat_boxes, flat_scores = boxes.transpose(0, 1).flatten(0, 1), scores.T.flatten()
    labels = torch.arange(3).repeat(50)
    (there,) = torch.where(flat_scores >= 0)
    places = there[batched_nms(flat_boxes[there], flat_scores[there], labels[there], 0.3)[:12]]
    assert torch.equal(kept, flat_boxes[places])
    assert torch.equal(kept_scores, flat_scores[places])
    assert torch.equal(classes, labels[places])
    assert len(keep_best(boxes, torch.full_like(scores, -1), 0.3, 12)[0]) == 0


@pytest.mark.parametrize("sides", [(10, 60, 120, 230), (10, 20), (230, 240), ()], ids=str)
def test_boxes_are_cut_out_of_the_level_of_their_size_whichever_levels_have_any(sides):
    levels = [torch.rand(1, 4, 64 // 2**level, 64 // 2**level) for level in range(4)]
    boxes = torch.tensor([[5.0, 7, 5 + side, 7 + side] for side in sides]).reshape(-1, 4)
    names = [str(level) for level in range(4)]
    pool = MultiScaleRoIAlign(names, 7, 2)
    expected = pool(dict(zip(names, levels, strict=True)), [boxes], [(256, 256)])
    found = align(levels, (4, 8, 16, 32), boxes, LevelMapper(2, 5), 7, 2)
    assert torch.equal(found, expected)


def test_masks_are_pasted_as_torchvision_does():
    boxes = torch.tensor(
        [
            [0.0, 0, 90, 70],
            [10.4, 20.6, 50.3, 33.3],
            [80.5, 60.5, 90, 70],
            [5.2, 5.2, 5.25, 40],
            [0, 30.9, 3, 31.1],
            [-20, -20, 130, 99],
        ]
    )
    masks = torch.rand(len(boxes), 28, 28)
    expected = paste_masks_in_image(masks[:, None], boxes, (70, 90))[:, 0]
    torch.testing.assert_close(paste(masks, boxes, 70, 90), expected, atol=1e-5, rtol=0)
    assert paste(masks[:0], boxes[:0], 70, 90).shape == (0, 70, 90)
