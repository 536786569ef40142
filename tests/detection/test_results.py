import json
import re
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as run_lengths
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection.roi_heads import paste_masks_in_image

from halonet.detection.results import Masks, encode, to_results
from halonet.errors import UserError
from halonet.installation import command_for_extra

HEIGHT, WIDTH = 40, 60
SIZE = (HEIGHT, WIDTH)


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor."""

    pixels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else [made]:
            if isinstance(each, Tensor):
                self.pixels = max(self.pixels, each.numel())
        return made


def make_detection(count: int = 5) -> dict[str, Tensor]:
    """Make detections with boxes over the borders too, one covering the image; masks of 28 x 28."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 4, generator=generator) * torch.tensor([50, 30, 30, 20])
    corners[:, 2:] += corners[:, :2]
    if count:
        corners[0] = torch.tensor([0, 0, WIDTH, HEIGHT])
    return {
        "boxes": corners,
        "labels": torch.arange(count) % 3 + 1,
        "scores": torch.rand(count, generator=generator),
        "masks": torch.rand(count, 1, 28, 28, generator=generator),
    }


# pycocotools' decoder does not know of a keyword that NumPy 2 passes.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_run_lengths_match_torchvisions_masks():
    detection = make_detection(40)
    detection["masks"][1:4] += 1  # one piece each
    results = to_results(detection, 7, [1, 2, 3], size=SIZE)
    read = np.stack([run_lengths.decode(result["segmentation"]) for result in results])
    pasted = paste_masks_in_image(detection["masks"], detection["boxes"], SIZE)[:, 0] > 0.5
    np.testing.assert_array_equal(read, pasted.numpy())
    # They must also be what pycocotools writes.
    for result, mask in zip(results, pasted.byte().numpy(), strict=True):
        written = run_lengths.encode(np.asfortranarray(mask))
        assert result["segmentation"] == {"size": [HEIGHT, WIDTH], "counts": written["counts"].decode()}
    np.testing.assert_array_equal(np.stack(list(Masks(results))), read.astype(bool))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("inside", ["everything", "nothing", "whole columns", "a corner"])
def test_edge_case_masks_match_pycocotools(inside):
    mask = np.zeros((5, 4), bool)
    mask[
        {"everything": np.s_[:], "nothing": np.s_[:0], "whole columns": np.s_[:, 1:3], "a corner": np.s_[4:, 3:]}[
            inside
        ]
    ] = 1
    written = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode(mask, 0, 0, 5, 4)["counts"] == written["counts"].decode()
    shifted = np.zeros((8, 9), np.uint8)
    shifted[2:7, 3:7] = mask
    assert encode(mask, 3, 2, 8, 9)["counts"] == run_lengths.encode(np.asfortranarray(shifted))["counts"].decode()


def test_a_large_photo_takes_the_memory_of_one_mask():
    detection = make_detection(30)
    detection["boxes"] = torch.tensor([[0.0, 0.0, 1500.0, 1000.0]]).repeat(30, 1)
    tracemalloc.start()
    with LargestTensor() as largest:
        results = to_results(detection, 7, [1, 2, 3], size=(1000, 1500))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(results) == 30
    assert largest.pixels < 2 * 1000 * 1500  # of 45 million
    assert peak < 10 * 1000 * 1500  # bytes, NumPy's


def test_a_mask_ends_at_the_threshold():
    detection = make_detection(1)
    detection["masks"] = torch.full((1, 1, 28, 28), 0.7)
    areas = [
        run_lengths.area(to_results(detection, 7, [1], threshold, size=SIZE)[0]["segmentation"])
        for threshold in (0.1, 0.5, 0.8)
    ]
    assert areas[0] > areas[1] > 0 == areas[2]


def test_detections_without_masks_have_boxes_alone():
    detection = make_detection()
    del detection["masks"]
    results = to_results(detection, 7, [1, 2, 3], size=SIZE)
    assert [set(result) for result in results] == [{"image_id", "category_id", "bbox", "score"}] * 5


def test_boxes_are_not_rounded():
    detection = make_detection()
    for result, box in zip(to_results(detection, 7, [1, 2, 3], size=SIZE), detection["boxes"].tolist(), strict=True):
        x, y, width, height = result["bbox"]
        assert [x, y] == box[:2]
        # The difference of two float32 is exact in float64, so that adding it gives the corner again.
        assert [x + width, y + height] == box[2:]


def test_the_detection_is_unchanged():
    detection = make_detection()
    before = {name: tensor.clone() for name, tensor in detection.items()}
    detection["boxes"] = detection["boxes"].double()
    to_results(detection, 7, [1, 2, 3], size=SIZE)
    assert torch.equal(detection["boxes"].float(), before["boxes"])


def test_labels_become_category_ids():
    results = to_results(make_detection(), 7, [18, 44, 90], size=SIZE)
    assert [result["category_id"] for result in results] == [18, 44, 90, 18, 44]
    assert {result["image_id"] for result in results} == {7}


def test_results_are_plain_numbers_that_json_keeps():
    detection = make_detection()
    results = to_results(detection, 7, [1, 2, 3], size=SIZE)
    assert json.loads(json.dumps(results)) == results
    assert [result["score"] for result in results] == detection["scores"].tolist()


def test_an_image_without_detections_has_no_results():
    assert to_results(make_detection(0), 7, [1, 2, 3], size=SIZE) == []


@pytest.mark.parametrize("label", [0, 4])
def test_a_label_without_a_category_is_refused(label: int):
    detection = make_detection()
    detection["labels"][2] = label
    with pytest.raises(UserError, match=f"found label {label}, but there are 3 categories"):
        to_results(detection, 7, [1, 2, 3], size=SIZE)


def test_without_pycocotools_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match=re.escape(command_for_extra("detection"))):
        to_results(make_detection(), 7, [1, 2, 3], size=SIZE)
