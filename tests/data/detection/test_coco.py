import pickle
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CocoDetection

from halonet.data.detection.coco import DetectionSource, load_detection_source
from halonet.errors import UserError, UserNote
from halonet.installation import command_for_extra
from tests.data.detection.coco_samples import (
    HEIGHT,
    MASK_FORMS,
    WIDTH,
    compressed,
    content_of,
    instance,
    open_content,
    polygon,
    rectangle,
    uncompressed,
    write_coco,
)
from tests.data.samples import noise_image


@pytest.mark.parametrize("form", MASK_FORMS)
def test_mask_is_read_in_each_form(tmp_path, form):
    source = open_content(tmp_path, content_of([instance(1, 1, segmentation=MASK_FORMS[form])]))
    image, target = source[0]
    assert (image.mode, image.size) == ("RGB", (WIDTH, HEIGHT))
    assert target["masks"].dtype == torch.uint8
    assert np.array_equal(target["masks"].numpy(), [rectangle(2, 3, 7, 8)])
    assert target["boxes"].dtype == torch.float32
    assert target["boxes"].tolist() == [[2, 3, 7, 8]]
    assert target["labels"].dtype == torch.int64
    assert target["image_id"] == 1


def test_mask_may_start_at_the_first_pixel(tmp_path):
    masks = [np.ones((HEIGHT, WIDTH), np.uint8), rectangle(0, 0, 4, 2)]
    forms = [form(mask) for mask in masks for form in (uncompressed, compressed)]
    source = open_content(tmp_path, content_of([instance(i, 1, segmentation=m) for i, m in enumerate(forms)]))
    assert np.array_equal(source[0][1]["masks"].numpy(), [masks[0], masks[0], masks[1], masks[1]])


def test_compressed_masks_round_trip(tmp_path):
    generator = np.random.default_rng(0)
    masks = [(generator.random((HEIGHT, WIDTH)) < generator.random()).astype(np.uint8) for _ in range(50)]
    masks = [mask for mask in masks if mask.any()]
    source = open_content(
        tmp_path, content_of([instance(i, 1, segmentation=compressed(m)) for i, m in enumerate(masks)])
    )
    assert np.array_equal(source[0][1]["masks"].numpy(), masks)


