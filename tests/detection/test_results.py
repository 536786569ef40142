import json
import re
import sys

import numpy as np
import pytest
import torch
from pycocotools import mask as run_lengths
from torch import Tensor

from halonet.detection.results import to_results
from halonet.errors import UserError
from halonet.installation import command_for_extra


def make_detection(count: int = 5, height: int = 12, width: int = 19) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    corners = 10 * torch.rand(count, 4, generator=generator)
    corners[:, 2:] += corners[:, :2]
    return {
        "boxes": corners,
        "labels": torch.arange(count) % 3 + 1,
        "scores": torch.rand(count, generator=generator),
        "masks": torch.rand(count, 1, height, width, generator=generator),
    }


# pycocotools' decoder does not know of a keyword that NumPy 2 passes.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_survive_their_run_lengths():
    detection = make_detection()
    results = to_results(detection, 7, [1, 2, 3])
    read = np.stack([run_lengths.decode(result["segmentation"]) for result in results])
    np.testing.assert_array_equal(read, (detection["masks"][:, 0] > 0.5).numpy())


def test_a_mask_ends_at_the_threshold():
    detection = make_detection(1)
    detection["masks"] = torch.tensor([[[[0.5, 0.7, 0.70001, 0.2]]]])
    areas = [
        run_lengths.area(to_results(detection, 7, [1], threshold)[0]["segmentation"]) for threshold in (0.1, 0.5, 0.7)
    ]
    assert areas == [4, 2, 1]


def test_boxes_have_width_and_height_and_are_not_rounded():
    detection = make_detection()
    for result, box in zip(to_results(detection, 7, [1, 2, 3]), detection["boxes"].tolist(), strict=True):
        x, y, width, height = result["bbox"]
        assert [x, y] == box[:2]
        # Two float32 differ by a float64, so that the corner comes back exactly.
        assert [x + width, y + height] == box[2:]


def test_the_detection_is_left_as_it_was():
    detection = make_detection()
    before = {name: tensor.clone() for name, tensor in detection.items()}
    detection["boxes"] = detection["boxes"].double()
    to_results(detection, 7, [1, 2, 3])
    assert torch.equal(detection["boxes"].float(), before["boxes"])


def test_labels_become_category_ids():
    results = to_results(make_detection(), 7, [18, 44, 90])
    assert [result["category_id"] for result in results] == [18, 44, 90, 18, 44]
    assert {result["image_id"] for result in results} == {7}


def test_results_are_plain_numbers_that_json_keeps():
    detection = make_detection()
    results = to_results(detection, 7, [1, 2, 3])
    assert json.loads(json.dumps(results)) == results
    assert [result["score"] for result in results] == detection["scores"].tolist()


def test_an_image_without_detections_has_no_results():
    assert to_results(make_detection(0), 7, [1, 2, 3]) == []


@pytest.mark.parametrize("label", [0, 4])
def test_a_label_without_a_category_is_refused(label: int):
    detection = make_detection()
    detection["labels"][2] = label
    with pytest.raises(UserError, match=f"found label {label}, but there are 3 categories"):
        to_results(detection, 7, [1, 2, 3])


def test_without_pycocotools_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match=re.escape(command_for_extra("detection"))):
        to_results(make_detection(), 7, [1, 2, 3])
