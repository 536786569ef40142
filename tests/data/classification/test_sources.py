import tarfile

import numpy as np
import pytest

from halonet.data.classification.image_source import ImageSource, names_of
from halonet.data.classification.sources import available_splits, is_named, is_remote, load_source
from halonet.errors import UserError, UserNote
from tests.data import cifar10_archives
from tests.data.samples import noise_image, write_classes


def contents(source):
    return [(np.asarray(image).tobytes(), label) for image, label in (source[i] for i in range(len(source)))]


def test_embedded_set_has_three_splits():
    assert available_splits("fashion-mnist") == ("train", "validation", "test")
    sizes = [len(load_source("fashion-mnist", split)) for split in available_splits("fashion-mnist")]
    assert sizes == [9_000, 1_000, 2_000]
    assert isinstance(load_source("fashion-mnist", "test"), ImageSource)


@pytest.mark.parametrize(("val", "test"), [("val", "test"), ("validation", "testing"), ("valid", "test")])
def test_splits_are_found_by_their_usual_names(tmp_path, val, test):
    for name, count in (("train", 3), (val, 2), (test, 1)):
        write_classes(tmp_path / name, {"ant": count, "bee": count})
    assert available_splits(str(tmp_path)) == ("train", "validation", "test")
    assert [len(load_source(str(tmp_path), split)) for split in available_splits(str(tmp_path))] == [6, 4, 2]


def test_relative_folder_is_found_from_the_root(tmp_path):
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


def test_every_tenth_training_image_is_held_out(tmp_path):
    write_classes(tmp_path / "train", {"ant": 15, "bee": 10})
    write_classes(tmp_path / "test", {"ant": 1, "bee": 1})
    assert available_splits(str(tmp_path)) == ("train", "validation", "test")
    train, validation = (contents(load_source(str(tmp_path), split)) for split in ("train", "validation"))
    everything = contents(load_source(str(tmp_path / "train"), "all"))
    assert validation == [everything[9], everything[19]]
    assert train == [item for i, item in enumerate(everything) if i not in (9, 19)]


def test_folder_of_classes_is_one_set(tmp_path):
    write_classes(tmp_path, {"ant": 10, "bee": 10})
    assert available_splits(str(tmp_path)) == ("train", "validation", "all")
    assert [len(load_source(str(tmp_path), split)) for split in ("train", "validation", "all")] == [18, 2, 20]


def test_too_few_images_to_hold_out_are_refused(tmp_path):
    write_classes(tmp_path, {"ant": 4, "bee": 5})
    with pytest.raises(UserError, match=r"9 training images, too few to hold every 10th out: add a folder 'val'"):
        load_source(str(tmp_path), "train")
    assert len(load_source(str(tmp_path), "all")) == 9


def test_splits_with_different_classes_are_refused(tmp_path):
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


def test_unknown_name_gets_the_nearest_one():
    with pytest.raises(UserError, match=r"unknown data set 'fashion_mnits'\. Did you mean 'fashion-mnist'\?.*folder"):
        load_source("fashion_mnits", "train")
    with pytest.raises(UserError, match="unknown data set ''"):
        load_source("", "train")


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"data folder {tmp_path}/nowhere does not exist"):
        load_source(str(tmp_path / "nowhere"), "train")


def test_missing_split_message_lists_the_splits(tmp_path):
    write_classes(tmp_path / "val", {"ant": 1})
    with pytest.raises(UserError, match=r"'train'\. Known: validation\."):
        load_source(str(tmp_path), "train")
    with pytest.raises(UserError, match=r"'tests'\. Did you mean 'test'\?"):
        load_source("fashion-mnist", "tests")


def test_empty_data_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="is empty"):
        load_source(str(tmp_path), "train")


def test_other_files_are_refused(tmp_path):
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


def test_folder_called_cifar10_does_not_hide_the_data_set(tmp_path, monkeypatch):
    write_classes(tmp_path / "cifar10", {"ant": 20})
    monkeypatch.chdir(tmp_path)
    assert is_named("cifar10")
    assert not is_named("./cifar10")
    assert load_source("./cifar10", "all").class_names == ["ant"]


def test_training_subset_is_balanced_fixed_and_nested():
    small, large = (load_source("fashion-mnist", "train", train_images=number) for number in (25, 1_000))
    assert [small.labels.count(label) for label in range(10)] == [3] * 5 + [2] * 5
    assert [large.labels.count(label) for label in range(10)] == [100] * 10
    assert set(contents(small)) <= set(contents(large))
    assert contents(small) == contents(load_source("fashion-mnist", "train", train_images=25))
    assert len(load_source("fashion-mnist", "validation", train_images=25)) == 1_000
    assert len(load_source("fashion-mnist", "test", train_images=25)) == 2_000