def test_labels_and_images_are_ordered_by_id(tmp_path):
    annotations = [instance(1, 2, category=90), instance(2, 1), instance(3, 2)]
    source = open_content(tmp_path, content_of(annotations, num_images=2))
    assert isinstance(source, DetectionSource)
    assert source.category_ids == [7, 90]
    assert source.class_names == ["ant", "zebra"]
    assert source.image_ids == [1, 2]
    assert source[0][1]["labels"].tolist() == [1]
    assert source[1][1]["labels"].tolist() == [2, 1]
    assert np.array_equal(source[1][0], noise_image(2, (WIDTH, HEIGHT)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pycocotools' decoder, by NumPy
def test_torchvision_reads_the_same_instances(tmp_path):
    annotations = [
        instance(1, 1, (0, 0, 5, 4)),
        instance(2, 1, (2.5, 1.25, 11.5, 8), category=90),
        instance(3, 2, segmentation=[*polygon(2, 3, 4, 5), *polygon(5, 5, 7, 8)]),
        instance(4, 2, segmentation=MASK_FORMS["uncompressed"]),
        instance(5, 2, segmentation=MASK_FORMS["uncompressed"], iscrowd=1),
    ]
    source = open_content(tmp_path, content_of(annotations, num_images=3))
    reference = CocoDetection(tmp_path / "train2017", tmp_path / "annotations/instances_train2017.json")
    assert source.image_ids == reference.ids
    for (image, target), (expected_image, entries) in zip(source, reference, strict=True):
        instances = [entry for entry in entries if not entry["iscrowd"]]
        assert np.array_equal(image, expected_image)
        assert len(target["masks"]) == len(instances)
        for mask, box, label, entry in zip(target["masks"], target["boxes"], target["labels"], instances, strict=True):
            assert np.array_equal(mask, reference.coco.annToMask(entry))
            x, y, width, height = entry["bbox"]
            assert box.tolist() == [x, y, x + width, y + height]
            assert source.category_ids[label - 1] == entry["category_id"]


def test_pycocotools_accepts_the_ground_truth(tmp_path):
    annotations = [instance(1, 1), instance(2, 1, iscrowd=1)]
    source = open_content(tmp_path, content_of(annotations, num_images=2))
    assert source.ground_truth["annotations"] == annotations
    assert [entry["id"] for entry in source.ground_truth["images"]] == source.image_ids == [1, 2]
    assert [entry["id"] for entry in source.ground_truth["categories"]] == source.category_ids


def test_crowd_is_only_ground_truth(tmp_path):
    source = open_content(tmp_path, content_of([instance(1, 1, iscrowd=1), instance(2, 1, category=90)]))
    assert source[0][1]["labels"].tolist() == [2]
    assert len(source.ground_truth["annotations"]) == 2


def test_boxes_are_clipped_and_empty_ones_counted(tmp_path):
    annotations = [
        instance(1, 1, (-3, -2, 4, 4)),
        instance(2, 1, (8, 5, 20, 30)),
        instance(3, 1, (4, 4, 4, 8)),
        instance(4, 1, (12, 0, 15, 5)),
    ]
    with pytest.warns(UserNote, match=r"2 of 4 annotations .* \(the first: annotation 3\)") as notes:
        source = open_content(tmp_path, content_of(annotations))
    assert len(notes) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        target = source[0][1]
    assert target["boxes"].tolist() == [[0, 0, 4, 4], [8, 5, 12, 9]]
    assert np.array_equal(target["masks"].numpy(), [rectangle(0, 0, 4, 4), rectangle(8, 5, 12, 9)])
    assert len(source.ground_truth["annotations"]) == 4
    assert source.ground_truth["annotations"][0]["bbox"] == [-3, -2, 7, 6]


def test_mask_without_pixels_is_not_a_target(tmp_path):
    annotations = [instance(1, 1, segmentation=compressed(rectangle(0, 0, 0, 0))), instance(2, 1, category=90)]
    target = open_content(tmp_path, content_of(annotations))[0][1]
    assert target["labels"].tolist() == [2]
    assert target["masks"].shape == (1, HEIGHT, WIDTH)
    assert target["boxes"].shape == (1, 4)


@pytest.mark.filterwarnings("ignore:.*are crowds")
def test_skip_empty_leaves_out_images_without_instances(tmp_path):
    annotations = [instance(1, 1), instance(2, 2, iscrowd=1)]
    content = content_of(annotations, num_images=3)
    every = open_content(tmp_path, content)
    assert every.image_ids == [1, 2, 3]
    assert every[2][1]["boxes"].shape == (0, 4)
    assert every[2][1]["masks"].shape == (0, HEIGHT, WIDTH)
    some = open_content(tmp_path, content, skip_empty=True)
    assert (some.image_ids, len(some)) == ([1], 1)
    assert [entry["id"] for entry in some.ground_truth["annotations"]] == [1]
    with pytest.raises(UserError, match="no image with an instance to learn from"):
        open_content(tmp_path, content_of([instance(2, 1, iscrowd=1)]), skip_empty=True)


def test_source_can_be_pickled(tmp_path):
    source = open_content(tmp_path, content_of([instance(1, 1)]))
    assert torch.equal(pickle.loads(pickle.dumps(source))[0][1]["masks"], source[0][1]["masks"])


ROBOFLOW = [{"id": 0, "name": "pets", "supercategory": "none"}] + [
    {"id": number, "name": name, "supercategory": "pets"} for number, name in ((1, "cat"), (2, "dog"))
]


def test_outer_category_is_not_a_class(tmp_path):
    content = content_of([instance(1, 1, category=2)], categories=ROBOFLOW)
    with pytest.warns(UserNote, match=r"category 0 \('pets'\) is the supercategory of all others: it is not a class"):
        source = open_content(tmp_path, content)
    assert source.class_names == ["cat", "dog"]
    assert source[0][1]["labels"].tolist() == [2]
    used = open_content(tmp_path, content_of([instance(1, 1, category=0)], categories=ROBOFLOW))
    assert used.class_names == ["pets", "cat", "dog"]
    other = [ROBOFLOW[0], ROBOFLOW[1], ROBOFLOW[2] | {"supercategory": "animals"}]
    assert len(open_content(tmp_path, content_of([instance(1, 1, category=1)], categories=other)).class_names) == 3


@pytest.mark.filterwarnings("ignore::halonet.errors.UserNote")
def test_training_set_decides_on_the_outer_category(tmp_path):
    def write(**splits):
        for name, category in splits.items():
            content = content_of([instance(1, 1, category=category)], categories=ROBOFLOW)
            write_coco(tmp_path, content, name, name)
        return load_detection_source(str(tmp_path), "validation").class_names

    assert write(train=1, val=1) == ["cat", "dog"]
    assert write(train=0, val=1) == ["pets", "cat", "dog"]
    with pytest.raises(UserError, match="category 0 is 'pets' in the one and 'missing' in the other"):
        write(train=1, val=0)


def test_categories_may_share_a_name(tmp_path):
    categories = [{"id": 1, "name": "eye", "supercategory": "left"}, {"id": 2, "name": "eye", "supercategory": "right"}]
    annotations = [instance(1, 1, category=1), instance(2, 1, category=2)]
    source = open_content(tmp_path, content_of(annotations, categories=categories))
    assert source.class_names == ["eye", "eye"]
    assert source[0][1]["labels"].tolist() == [1, 2]


def test_image_of_another_size_is_refused(tmp_path):
    source = open_content(tmp_path, content_of([instance(1, 1)]))
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    noise_image(1, (WIDTH, HEIGHT)).save(tmp_path / "train2017/1.png", exif=turned)
    with pytest.raises(UserError, match=r"1\.png has 9 x 12 pixels, but .* says 12 x 9 \(image 1\).* EXIF orientation"):
        source[0]


def test_missing_pycocotools_message_has_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match=re.escape(f"needs pycocotools: {command_for_extra('detection')}")):
        open_content(tmp_path, content_of([instance(1, 1)]))


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 7, "name": "ant"}, {"id": 90, "name": "Zebra"}], "category 90 is 'Zebra' in the one and 'zebra'"),
        ([{"id": 7, "name": "ant"}], "category 90 is 'missing' in the one and 'zebra' in the other"),
    ],
)
def test_splits_must_share_categories(tmp_path, categories, message):
    write_coco(tmp_path, content_of([instance(1, 1)]))
    other = content_of([instance(1, 1)], categories=categories)
    write_coco(tmp_path, other, name="val2017", images="val2017")
    with pytest.raises(
        UserError, match=f"val2017.json and .*train2017.json must have the same categories, .*{message}"
    ):
        load_detection_source(str(tmp_path), "validation")
