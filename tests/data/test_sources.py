import tarfile

import numpy as np
import pytest

from halonet.data.sources import ImageSource, available_splits, is_named, load_source
from halonet.errors import UserError
from tests.data import cifar10_archives
from tests.data.samples import noise_image, write_classes


def contents(source):
    return [(np.asarray(image).tobytes(), label) for image, label in (source[i] for i in range(len(source)))]


def test_the_embedded_set_has_three_splits():
    assert available_splits("fashion-mnist") == ("train", "validation", "test")
    sizes = [len(load_source("fashion-mnist", split)) for split in available_splits("fashion-mnist")]
    assert sizes == [9_000, 1_000, 2_000]
    assert isinstance(load_source("fashion-mnist", "test"), ImageSource)


@pytest.mark.parametrize(("val", "test"), [("val", "test"), ("validation", "testing"), ("valid", "test")])
def test_the_splits_of_a_folder_are_found_by_their_usual_names(tmp_path, val, test):
    for name, count in (("train", 3), (val, 2), (test, 1)):
        write_classes(tmp_path / name, {"ant": count, "bee": count})
    assert available_splits(str(tmp_path)) == ("train", "validation", "test")
    assert [len(load_source(str(tmp_path), split)) for split in available_splits(str(tmp_path))] == [6, 4, 2]


def test_a_folder_is_found_from_the_root(tmp_path):
    write_classes(tmp_path / "set/val", {"ant": 1})
    assert len(load_source("set", "validation", root=tmp_path)) == 1
    assert available_splits("set", root=tmp_path) == ("validation",)


def test_splits_may_be_tar_files(tmp_path):
    folder = write_classes(tmp_path / "unpacked", {"ant": 1, "bee": 1})
    (tmp_path / "set").mkdir()
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"set/{split}.tar", "w") as archive:
            archive.add(folder, ".")
    source = load_source(str(tmp_path / "set"), "validation")
    assert contents(source) == contents(load_source(str(folder), "all"))
    assert contents(load_source(str(tmp_path / "set/train.tar"), "all")) == contents(source)


def test_without_a_validation_split_every_tenth_training_image_is_held_out(tmp_path):
    write_classes(tmp_path / "train", {"ant": 15, "bee": 10})
    write_classes(tmp_path / "test", {"ant": 1, "bee": 1})
    assert available_splits(str(tmp_path)) == ("train", "validation", "test")
    train, validation = (contents(load_source(str(tmp_path), split)) for split in ("train", "validation"))
    everything = contents(load_source(str(tmp_path / "train"), "all"))
    assert validation == [everything[9], everything[19]]
    assert train == [item for i, item in enumerate(everything) if i not in (9, 19)]


def test_a_folder_of_classes_is_one_set_with_a_part_held_out(tmp_path):
    write_classes(tmp_path, {"ant": 10, "bee": 10})
    assert available_splits(str(tmp_path)) == ("train", "validation", "all")
    assert [len(load_source(str(tmp_path), split)) for split in ("train", "validation", "all")] == [18, 2, 20]


def test_too_few_images_to_hold_some_out_are_refused(tmp_path):
    write_classes(tmp_path, {"ant": 4, "bee": 5})
    with pytest.raises(UserError, match=r"9 training images, too few to hold every 10th out: add a folder 'val'"):
        load_source(str(tmp_path), "train")
    assert len(load_source(str(tmp_path), "all")) == 9


def test_classes_that_differ_between_train_and_val_are_refused(tmp_path):
    write_classes(tmp_path / "train", {"ant": 1, "bee": 1, "cow": 1})
    write_classes(tmp_path / "val", {"ant": 1, "bee": 1})
    write_classes(tmp_path / "test", {"ant": 1, "bee": 1, "cat": 1})
    with pytest.raises(
        UserError, match=r"val has 2 classes and .*train has 3: they must be the same\. Missing: cow\.$"
    ):
        load_source(str(tmp_path), "validation")
    with pytest.raises(UserError, match=r"test has 3 classes .* has 3: .* Missing: cow\. Unknown: cat\.$"):
        load_source(str(tmp_path), "test")


