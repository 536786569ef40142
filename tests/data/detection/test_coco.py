import json
import pickle
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CocoDetection

from halonet.data.detection.coco import (
    CocoImages,
    DetectionSource,
    load_detection_source,
)
from halonet.errors import UserError, UserNote
from halonet.installation import command_for_extra
from tests.data.detection.coco_samples import (
    HEIGHT,
    WIDTH,
    compressed,
    content_of,
    image_entry,
    instance,
    polygon,
    rectangle,
    uncompressed,
    write_coco,
)
from tests.data.samples import noise_image


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


def test_missing_areas_ids_and_crowds_are_filled_in(tmp_path):
    bare = ("bbox", "category_id", "image_id")
    annotations = [
        {key: instance(0, 1)[key] for key in bare} | {"segmentation": MASK_FORMS[form]} for form in MASK_FORMS
    ]
    source = open_content(tmp_path, content_of([*annotations, instance(4, 1)]))
    filled = source.ground_truth["annotations"]
    assert [entry["id"] for entry in filled] == [5, 6, 7, 4]
    assert [entry["area"] for entry in filled] == [25, 25, 25, 25]
    assert all(entry["iscrowd"] == 0 for entry in filled)


def test_source_can_be_pickled(tmp_path):
    source = open_content(tmp_path, content_of([instance(1, 1)]))
    assert torch.equal(pickle.loads(pickle.dumps(source))[0][1]["masks"], source[0][1]["masks"])


def test_other_files_are_refused(tmp_path):
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
        ({"image_id": "one"}, "of annotation 5, image_id is 'one', but must be of type int"),
        ({"image_id": [1]}, "of annotation 5, image_id is [1], but must be of type int"),
        ({"id": 2**60}, "annotation 1152921504606846976 has too large an id: it must be at most 2^53"),
        ({"iscrowd": 2}, "annotation 5 has the iscrowd 2, but must be 0 or 1"),
        ({"iscrowd": "no"}, "annotation 5 has the iscrowd 'no', but must be 0 or 1"),
        ({"bbox": None}, "annotation 5 has the bbox None, but must have four numbers"),
        ({"bbox": [1, 2, "wide", 4]}, "annotation 5 has the bbox [1, 2, 'wide', 4], but must have four numbers"),
        ({"bbox": [1, 2, 3]}, "annotation 5 has the bbox [1, 2, 3], but must have four numbers"),
        ({"bbox": [1, 2, True, 4]}, "annotation 5 has the bbox [1, 2, True, 4], but must have four numbers"),
    ],
)
def test_contradictory_annotation_is_refused(tmp_path, changes, message):
    found = message_for(tmp_path, **changes)
    assert message in found
    assert "instances_train2017.json" in found


FAR = "whose box is not finite or leads too far"
FEW = "whose mask has a polygon that is not x and y of 3 points or more"
LONG = [[0, 0, 2**19, 0] * 3 + [0, 9]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": [1, 2, float("nan"), 4]}, FAR),
        ({"bbox": [1, 2, float("inf"), 4]}, FAR),
        ({"bbox": [1e308, 2, 3, 4]}, FAR),
        ({"bbox": [1, 2, 10**400, 4]}, FAR),
        ({"bbox": [5, 5, -2, 4]}, "whose box has a negative width or height"),
        ({"segmentation": None}, "without a mask"),
        ({"segmentation": []}, "without a mask"),
        ({"segmentation": "x"}, "whose mask is neither polygons nor run lengths"),
        ({"segmentation": {"size": [9, 12], "counts": None}}, "whose mask is neither polygons nor run lengths"),
        ({"segmentation": [[1, 2, 3, 4]]}, FEW),
        ({"segmentation": [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]]}, FEW),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, FEW),
        ({"segmentation": [[1, 2, 3, 4, 5, "x"]]}, "whose mask has a polygon that holds something other than numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, True]]}, "whose mask has a polygon that holds something other than numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, 1e300]]}, "whose mask has a polygon that is not finite or leads too far"),
        ({"segmentation": [[1, 2, 3, 4, 5, 10**400]]}, "whose mask has a polygon that is not finite or leads too far"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "a polygon that is not finite or leads too far"),
        ({"segmentation": LONG}, "whose mask has a polygon that is not finite or leads too far"),
        ({"segmentation": {"size": [12, 9], "counts": [108]}}, "whose mask is not of its image's size"),
        ({"segmentation": {"counts": [108]}}, "whose mask is not of its image's size"),
        *(
            ({"segmentation": {"size": [9, 12], "counts": counts}}, "whose run lengths are damaged or do not add up")
            for counts in ([100], [-2, 110], [54.0, 54], "", "garbage", "é", "o", "~", "0" * 50, "oooooooooo0", "[1")
        ),
    ],
)
def test_unusable_annotation_is_left_out_and_counted(tmp_path, changes, reason):
    entry = {key: value for key, value in (instance(5, 1) | changes).items() if value is not None}
    content = content_of([instance(1, 1), entry, instance(6, 2), entry | {"id": 7}], num_images=2)
    with pytest.warns(UserNote, match=r"2 of 4 annotations are left out: 2 .* \(the first: annotation 5\)") as notes:
        source = open_content(tmp_path, content)
    assert len(notes) == 1
    assert reason in str(notes[0].message)
    assert [each["id"] for each in source.ground_truth["annotations"]] == [1, 6]
    assert [len(target["boxes"]) for _, target in source] == [1, 1]


