import copy
import dataclasses

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

import halonet
from halonet.data import DetectionAugmentation
from halonet.detection import DetectorConfig, create_detector
from halonet.errors import UserError
from tests.detection.tiny import SMALL, tiny_detector

# The rows of Table 5, and others that a user may want.
BACKBONES = ["r50se", "r50se_halo_b8", "r50se_halo_b32", "r101se", "r101se_halo_b8", "h0", "h4_21k_patch", "small64"]


def target(height=48, width=64):
    masks = torch.zeros(1, height, width, dtype=torch.uint8)
    masks[0, 10:30, 12:40] = 1
    return {"boxes": torch.tensor([[12.0, 10.0, 40.0, 30.0]]), "labels": torch.tensor([2]), "masks": masks}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_fits_the_detector(name):
    with torch.device("meta"):
        detector = create_detector(name, 80)
    stages = len(halonet.HALONETS[name].depths)
    assert len(detector.pyramid.reductions) == stages + 1
    assert detector.rpn.anchor_generator.sizes == tuple((8 * reduction,) for reduction in detector.pyramid.reductions)
    assert detector.roi_heads.box_predictor.cls_score.out_features == 81


def test_a_batch_may_have_images_of_two_sizes():
    torch.manual_seed(0)
    detector = create_detector(
        "r50se_halo_b8",
        3,
        DetectionAugmentation(min_size=96, max_size=160, train_min_sizes=(96,)),
        backbone_overrides={"width_ratio": 0.125, "stem_width": 8, "num_heads": (2, 2, 2, 2)},
        score_threshold=0.0,
        **SMALL,
    ).eval()
    with torch.inference_mode():
        detections = detector([torch.rand(3, 75, 113), torch.rand(3, 140, 61)])
    for detection, (height, width) in zip(detections, [(75, 113), (140, 61)], strict=True):
        assert len(detection["boxes"]) > 0
        assert detection["masks"].shape == (len(detection["boxes"]), 1, height, width)
        assert set(detection["labels"].tolist()) <= {1, 2, 3}
        assert (detection["boxes"] >= 0).all()
        assert (detection["boxes"] <= torch.tensor([width, height, width, height])).all()


def test_images_are_scaled_only_in_evaluation():
    detector = tiny_detector()
    image = torch.rand(3, 30, 40)
    evaluated, _ = detector.eval().transform([image])
    trained, _ = detector.train().transform([image], [target(30, 40)])
    assert evaluated.image_sizes == [(48, 64)]
    assert trained.image_sizes == [(30, 40)]
    assert trained.tensors.shape[-2:] == (32, 64)


def test_images_are_normalized():
    prepared, _ = tiny_detector().transform([torch.full((3, 48, 64), 0.6)], [target()])
    torch.testing.assert_close(prepared.tensors[..., :48, :], torch.full((1, 3, 48, 64), (0.6 - 0.2) / 0.2))


def test_training_reaches_every_weight():
    detector = tiny_detector().train()
    losses = detector([torch.rand(3, 48, 64)], [target()])
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"}
    sum(losses.values()).backward()
    assert [name for name, parameter in detector.named_parameters() if parameter.grad is None] == []


def test_an_empty_image_can_be_trained_on():
    detector = tiny_detector().train()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = detector([torch.rand(3, 48, 64)], [empty | {"masks": torch.zeros(0, 48, 64, dtype=torch.uint8)}])
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_anchors_are_squares_scaled_by_level():
    detector = tiny_detector(anchor_scale=3.0)
    generator = detector.rpn.anchor_generator
    assert isinstance(generator, AnchorGenerator)
    levels = [torch.zeros(1, 8, 16 // reduction, 16 // reduction) for reduction in detector.pyramid.reductions]
    (anchors,) = generator(ImageList(torch.zeros(1, 3, 16, 16), [(16, 16)]), levels)
    sides = anchors[:, 2:] - anchors[:, :2]
    squares = sides[sides[:, 0] == sides[:, 1]][:, 0]
    assert set(squares.tolist()) == {3.0 * reduction for reduction in detector.pyramid.reductions}


def test_position_tables_take_no_weight_decay():
    detector = tiny_detector()
    spared = detector.no_weight_decay()
    assert spared == {name for name, _ in detector.named_parameters() if name.endswith("_embedding")}
    assert spared


def test_the_same_seed_builds_the_same_detector():
    first, second = tiny_detector().state_dict(), tiny_detector().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "r50se_halo"}, "unknown model 'r50se_halo'. Did you mean 'r50se_halo_b8'"),
        ({"batch_norm": "freeze"}, "batch_norm is 'freeze', but must be batch, synchronized or frozen"),
        ({"frozen_stages": 3}, "frozen_stages is 3, but must be at most 2, the stages of the backbone"),
        ({"mask_channels": 0}, "mask_channels is 0, but must be from 1 to 65,536"),
        ({"detections_per_image": 0}, "detections_per_image is 0"),
        ({"anchor_scale": 0.0}, "anchor_scale is 0.0, but must be from 0.1 to 1,000"),
        ({"score_threshold": 1.0}, "score_threshold is 1.0"),
        ({"mask_channel": 3}, "unknown setting of a detector 'mask_channel'. Did you mean 'mask_channels'"),
        ({"backbone_overrides": {"block": 3}}, "model 'tiny28': unknown key 'block'. Did you mean 'block_size'"),
        ({"backbone_overrides": {"block_size": 0}}, "block_size is 0, but must be from 1 to 1,024"),
    ],
)
def test_impossible_settings_are_refused(arguments, message, untyped):
    with pytest.raises(UserError, match=message):
        create_detector(**({"backbone": "tiny28", "num_classes": 2} | arguments))


def test_a_config_survives_json():
    config = tiny_detector().config
    fields = dataclasses.asdict(config)
    backbone = halonet.HaloNetConfig(**fields.pop("backbone"))
    assert DetectorConfig(backbone=backbone, **fields) == config


def test_a_batch_only_adds_padding():
    detector = tiny_detector(score_threshold=0.0).eval()
    image = torch.rand(3, 48, 64)
    with torch.inference_mode():
        (alone,) = detector([image])
        both = detector([image, copy.deepcopy(image)])
    for detection in both:
        torch.testing.assert_close(detection["boxes"], alone["boxes"], atol=1e-3, rtol=1e-4)


def test_detections_do_not_depend_on_earlier_images():
    small, large = torch.rand(3, 20, 20), torch.rand(3, 96, 64)
    first, second = (tiny_detector(score_threshold=0.0).eval() for _ in range(2))
    with torch.inference_mode():
        first([small])
        (after_small,), (fresh,) = first([large]), second([large])
    assert all(torch.equal(after_small[name], fresh[name]) for name in fresh)


def test_boxes_are_pooled_at_the_pyramids_reductions():
    detector = tiny_detector()
    for pool in (detector.roi_heads.box_roi_pool, detector.roi_heads.mask_roi_pool):
        assert pool.scales == [1 / reduction for reduction in detector.pyramid.reductions[:-1]]
        assert (pool.map_levels.k_min, pool.map_levels.k_max) == (1, 2)
