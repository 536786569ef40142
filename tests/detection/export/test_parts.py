import pytest
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import MultiScaleRoIAlign, batched_nms
from torchvision.ops.poolers import LevelMapper

from halonet.detection.export.parts import align, keep_best, paste, prepare
from tests.detection.export.detectors import MAX_SIZE, MIN_SIZE, SIZES, make_detector


@pytest.mark.parametrize("size", [*SIZES, (128, 128), (1, 1), (98, 150), (110, 150), (64, 333)], ids=str)
def test_preparation_matches_torchvision(size):
    transform = make_detector().transform
    image = torch.rand(3, *size)
    expected, _ = transform([image])
    padded, sides = prepare(transform.normalize(image), MIN_SIZE, MAX_SIZE, 32)
    assert torch.equal(padded, expected.tensors)
    assert tuple(sides.tolist()) == expected.image_sizes[0]


@pytest.mark.parametrize("decimals", [1, 6])
def test_suppression_matches_torchvision(decimals):
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
def test_boxes_are_pooled_from_their_level(sides):
    levels = [torch.rand(1, 4, 64 // 2**level, 64 // 2**level) for level in range(4)]
    boxes = torch.tensor([[5.0, 7, 5 + side, 7 + side] for side in sides]).reshape(-1, 4)
    names = [str(level) for level in range(4)]
    pool = MultiScaleRoIAlign(names, 7, 2)
    expected = pool(dict(zip(names, levels, strict=True)), [boxes], [(256, 256)])
    found = align(levels, (4, 8, 16, 32), boxes, LevelMapper(2, 5), 7, 2)
    assert torch.equal(found, expected)


def test_pasting_matches_torchvision():
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