def test_reasons_are_counted_separately(tmp_path):
    content = content_of(
        [
            instance(1, 1),
            *(instance(number, 1, bbox=[1, 2, 3, float("inf")]) for number in (2, 3)),
            instance(4, 1, segmentation=[[1, 2]]),
        ]
    )
    with pytest.warns(UserNote) as notes:
        open_content(tmp_path, content)
    assert f"3 of 4 annotations are left out: 2 {FAR} (the first: annotation 2), 1 {FEW} (the first: annotation 4)" in (
        str(notes[0].message)
    )


def test_file_without_usable_annotations_is_refused(tmp_path):
    found = refused(tmp_path, content_of([instance(1, 1, bbox=[1, 2, -3, 4])]))
    assert "1 of 1 annotations are left out: 1 whose box has a negative width or height" in found
    assert "no annotation is of use" in found


def test_numbers_written_as_text_are_converted(tmp_path):
    entry = instance("1", "1", category="7", iscrowd="0", bbox=["2", "3", "5.0", "5"])
    content = content_of([entry], images=[image_entry(1, height="9", width=12.0)])
    (tmp_path / "train2017").mkdir()
    noise_image(1, (WIDTH, HEIGHT)).save(tmp_path / "train2017/1.png")
    with pytest.warns(UserNote, match="9 numbers are written as text, and are read as numbers"):
        source = open_content(tmp_path, content)
    plain = instance(1, 1, category=7, iscrowd=0, bbox=[2, 3, 5, 5])
    assert source.ground_truth["annotations"] == [plain]
    assert source[0][1]["boxes"].tolist() == [[2, 3, 7, 8]]


def test_file_of_crowds_gets_a_note(tmp_path):
    content = content_of([instance(number, 1, iscrowd=1) for number in (1, 2)])
    with pytest.warns(UserNote, match=r"2 of 2 annotations are crowds \(iscrowd 1\), which are no objects to learn"):
        assert len(open_content(tmp_path, content)[0][1]["boxes"]) == 0


@pytest.mark.parametrize("area", [float("nan"), float("inf"), -3, "large", True])
def test_invalid_area_is_recomputed(tmp_path, area):
    with pytest.warns(UserNote, match="1 areas are not finite numbers of at least 0, and are counted anew"):
        source = open_content(tmp_path, content_of([instance(1, 1, area=area), instance(2, 1)]))
    assert [entry["area"] for entry in source.ground_truth["annotations"]] == [25, 25]


def test_faults_are_counted_and_three_quoted(tmp_path):
    images = [image_entry(1, file_name="../1.png"), image_entry(2, width=0)]
    annotations = [instance(3, 9), instance(4, 1, category=5), instance(5, 1, bbox=[])]
    assert refused(tmp_path, content_of(annotations, images=images)).endswith(
        "train2017.json: 5 faults: image 1 has the file_name '../1.png', but it must lead to a file below the images' "
        "folder; image 2 has 0 x 9 pixels, but must have from 1 to 89,478,485: scale it down; annotation 3 is "
        "of image 9, which the file does not list; and 2 more"
    )