def test_training_subset_excludes_held_out_images(tmp_path):
    write_classes(tmp_path, {"ant": 10, "bee": 10})
    subset = load_source(str(tmp_path), "train", train_images=4)
    assert subset.labels == [0, 0, 1, 1]
    assert set(contents(subset)) <= set(contents(load_source(str(tmp_path), "train")))
    assert [label for _, label in contents(subset)] == subset.labels


def test_subset_larger_than_a_class_is_refused(tmp_path):
    write_classes(tmp_path / "train", {"ant": 5, "bee": 2})
    write_classes(tmp_path / "val", {"ant": 1, "bee": 1})
    assert len(load_source(str(tmp_path), "train", train_images=4)) == 4
    with pytest.raises(UserError, match="data.train_images is 6, which takes 3 images of class 'bee', but there are 2"):
        load_source(str(tmp_path), "train", train_images=6)


def test_split_names_ignore_case(tmp_path):
    for name in ("Train", "VAL", "Testing"):
        write_classes(tmp_path / name, {"ant": 2, "bee": 2})
    assert available_splits(str(tmp_path)) == ("train", "validation", "test")
    assert len(load_source(str(tmp_path), "validation")) == 4


def test_class_may_be_called_train(tmp_path):
    write_classes(tmp_path, {"train": 2, "plane": 2, "test": 1})
    assert available_splits(str(tmp_path)) == ("train", "validation", "all")
    assert load_source(str(tmp_path), "all").class_names == ["plane", "test", "train"]


def test_splits_without_classes_are_refused(tmp_path):
    write_classes(tmp_path, {"train": 2, "test": 2})
    with pytest.raises(UserError, match=r"test, train in .* no class folders: put the images into SPLIT/CLASS"):
        available_splits(str(tmp_path))


def test_folders_beside_splits_are_left_out_with_a_note(tmp_path):
    write_classes(tmp_path / "train", {"ant": 10, "bee": 10})
    write_classes(tmp_path, {"test": 3, "extra": 1})
    (tmp_path / "__MACOSX").mkdir()
    with pytest.warns(UserNote, match=r"left out extra, test, which is not one of the splits \(train\)"):
        assert available_splits(str(tmp_path)) == ("train", "validation")


def drawn(folder, split, seed=0, part=0.2):
    return names_of(load_source(str(folder), split, hold_out=part, seed=seed))


def test_hold_out_depends_on_names_and_seed(tmp_path):
    folder = write_classes(tmp_path / "set", {"ant": 20, "bee": 10, "cow": 2})
    train, validation = drawn(folder, "train"), drawn(folder, "validation")
    assert sorted(train + validation) == sorted(names_of(load_source(str(folder), "all")))
    assert [sum(name.startswith(each) for name in validation) for each in ("ant", "bee", "cow")] == [4, 2, 1]
    assert drawn(folder, "validation", seed=1) != validation
    moved = folder.rename(tmp_path / "elsewhere")
    assert drawn(moved, "validation") == validation
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(moved, ".")
    assert drawn(tmp_path / "set.tar", "validation") == validation


def test_additional_image_moves_at_most_one_other(tmp_path):
    folder = write_classes(tmp_path, {"ant": 20})
    before = set(drawn(folder, "validation"))
    noise_image(77).save(folder / "ant/new.png")
    assert len(before - set(drawn(folder, "validation"))) <= 1


def test_nothing_is_held_out_beside_a_validation_split(tmp_path):
    for split in ("train", "val"):
        write_classes(tmp_path / split, {"ant": 10, "bee": 10})
    assert len(drawn(tmp_path, "train")) == 20


def test_class_of_one_image_cannot_be_divided(tmp_path):
    folder = write_classes(tmp_path, {"ant": 5, "bee": 1})
    with pytest.raises(UserError, match=r"class 'bee' of .* has 1 images.* at least two"):
        drawn(folder, "train")


def test_is_remote(tmp_path):
    assert is_remote("hfds/owner/name")
    assert is_remote("hfds/" + "x" * 300)
    assert not is_remote(f"hfds/{tmp_path}")
    assert not is_remote(str(tmp_path))
    assert not is_remote("cifar10")


@pytest.mark.parametrize("name", ["x" * 5_000, "a\0b", "~no_such_user/x"])
def test_invalid_folder_names_are_refused(name):
    with pytest.raises(UserError, match="cannot be the name of a folder|does not exist|unknown data set"):
        load_source(name, "train")
