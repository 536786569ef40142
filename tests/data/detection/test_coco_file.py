import json

import pytest

from halonet.data.detection.coco import CocoImages
from halonet.data.detection.coco_file import distinct_labels
from halonet.errors import UserError, UserNote
from tests.data.detection.coco_samples import (
    HEIGHT,
    MASK_FORMS,
    WIDTH,
    content_of,
    image_entry,
    instance,
    message_for,
    open_content,
    refused,
    write_coco,
)
from tests.data.samples import noise_image


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
        ({"image_id": 9}, "annotation 5 has the image_id 9, but the file lists no such image"),
        ({"category_id": 8}, "annotation 5 has the category_id 8, but the file lists no such category"),
        ({"category_id": None}, "of annotation 5, category_id is missing, but must be of type int"),
        ({"image_id": "one"}, "of annotation 5, image_id is 'one', but must be of type int"),
        ({"image_id": [1]}, "of annotation 5, image_id is [1], but must be of type int"),
        ({"id": 2**60}, "annotation 1152921504606846976 has too large an id: it must be at most 2^53"),
        ({"iscrowd": 2}, "annotation 5 has the iscrowd 2, but it must be 0 or 1"),
        ({"iscrowd": "no"}, "annotation 5 has the iscrowd 'no', but it must be 0 or 1"),
        ({"bbox": None}, "annotation 5 has the bbox None, but it must be four numbers"),
        ({"bbox": [1, 2, "wide", 4]}, "annotation 5 has the bbox [1, 2, 'wide', 4], but it must be four numbers"),
        ({"bbox": [1, 2, 3]}, "annotation 5 has the bbox [1, 2, 3], but it must be four numbers"),
        ({"bbox": [1, 2, True, 4]}, "annotation 5 has the bbox [1, 2, True, 4], but it must be four numbers"),
    ],
)
def test_contradictory_annotation_is_refused(tmp_path, changes, message):
    found = message_for(tmp_path, **changes)
    assert message in found
    assert "instances_train2017.json" in found


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


def test_faults_are_counted_and_three_quoted(tmp_path):
    images = [image_entry(1, file_name="../1.png"), image_entry(2, width=0)]
    annotations = [instance(3, 9), instance(4, 1, category=5), instance(5, 1, bbox=[])]
    assert refused(tmp_path, content_of(annotations, images=images)).endswith(
        "train2017.json: 5 faults: image 1 has the file_name '../1.png', but it must lead to a file below the images' "
        "folder; image 2 has 0 x 9 pixels, but must have from 1 to 89,478,485: scale it down; annotation 3 "
        "has the image_id 9, but the file lists no such image; and 2 more"
    )


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


def test_labels_of_equal_names_are_distinct():
    def label(*owners):
        names = ["eye"] * len(owners)
        return distinct_labels(names, [{"id": 3 + i, "supercategory": owner} for i, owner in enumerate(owners)])

    assert label("left") == ["eye"]
    assert label("left", "right") == ["eye (left)", "eye (right)"]
    assert label("left", "right", "right") == ["eye (left)", "eye (id 4)", "eye (id 5)"]
    assert label(None, None) == ["eye (id 3)", "eye (id 4)"]
    assert distinct_labels(["cat", "dog"], [{"id": 1}, {"id": 2}]) == ["cat", "dog"]
