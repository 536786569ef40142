import json
import pickle
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_tools
from torchvision.datasets import CocoDetection

from halonet.data.coco import (
    CocoImages,
    DetectionSource,
    available_detection_splits,
    load_detection_source,
)
from halonet.errors import UserError, UserNote
from halonet.installation import command_for_extra
from tests.data.samples import noise_image

WIDTH, HEIGHT = 12, 9


def rectangle(left, top, right, bottom):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def polygon(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def uncompressed(mask):
    # Columns one after another; the first run is of zeros, if need be of none.
    pixels = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff([0, *ends, len(pixels)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if pixels[0] else runs}


def compressed(mask):
    run_lengths = mask_tools.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": run_lengths["counts"].decode()}


def image_entry(number, **changes):
    return {"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT} | changes


def instance(number, image, box=(2, 3, 7, 8), category=7, **changes):
    """An annotation with a rectangle for a mask; `box` is x0, y0, x1, y1."""
    left, top, right, bottom = box
    entry = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0}
    entry |= {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
    return entry | {"segmentation": polygon(*box)} | changes


def content_of(annotations, num_images=1, **changes):
    categories = [{"id": 90, "name": "zebra"}, {"id": 7, "name": "ant"}]
    images = [image_entry(number) for number in range(num_images, 0, -1)]
    return {"images": images, "annotations": annotations, "categories": categories} | changes


def write_coco(folder, content, name="train2017", images="train2017"):
    """Write a data set in COCO's layout: noise of which the seed is the image's id."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / images).mkdir(parents=True, exist_ok=True)
    for entry in content["images"]:
        noise_image(entry["id"], (WIDTH, HEIGHT)).save(folder / images / f"{entry['id']}.png")
    (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
    return folder


def open_content(folder, content, **options):
    write_coco(folder, content)
    return CocoImages(folder / "annotations/instances_train2017.json", folder / "train2017", **options)


def refused(folder, content):
    """The message of the one error of opening this content and reading all of its images."""
    with pytest.raises(UserError) as error:
        list(open_content(folder, content))
    message = str(error.value)
    assert "\n" not in message
    return message


def message_for(folder, **changes):
    """The message for one sound annotation with these changes; None takes a field away."""
    entry = instance(5, 1) | changes
    return refused(folder, content_of([{key: value for key, value in entry.items() if value is not None}]))


MASK_FORMS = {
    "polygon": polygon(2, 3, 7, 8),
    "uncompressed": uncompressed(rectangle(2, 3, 7, 8)),
    "compressed": compressed(rectangle(2, 3, 7, 8)),
}


@pytest.mark.parametrize("form", MASK_FORMS)
def test_a_mask_is_read_in_each_form(tmp_path, form):
    source = open_content(tmp_path, content_of([instance(1, 1, segmentation=MASK_FORMS[form])]))
    image, target = source[0]
    assert (image.mode, image.size) == ("RGB", (WIDTH, HEIGHT))
    assert target["masks"].dtype == torch.uint8
    assert np.array_equal(target["masks"].numpy(), [rectangle(2, 3, 7, 8)])
    assert target["boxes"].dtype == torch.float32
    assert target["boxes"].tolist() == [[2, 3, 7, 8]]
    assert target["labels"].dtype == torch.int64
    assert target["image_id"] == 1


def test_a_mask_that_covers_the_first_pixel_is_read_from_run_lengths(tmp_path):
    masks = [np.ones((HEIGHT, WIDTH), np.uint8), rectangle(0, 0, 4, 2)]
    forms = [form(mask) for mask in masks for form in (uncompressed, compressed)]
    source = open_content(tmp_path, content_of([instance(i, 1, segmentation=m) for i, m in enumerate(forms)]))
    assert np.array_equal(source[0][1]["masks"].numpy(), [masks[0], masks[0], masks[1], masks[1]])


def test_random_compressed_masks_are_what_they_were_made_of(tmp_path):
    generator = np.random.default_rng(0)
    masks = [(generator.random((HEIGHT, WIDTH)) < generator.random()).astype(np.uint8) for _ in range(50)]
    masks = [mask for mask in masks if mask.any()]
    source = open_content(
        tmp_path, content_of([instance(i, 1, segmentation=compressed(m)) for i, m in enumerate(masks)])
    )
    assert np.array_equal(source[0][1]["masks"].numpy(), masks)


def test_labels_follow_the_category_ids_and_images_their_ids(tmp_path):
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


def test_the_ground_truth_is_what_pycocotools_takes(tmp_path):
    annotations = [instance(1, 1), instance(2, 1, iscrowd=1)]
    source = open_content(tmp_path, content_of(annotations, num_images=2))
    assert source.ground_truth["annotations"] == annotations
    assert [entry["id"] for entry in source.ground_truth["images"]] == source.image_ids == [1, 2]
    assert [entry["id"] for entry in source.ground_truth["categories"]] == source.category_ids


def test_a_crowd_is_no_target_but_ground_truth(tmp_path):
    source = open_content(tmp_path, content_of([instance(1, 1, iscrowd=1), instance(2, 1, category=90)]))
    assert source[0][1]["labels"].tolist() == [2]
    assert len(source.ground_truth["annotations"]) == 2


def test_boxes_are_clipped_and_those_without_area_counted_in_one_note(tmp_path):
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


def test_a_mask_without_a_pixel_is_no_target(tmp_path):
    annotations = [instance(1, 1, segmentation=compressed(rectangle(0, 0, 0, 0))), instance(2, 1, category=90)]
    target = open_content(tmp_path, content_of(annotations))[0][1]
    assert target["labels"].tolist() == [2]
    assert target["masks"].shape == (1, HEIGHT, WIDTH)
    assert target["boxes"].shape == (1, 4)


def test_images_without_an_instance_are_left_out_for_training_alone(tmp_path):
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


def test_areas_ids_and_crowds_that_are_missing_are_filled_in(tmp_path):
    bare = ("bbox", "category_id", "image_id")
    annotations = [
        {key: instance(0, 1)[key] for key in bare} | {"segmentation": MASK_FORMS[form]} for form in MASK_FORMS
    ]
    source = open_content(tmp_path, content_of([*annotations, instance(4, 1)]))
    filled = source.ground_truth["annotations"]
    assert [entry["id"] for entry in filled] == [5, 6, 7, 4]
    assert [entry["area"] for entry in filled] == [25, 25, 25, 25]
    assert all(entry["iscrowd"] == 0 for entry in filled)


def test_a_source_travels_to_a_worker(tmp_path):
    source = open_content(tmp_path, content_of([instance(1, 1)]))
    assert torch.equal(pickle.loads(pickle.dumps(source))[0][1]["masks"], source[0][1]["masks"])


def test_what_is_not_an_annotation_file_is_refused(tmp_path):
    file = tmp_path / "annotations/instances_train2017.json"
    write_coco(tmp_path, content_of([]))
    cases = {
        "{": "is not JSON",
        '{"images": "é': "is not JSON",
        "[]": "not in COCO's format for instances: it lacks the list images and annotations and categories",
        '{"images": [], "categories": []}': "it lacks the list annotations",
        '{"images": [], "annotations": [], "categories": []}': "lists no images and no categories",
    }
    for text, message in cases.items():
        file.write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match=message) as error:
            CocoImages(file, tmp_path / "train2017")
        assert str(file) in str(error.value)
    with pytest.raises(UserError, match=r"annotation file .*none\.json cannot be read: No such file"):
        CocoImages(tmp_path / "none.json", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 9}, "annotation 5 is of image 9, which the file does not list"),
        ({"category_id": 8}, "annotation 5 is of category 8, which the file does not list"),
        ({"category_id": None}, "of annotation 5, category_id is missing, but must be of type int"),
        ({"image_id": "1"}, "of annotation 5, image_id is '1', but must be of type int"),
        ({"bbox": None}, "annotation 5 has the bbox None, but must have four numbers"),
        ({"bbox": [1, 2, "3", 4]}, "annotation 5 has the bbox [1, 2, '3', 4], but must have four numbers"),
        ({"bbox": [1, 2, 3]}, "annotation 5 has the bbox [1, 2, 3], but must have four numbers"),
        ({"bbox": [1, 2, float("nan"), 4]}, "annotation 5 has the bbox [1, 2, nan, 4], but must have four numbers"),
        ({"segmentation": None}, "annotation 5 has no segmentation: instance segmentation needs masks"),
        ({"segmentation": []}, "annotation 5 has no segmentation: instance segmentation needs masks"),
        ({"segmentation": "x"}, "annotation 5 has the segmentation 'x', but must have polygons or run lengths"),
        ({"segmentation": [[1, 2, 3, 4]]}, "annotation 5 has a polygon of 4 numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]]}, "annotation 5 has a polygon of 7 numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, "x"]]}, "the mask of annotation 5 is damaged"),
        ({"segmentation": [[1, 2, 3, 4, 5, 1e300]]}, "the mask of annotation 5 is damaged"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "the mask of annotation 5 is damaged"),
        ({"segmentation": {"size": [12, 9], "counts": [108]}}, "has a mask of size [12, 9], but its image has [9, 12]"),
        ({"segmentation": {"size": [9, 12], "counts": [100]}}, "do not add up to the 108 pixels of its image"),
        ({"segmentation": {"size": [9, 12], "counts": [-2, 110]}}, "has run lengths that are not numbers of pixels"),
        ({"segmentation": {"size": [9, 12], "counts": ""}}, "the mask of annotation 5 is damaged: its run lengths do"),
        ({"segmentation": {"size": [9, 12], "counts": "garbage"}}, "the mask of annotation 5 is damaged"),
        ({"segmentation": {"size": [9, 12], "counts": "é"}}, "the mask of annotation 5 is damaged: 'é' is no digit"),
        (
            {"segmentation": {"size": [9, 12], "counts": "o"}},
            "the mask of annotation 5 is damaged: its run lengths are",
        ),
    ],
)
def test_a_faulty_annotation_is_named(tmp_path, changes, message):
    found = message_for(tmp_path, **changes)
    assert message in found
    assert "instances_train2017.json" in found


def test_a_faulty_mask_is_also_found_while_its_area_is_measured(tmp_path):
    assert "the mask of annotation 5 is damaged" in message_for(
        tmp_path, area=None, iscrowd=1, segmentation={"size": [9, 12], "counts": "garbage"}
    )


def test_ids_that_occur_twice_and_entries_without_their_fields_are_named(tmp_path):
    twice = [instance(4, 1), instance(4, 1)]
    assert "two annotation entries have the id 4" in refused(tmp_path, content_of(twice))
    content = content_of([instance(1, 1)])
    for changes, message in (
        ({"images": [image_entry(1), image_entry(1)]}, "two image entries have the id 1"),
        ({"categories": [{"id": 7, "name": "ant"}] * 2}, "two category entries have the id 7"),
        ({"categories": [{"id": 7}]}, "of category 7, name is missing"),
        ({"images": [image_entry(1, height="9")]}, "of image 1, height is '9', but must be of type int"),
        ({"annotations": [None]}, "annotation number 1 is None, but must be an object"),
    ):
        assert message in refused(tmp_path, content | changes)


def test_missing_image_files_are_counted_and_the_first_named(tmp_path):
    content = content_of([], num_images=4)
    write_coco(tmp_path, content)
    for number in (2, 3):
        (tmp_path / f"train2017/{number}.png").unlink()
    file = tmp_path / "annotations/instances_train2017.json"
    with pytest.raises(UserError, match=r"2 of 4 images of .* are missing in .*train2017, the first being 2\.png"):
        CocoImages(file, tmp_path / "train2017")
    with pytest.raises(UserError, match=r"image folder .*nowhere of .*json does not exist"):
        CocoImages(file, tmp_path / "nowhere")


def test_a_file_name_may_lead_into_a_subfolder(tmp_path):
    write_coco(tmp_path, content_of([instance(1, 1)]))
    content = content_of([instance(1, 1)], images=[image_entry(1, file_name="train2017/1.png")])
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(content))
    assert len(CocoImages(tmp_path / "annotations/instances_train2017.json", tmp_path)[0][1]["boxes"]) == 1


def test_an_image_of_another_size_is_refused_when_read(tmp_path):
    source = open_content(tmp_path, content_of([instance(1, 1)]))
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    noise_image(1, (WIDTH, HEIGHT)).save(tmp_path / "train2017/1.png", exif=turned)
    with pytest.raises(UserError, match=r"1\.png has 9 x 12 pixels, but .* says 12 x 9 \(image 1\).* EXIF orientation"):
        source[0]


def test_without_pycocotools_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match=re.escape(f"needs pycocotools: {command_for_extra('detection')}")):
        open_content(tmp_path, content_of([instance(1, 1)]))


def test_coco_s_own_layout_is_found(tmp_path):
    write_coco(tmp_path, content_of([instance(1, 1)], num_images=2))
    write_coco(tmp_path, content_of([instance(1, 1)]), name="val2017", images="images/val2017")
    (tmp_path / "annotations/instances_unlabeled2017.json").write_text("{}")
    assert available_detection_splits(str(tmp_path)) == ("train", "validation")
    assert len(load_detection_source(str(tmp_path), "train")) == 2
    assert len(load_detection_source(str(tmp_path), "train", skip_empty=True)) == 1
    assert len(load_detection_source(tmp_path.name, "validation", root=tmp_path.parent)) == 1
    with pytest.raises(UserError, match=r"unknown split of data set .* 'test'\. .*Known: train, validation\."):
        load_detection_source(str(tmp_path), "test")


def test_roboflow_s_layout_is_found(tmp_path):
    for name in ("train", "valid", "test"):
        write_coco(tmp_path, content_of([instance(0, 1)]), images=name)
        (tmp_path / "annotations/instances_train2017.json").rename(tmp_path / name / "_annotations.coco.json")
    assert available_detection_splits(str(tmp_path)) == ("train", "validation", "test")
    for split in ("train", "validation", "test"):
        assert load_detection_source(str(tmp_path), split)[0][1]["boxes"].tolist() == [[2, 3, 7, 8]]


def test_a_split_without_its_images_leaves_the_others_usable(tmp_path):
    write_coco(tmp_path, content_of([instance(1, 1)]), name="val2017", images="val2017")
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(content_of([instance(1, 1)])))
    assert len(load_detection_source(str(tmp_path), "validation")) == 1
    with pytest.raises(UserError, match="image folder .*train2017 of .* does not exist"):
        load_detection_source(str(tmp_path), "train")


def test_a_split_of_which_there_are_two_is_refused(tmp_path):
    for year in (2014, 2017):
        write_coco(tmp_path, content_of([]), name=f"train{year}", images=f"train{year}")
    with pytest.raises(UserError, match=r"more than one train split: keep one of .*train2014\.json, .*train2017\.json"):
        available_detection_splits(str(tmp_path))


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 7, "name": "ant"}, {"id": 90, "name": "Zebra"}], "category 90 is 'Zebra' in the one and 'zebra'"),
        ([{"id": 7, "name": "ant"}], "category 90 is 'missing' in the one and 'zebra' in the other"),
    ],
)
def test_splits_must_have_the_training_set_s_categories(tmp_path, categories, message):
    write_coco(tmp_path, content_of([instance(1, 1)]))
    other = content_of([instance(1, 1)], categories=categories)
    write_coco(tmp_path, other, name="val2017", images="val2017")
    with pytest.raises(
        UserError, match=f"val2017.json and .*train2017.json must have the same categories, .*{message}"
    ):
        load_detection_source(str(tmp_path), "validation")


def test_data_that_does_not_exist_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for data, message in (
        ("nucleus", r"data folder .*nucleus does not exist\. unknown data set 'nucleus'. Did you mean 'nuclei'\?"),
        ("some/where", r"data folder .*some/where does not exist\.$"),
        ("file", "file is a file: give the folder of annotations/instances_NAME.json beside"),
        ("empty", "empty holds no detection data: expected annotations/instances_NAME.json beside"),
    ):
        with pytest.raises(UserError, match=message):
            available_detection_splits(data, root=tmp_path)