@pytest.mark.parametrize(
    "name",
    ["../x.png", "a/../../x.png", "..", "/etc/hostname", "C:\\x.png", "c:x.png", "..\\x.png", "\\x.png", "a\0.png", ""],
)
def test_file_name_must_stay_in_the_image_folder(tmp_path, name):
    (tmp_path / "x.png").write_bytes(b"secret")
    content = content_of([instance(1, 1)])
    write_coco(tmp_path, content)
    content["images"][0]["file_name"] = name
    file = tmp_path / "annotations/instances_train2017.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="image 1 has the file_name .* must lead to a file below the images' folder"):
        CocoImages(file, tmp_path / "train2017")


def test_link_to_itself_is_a_missing_image(tmp_path):
    content = content_of([instance(1, 1)], num_images=2)
    folder = write_coco(tmp_path, content) / "train2017"
    (folder / "2.png").unlink()
    (folder / "2.png").symlink_to("2.png")
    with pytest.raises(UserError, match=r"1 of 2 images .* are missing in .*, the first being '2.png'"):
        CocoImages(tmp_path / "annotations/instances_train2017.json", folder)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_links_out_of_the_image_folder_are_refused(tmp_path, linked):
    content = content_of([instance(1, 1)], images=[image_entry(1, file_name="inner/1.png")])
    write_coco(tmp_path, content)
    file, folder, outside = tmp_path / "annotations/instances_train2017.json", tmp_path / "train2017", tmp_path / "out"
    for place in (outside, folder / "real"):
        place.mkdir()
        noise_image(1, (WIDTH, HEIGHT)).save(place / "1.png")
    if linked == "file":
        (folder / "inner").mkdir()
        (folder / "inner/1.png").symlink_to(outside / "1.png")
    else:
        (folder / "inner").symlink_to(outside)
    with pytest.raises(UserError, match="image 1 .* a link that leads out of .*train2017"):
        CocoImages(file, folder)
    # The images' folder itself may be a link, and so may what stays within it.
    (tmp_path / "linked").symlink_to(folder)
    inner = folder / "inner"
    if linked == "file":
        (inner / "1.png").unlink()
        (inner / "1.png").symlink_to(folder / "real/1.png")
    else:
        inner.unlink()
        inner.symlink_to(folder / "real")
    assert len(CocoImages(file, tmp_path / "linked")[0][1]["boxes"]) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 20_000, "height": 20_000}, "image 1 has 20000 x 20000 pixels, but must have from 1 to 89,478,485"),
        ({"width": 10**400}, "pixels, but must have from 1 to 89,478,485"),
        ({"width": 5_000, "height": 4}, "image 1 has 5000 x 4 pixels, which is over 100 to 1: crop it"),
    ],
)
def test_sizes_are_limited_before_allocation(tmp_path, changes, message):
    write_coco(tmp_path, content_of([]))
    file = tmp_path / "annotations/instances_train2017.json"
    file.write_text(json.dumps(content_of([instance(1, 1)], images=[image_entry(1, **changes)])))
    with pytest.raises(UserError, match=message):
        CocoImages(file, tmp_path / "train2017")


def test_masks_of_one_image_are_limited_if_read(tmp_path, monkeypatch):
    write_coco(tmp_path, content_of([]))
    file = tmp_path / "annotations/instances_train2017.json"
    entry = image_entry(1, width=9_000, height=9_000)
    file.write_text(json.dumps(content_of([instance(number, 1) for number in range(200)], images=[entry])))
    with pytest.raises(UserError, match="the masks of image 1 take 15 GiB, but may take 8"):
        CocoImages(file, tmp_path / "train2017")
    assert len(CocoImages(file, tmp_path / "train2017", masks=False)) == 1
    monkeypatch.setattr("halonet.data.detection.coco_file.INSTANCE_LIMIT", 100)
    with pytest.raises(UserError, match="image 1 has 200 annotations, but may have 100"):
        CocoImages(file, tmp_path / "train2017", masks=False)
    monkeypatch.setattr("halonet.data.detection.coco_file.FILE_LIMIT", 100)
    with pytest.raises(UserError, match="bytes, but may have 100: split the data"):
        CocoImages(file, tmp_path / "train2017")


