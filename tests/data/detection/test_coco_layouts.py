import json

import pytest

from halonet.data.detection.coco import available_detection_splits, load_detection_source
from halonet.errors import UserError
from tests.data.detection.coco_samples import HEIGHT, WIDTH, content_of, image_entry, instance, write_coco
from tests.data.samples import noise_image


def test_coco_layout_is_found(tmp_path):
    write_coco(tmp_path, content_of([instance(1, 1)], num_images=2))
    write_coco(tmp_path, content_of([instance(1, 1)]), name="val2017", images="images/val2017")
    (tmp_path / "annotations/instances_unlabeled2017.json").write_text("{}")
    assert available_detection_splits(str(tmp_path)) == ("train", "validation")
    assert len(load_detection_source(str(tmp_path), "train")) == 2
    assert len(load_detection_source(str(tmp_path), "train", skip_empty=True)) == 1
    assert len(load_detection_source(tmp_path.name, "validation", root=tmp_path.parent)) == 1
    with pytest.raises(UserError, match=r"unknown split of data set .* 'test'\. .*Known: train, validation\."):
        load_detection_source(str(tmp_path), "test")


def test_roboflow_layout_is_found(tmp_path):
    for name in ("train", "valid", "test"):
        write_coco(tmp_path, content_of([instance(0, 1)]), images=name)
        (tmp_path / "annotations/instances_train2017.json").rename(tmp_path / name / "_annotations.coco.json")
    assert available_detection_splits(str(tmp_path)) == ("train", "validation", "test")
    for split in ("train", "validation", "test"):
        assert load_detection_source(str(tmp_path), split)[0][1]["boxes"].tolist() == [[2, 3, 7, 8]]


def test_split_without_images_leaves_others_usable(tmp_path):
    write_coco(tmp_path, content_of([instance(1, 1)]), name="val2017", images="val2017")
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(content_of([instance(1, 1)])))
    assert len(load_detection_source(str(tmp_path), "validation")) == 1
    with pytest.raises(UserError, match="image folder .*train2017 of .* does not exist"):
        load_detection_source(str(tmp_path), "train")


def test_duplicate_split_is_refused(tmp_path):
    for year in (2014, 2017):
        write_coco(tmp_path, content_of([]), name=f"train{year}", images=f"train{year}")
    with pytest.raises(UserError, match=r"more than one train split: keep one of .*train2014\.json, .*train2017\.json"):
        available_detection_splits(str(tmp_path))


def test_missing_data_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for data, message in (
        ("nucleus", r"data folder .*nucleus does not exist\. unknown data set 'nucleus'. Did you mean 'nuclei'\?"),
        ("some/where", r"data folder .*some/where does not exist\.$"),
        ("file", "file is a file: give the folder of annotations/instances_NAME.json beside"),
        ("empty", "empty holds no detection data: expected annotations/instances_NAME.json beside"),
        ("x" * 300, "data 'xxx.*' cannot be the name of a folder: File name too long"),
        ("~no_such_user/x", "data '~no_such_user/x' cannot be the name of a folder"),
        ("a\0b", "data folder .* does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            available_detection_splits(data, root=tmp_path)


def test_split_names_ignore_case_and_coco_prefix(tmp_path):
    for name, images in (("Train", "images"), ("Val", "images")):
        write_coco(tmp_path, content_of([instance(1, 1)]), name=name, images=images)
        (tmp_path / f"annotations/instances_{name}.json").rename(tmp_path / f"annotations/{name}.json")
    assert available_detection_splits(str(tmp_path)) == ("train", "validation")
    assert len(load_detection_source(str(tmp_path), "validation")[0][1]["boxes"]) == 1


@pytest.mark.parametrize(
    ("file", "images", "prefix"),
    [
        ("annotations/instances_default.json", "images", ""),  # CVAT
        ("result.json", ".", "images/"),  # Label Studio
        ("annotations/all.json", "images", ""),
        ("_annotations.coco.json", ".", ""),
        ("some.json", "images", ""),
    ],
)
def test_single_file_is_the_training_set(tmp_path, file, images, prefix):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    content = content_of([instance(1, 1)])
    content["images"][0]["file_name"] = f"{prefix}1.png"
    (tmp_path / file).write_text(json.dumps(content))
    (tmp_path / "._hidden.json").write_text("")
    place = tmp_path / images / f"{prefix}1.png"
    place.parent.mkdir(exist_ok=True)
    noise_image(1, (WIDTH, HEIGHT)).save(place)
    assert available_detection_splits(str(tmp_path)) == ("train",)
    assert len(load_detection_source(str(tmp_path), "train")[0][1]["boxes"]) == 1


def test_several_files_without_splits_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text("{}")
    with pytest.raises(UserError, match=r"several annotation files: name them after train, val or test, .*a\.json, b"):
        available_detection_splits(str(tmp_path))


def make_unsplit(folder, num_images=20, names=lambda number: f"{number}.png"):
    """A data set without splits, with one instance per image."""
    folder.mkdir(exist_ok=True)
    images = [image_entry(number, file_name=names(number)) for number in range(1, num_images + 1)]
    annotations = [instance(number, number) for number in range(1, num_images + 1)]
    for image in images:
        noise_image(image["id"], (WIDTH, HEIGHT)).save(folder / image["file_name"])
    (folder / "all.json").write_text(json.dumps(content_of(annotations, images=images)))
    return str(folder)


def parts(data, hold_out=0.25):
    sources = [load_detection_source(data, split, hold_out=hold_out) for split in ("train", "validation")]
    return [{entry["file_name"] for entry in source.ground_truth["images"]} for source in sources]


def test_images_are_held_out_by_name(tmp_path):
    data = make_unsplit(tmp_path / "one")
    assert available_detection_splits(data) == ("train",)
    assert available_detection_splits(data, hold_out=0.25) == ("train", "validation")
    train, validation = parts(data)
    assert (len(train), len(validation)) == (15, 5)
    assert not train & validation
    # Ids do not matter.
    renumbered = make_unsplit(tmp_path / "two", names=lambda number: f"{21 - number}.png")
    assert parts(renumbered) == [train, validation]
    # Some of the added images are held out; few others move.
    more_train, more_validation = parts(make_unsplit(tmp_path / "three", num_images=24))
    assert len(more_validation) == 6
    assert len(validation & more_train) <= 3


def test_copies_of_a_photo_stay_together(tmp_path):
    data = make_unsplit(tmp_path / "one", names=lambda number: f"photo{number % 5}_jpg.rf.{number}.png")
    train, validation = ({name.partition(".")[0] for name in part} for part in parts(data))
    assert train | validation == {f"photo{number}_jpg" for number in range(5)}
    assert not train & validation


def test_hold_out_needs_images_and_no_validation_split(tmp_path):
    for name in ("train", "val"):
        write_coco(tmp_path, content_of([instance(1, 1)], num_images=4), name=name, images=name)
    assert len(load_detection_source(str(tmp_path), "train", hold_out=0.5)) == 4
    assert len(load_detection_source(str(tmp_path), "validation", hold_out=0.5)) == 4
    with pytest.raises(UserError, match="1 image is too few to hold out a fraction of 0.5"):
        load_detection_source(make_unsplit(tmp_path / "one", num_images=1), "validation", hold_out=0.5)
    with pytest.raises(UserError, match="To hold some training images out, set data.hold_out to 0.2, say"):
        load_detection_source(make_unsplit(tmp_path / "two"), "validation")
    with pytest.raises(UserError, match="hold_out is 1.5, but must be at least 0 and below 1"):
        load_detection_source(make_unsplit(tmp_path / "two"), "validation", hold_out=1.5)