def test_two_folders_for_one_split_are_refused(tmp_path):
    for name in ("val", "validation"):
        write_classes(tmp_path / name, {"ant": 1})
    with pytest.raises(UserError, match="more than one validation split: keep one of val, validation"):
        available_splits(str(tmp_path))


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(UserError, match=r"unknown data set 'fashion_mnits'\. Did you mean 'fashion-mnist'\?.*folder"):
        load_source("fashion_mnits", "train")
    with pytest.raises(UserError, match="unknown data set ''"):
        load_source("", "train")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"data folder {tmp_path}/nowhere does not exist"):
        load_source(str(tmp_path / "nowhere"), "train")


def test_a_missing_split_is_answered_with_those_there_are(tmp_path):
    write_classes(tmp_path / "val", {"ant": 1})
    with pytest.raises(UserError, match=r"'train'\. Known: validation\."):
        load_source(str(tmp_path), "train")
    with pytest.raises(UserError, match=r"'tests'\. Did you mean 'test'\?"):
        load_source("fashion-mnist", "tests")


def test_an_empty_data_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="is empty"):
        load_source(str(tmp_path), "train")


def test_a_file_that_is_no_data_set_is_refused(tmp_path):
    noise_image(0).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png is a file: give a folder, a \.tar file"):
        load_source(str(tmp_path / "a.png"), "all")


@pytest.mark.parametrize("name", ["wds/shards", "tfds/cifar10", "hfids/cifar10"])
def test_streams_are_refused_with_the_reason(name):
    with pytest.raises(UserError, match="is a stream, from which a stopped run could not continue exactly"):
        load_source(name, "train")


def test_cifar10_lies_in_its_root(tmp_path, monkeypatch):
    cifar10_archives.expect_small_archives(monkeypatch)
    cifar10_archives.write_batches(tmp_path, cifar10_archives.BINARY)
    assert available_splits("cifar10", root=tmp_path) == ("train", "validation", "test")
    sizes = [len(load_source("cifar10", split, root=tmp_path)) for split in ("train", "validation", "test")]
    assert sizes == [90, 10, 20]
    assert load_source("cifar10", "validation", root=tmp_path).variant == "CIFAR-10"
    with pytest.raises(UserError, match="give it with --data.root DIR"):
        load_source("cifar10", "train")


def test_a_folder_called_cifar10_does_not_hide_the_data_set(tmp_path, monkeypatch):
    write_classes(tmp_path / "cifar10", {"ant": 20})
    monkeypatch.chdir(tmp_path)
    assert is_named("cifar10")
    assert not is_named("./cifar10")
    assert load_source("./cifar10", "all").class_names == ["ant"]


def test_a_subset_for_training_is_balanced_fixed_and_nested():
    small, large = (load_source("fashion-mnist", "train", train_images=number) for number in (25, 1_000))
    assert [small.labels.count(label) for label in range(10)] == [3] * 5 + [2] * 5
    assert [large.labels.count(label) for label in range(10)] == [100] * 10
    assert set(contents(small)) <= set(contents(large))
    assert contents(small) == contents(load_source("fashion-mnist", "train", train_images=25))
    assert len(load_source("fashion-mnist", "validation", train_images=25)) == 1_000
    assert len(load_source("fashion-mnist", "test", train_images=25)) == 2_000


def test_a_subset_of_a_folder_comes_from_what_is_not_held_out(tmp_path):
    write_classes(tmp_path, {"ant": 10, "bee": 10})
    subset = load_source(str(tmp_path), "train", train_images=4)
    assert subset.labels == [0, 0, 1, 1]
    assert set(contents(subset)) <= set(contents(load_source(str(tmp_path), "train")))
    assert [label for _, label in contents(subset)] == subset.labels


def test_a_subset_larger_than_a_class_is_refused(tmp_path):
    write_classes(tmp_path / "train", {"ant": 5, "bee": 2})
    write_classes(tmp_path / "val", {"ant": 1, "bee": 1})
    assert len(load_source(str(tmp_path), "train", train_images=4)) == 4
    with pytest.raises(UserError, match="data.train_images is 6, which takes 3 images of class 'bee', but there are 2"):
        load_source(str(tmp_path), "train", train_images=6)