def boxes_alone(content):
    """The same as Roboflow writes it for boxes."""
    return content | {"annotations": [entry | {"segmentation": []} for entry in content["annotations"]]}


@pytest.mark.filterwarnings("ignore::halonet.errors.UserNote")
def test_file_of_boxes_has_no_masks(tmp_path):
    source = open_content(tmp_path, boxes_alone(content_of([instance(1, 1, area=float("nan")), instance(2, 1)])))
    assert not source.has_masks
    assert "masks" not in source[0][1]
    assert source[0][1]["boxes"].tolist() == [[2, 3, 7, 8]] * 2
    assert source.ground_truth["annotations"][0]["area"] == 25
    with pytest.raises(UserError, match="no annotation has a mask, .* train one of boxes with --model.masks false"):
        open_content(tmp_path, boxes_alone(content_of([instance(1, 1)])), masks=True)


def test_unused_masks_are_not_checked(tmp_path):
    content = content_of([instance(1, 1, segmentation="x"), instance(2, 1)])
    source = open_content(tmp_path, content, masks=False)
    assert len(source[0][1]["boxes"]) == 2
    assert "masks" not in source[0][1]


def test_annotations_without_mask_are_left_out_with_a_remedy(tmp_path):
    content = content_of([instance(1, 1), instance(2, 1, segmentation=[])])
    with pytest.warns(UserNote, match="1 without a mask .*--model.masks false learns boxes alone"):
        source = open_content(tmp_path, content)
    assert source.has_masks
    assert source.without_mask == 1


ROBOFLOW = [{"id": 0, "name": "pets", "supercategory": "none"}] + [
    {"id": number, "name": name, "supercategory": "pets"} for number, name in ((1, "cat"), (2, "dog"))
]


def test_outer_category_is_not_a_class(tmp_path):
    content = content_of([instance(1, 1, category=2)], categories=ROBOFLOW)
    with pytest.warns(UserNote, match=r"category 0 \('pets'\) stands for all others: it is no class"):
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


def test_duplicate_ids_and_missing_fields_are_named(tmp_path):
    twice = [instance(4, 1), instance(4, 1)]
    assert "two annotation entries have the id 4" in refused(tmp_path, content_of(twice))
    content = content_of([instance(1, 1)])
    for changes, message in (
        ({"images": [image_entry(1), image_entry(1)]}, "two image entries have the id 1"),
        ({"categories": [{"id": 7, "name": "ant"}] * 2}, "two category entries have the id 7"),
        ({"categories": [{"id": 7}]}, "of category 7, name is missing"),
        ({"images": [image_entry(1, height="nine")]}, "of image 1, height is 'nine', but must be of type int"),
        ({"annotations": [None]}, "annotation number 1 is None, but must be an object"),
    ):
        assert message in refused(tmp_path, content | changes)


def test_missing_images_are_counted_and_the_first_named(tmp_path):
    content = content_of([], num_images=4)
    write_coco(tmp_path, content)
    for number in (2, 3):
        (tmp_path / f"train2017/{number}.png").unlink()
    file = tmp_path / "annotations/instances_train2017.json"
    with pytest.raises(UserError, match=r"2 of 4 images of .* are missing in .*train2017, the first being '2\.png'"):
        CocoImages(file, tmp_path / "train2017")
    with pytest.raises(UserError, match=r"image folder .*nowhere of .*json does not exist"):
        CocoImages(file, tmp_path / "nowhere")


def test_file_name_may_contain_a_subfolder(tmp_path):
    write_coco(tmp_path, content_of([instance(1, 1)]))
    content = content_of([instance(1, 1)], images=[image_entry(1, file_name="train2017/1.png")])
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(content))
    assert len(CocoImages(tmp_path / "annotations/instances_train2017.json", tmp_path)[0][1]["boxes"]) == 1


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
