import pickle
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from halonet.data.classification import cifar10
from halonet.data.classification.cifar10 import Cifar10
from halonet.errors import UserError
from tests.data import cifar10_archives as archives
from tests.data.cifar10_archives import BINARY, COUNTS, PYTHON

WRITERS: dict[str, Callable[[Path], object]] = {
    "python folder": lambda root: archives.write_batches(root / PYTHON.folder, PYTHON),
    "binary folder": lambda root: archives.write_batches(root / BINARY.folder, BINARY),
    "the folder itself": lambda root: archives.write_batches(root, PYTHON),
    "python archive": lambda root: archives.write_archive(root, PYTHON),
    "binary archive": lambda root: archives.write_archive(root, BINARY),
    "parquet": lambda root: archives.write_parquet(root),
    "parquet of the Hub": lambda root: archives.write_parquet(root / "plain_text", column="img"),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    archives.expect_small_archives(monkeypatch)


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("split", COUNTS)
def test_all_formats_give_the_same_images(tmp_path, monkeypatch, form, split):
    WRITERS[form](tmp_path)
    archives.expect_small_archives(monkeypatch, tmp_path)
    source = Cifar10(tmp_path, split)
    pixels, labels = archives.make_split(split)
    assert len(source) == COUNTS[split]
    assert source.labels == labels.tolist()
    assert source.class_names[3] == "cat"
    for index in (0, 7, COUNTS[split] - 1):
        image, label = source[index]
        assert image.mode == "RGB"
        assert label == labels[index]
        np.testing.assert_array_equal(np.array(image), pixels[index])


def test_numpy_reads_our_pickles():
    pixels, labels = archives.make_split("test")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy.core
        batch = pickle.loads(archives.python_batch(pixels, labels), encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], archives.as_rows(pixels))
    assert batch[b"labels"] == labels.tolist()


def test_published_counts_and_checksums():
    assert (PYTHON.archive_md5, BINARY.archive_md5) == (
        "c58f30108f718f92721af3b95e74349a",
        "c32a1d4ab5d03f1284b67883e8d87530",
    )
    torchvision = pytest.importorskip("torchvision.datasets.cifar").CIFAR10
    assert PYTHON.md5 == dict(torchvision.train_list + torchvision.test_list)
    assert torchvision.tgz_md5 == PYTHON.archive_md5


def test_lossy_images_are_another_variant(tmp_path):
    original = Cifar10(archives.write_parquet(tmp_path / "png"), "test")
    compressed = Cifar10(archives.write_parquet(tmp_path / "jpeg", "JPEG"), "test")
    assert (original.variant, compressed.variant) == ("CIFAR-10", "CIFAR-10 (JPEG)")
    assert original.checksum != compressed.checksum


def test_checksum_does_not_depend_on_the_format(tmp_path):
    python = Cifar10(archives.write_batches(tmp_path / "python", PYTHON), "test")
    binary = Cifar10(archives.write_batches(tmp_path / "binary", BINARY), "test")
    assert python.checksum == binary.checksum
    assert len(python.checksum) == 64


def test_images_are_shared_in_memory(tmp_path):
    archives.write_batches(tmp_path, BINARY)
    first, second = Cifar10(tmp_path, "train"), Cifar10(tmp_path, "train")
    assert first._images.pixels is second._images.pixels
    assert first._images.pixels.dtype == np.uint8


def test_changed_file_is_read_again(tmp_path):
    archives.write_parquet(tmp_path)
    before = Cifar10(tmp_path, "test").checksum
    archives.write_parquet(tmp_path, "JPEG")
    assert Cifar10(tmp_path, "test").checksum != before


@pytest.mark.parametrize("form", [PYTHON, BINARY], ids=["python", "binary"])
def test_archive_with_another_checksum_is_refused(tmp_path, form):
    archives.write_archive(tmp_path, form)
    with pytest.raises(UserError, match=rf"{form.archive} has the MD5 checksum \w+, but the published one is \w+: .*"):
        Cifar10(tmp_path, "train")


@pytest.mark.parametrize("folder", ["data", "cats in hats"])
def test_batch_with_another_checksum_is_refused(tmp_path, monkeypatch, folder):
    archives.write_batches(tmp_path / folder, PYTHON)
    monkeypatch.setattr(cifar10, "FORMS", (PYTHON, BINARY))
    with pytest.raises(UserError, match="data_batch_1 has the MD5 checksum"):
        Cifar10(tmp_path / folder, "train")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("write", "name", "message"),
    [
        (
            lambda root: archives.write_batches(root, PYTHON),
            "test_batch",
            "test_batch is not a batch of CIFAR-10, or a",
        ),
        (lambda root: archives.write_batches(root, BINARY), "test_batch.bin", "61,360 bytes, not a multiple of 3,073"),
        (lambda root: archives.write_archive(root, PYTHON), PYTHON.archive, "cannot be unpacked"),
        (lambda root: archives.write_parquet(root), "test.parquet", "cannot be read as a parquet file"),
    ],
    ids=["python", "binary", "archive", "parquet"],
)
def test_truncated_file_is_refused(tmp_path, monkeypatch, write, name, message):
    write(tmp_path)
    truncate(tmp_path / name)
    archives.expect_small_archives(monkeypatch, tmp_path)
    with pytest.raises(UserError, match=message):
        Cifar10(tmp_path, "test")


def test_missing_batch_is_named(tmp_path):
    archives.write_batches(tmp_path, BINARY)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(UserError, match=r"lacks data_batch_4.bin: unpack cifar-10-binary.tar.gz again"):
        Cifar10(tmp_path, "train")
    assert len(Cifar10(tmp_path, "test")) == COUNTS["test"]


def test_batch_missing_in_the_archive_is_named(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / PYTHON.archive, "w:gz"):
        pass
    archives.expect_small_archives(monkeypatch, tmp_path)
    with pytest.raises(UserError, match="lacks test_batch: get it again"):
        Cifar10(tmp_path, "test")


@pytest.mark.parametrize("wanted", ["os\nsystem", "builtins\neval", "numpy\nload", "numpy.core.multiarray\nscalar"])
def test_pickle_with_other_classes_is_refused(tmp_path, wanted):
    archives.write_batches(tmp_path, PYTHON)
    pixels, labels = archives.make_split("test")
    (tmp_path / "test_batch").write_bytes(archives.python_batch(pixels, labels, wanted))
    with pytest.raises(UserError, match=f"refused: it asks for {wanted.replace(chr(10), '.')}, but"):
        Cifar10(tmp_path, "test")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"U\x02u1", b"U\x02f4", "not a uint8 matrix"),
        (b"J\x00\x0c\x00\x00", b"J\x00\x06\x00\x00", "not a uint8 matrix"),
        (b"U\x06labels", b"U\x06lables", "is not a batch of CIFAR-10"),
        (b"](J", b"](NJ", "is not a batch of CIFAR-10"),
    ],
    ids=["floats", "too few columns", "no labels", "a label too many"],
)
def test_pickle_of_other_data_is_refused(tmp_path, old, new, message):
    archives.write_batches(tmp_path, PYTHON)
    content = (tmp_path / "test_batch").read_bytes()
    assert content.count(old) == 1
    (tmp_path / "test_batch").write_bytes(content.replace(old, new))
    with pytest.raises(UserError, match=message):
        Cifar10(tmp_path, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels[:-1], "19 test images, not 20"),
        (lambda labels: labels + 1, "labels beyond 0 to 9"),
        (lambda labels: np.where(labels == 3, 4, labels), "classes of 0 to 4 images, not equal"),
    ],
    ids=["too few", "an unknown class", "uneven"],
)
def test_other_images_are_refused(tmp_path, change, message):
    archives.write_batches(tmp_path, BINARY)
    pixels, labels = archives.make_split("test")
    labels = change(labels)
    (tmp_path / "test_batch.bin").write_bytes(archives.binary_batch(pixels[: len(labels)], labels))
    with pytest.raises(UserError, match=f"is not CIFAR-10: it has {message}.*https"):
        Cifar10(tmp_path, "test")


def test_too_large_file_is_not_read(tmp_path, monkeypatch):
    archives.write_batches(tmp_path, BINARY)
    monkeypatch.setattr(cifar10, "FILE_LIMIT", 1000)
    with pytest.raises(UserError, match="61,460 bytes, more than a batch"):
        Cifar10(tmp_path, "test")


def test_parquet_file_of_other_classes_is_refused(tmp_path):
    archives.write_parquet(tmp_path, names=("apple", "pear"))
    with pytest.raises(UserError, match="is not CIFAR-10: its classes are .*apple.*pear"):
        Cifar10(tmp_path, "train")


@pytest.mark.parametrize("metadata", [b"{not json", b"[]", b'{"info": null}', b'{"info": {"features": []}}', b"\xff"])
def test_parquet_file_with_damaged_metadata_is_refused(tmp_path, metadata):
    from pyarrow import parquet

    path = archives.write_parquet(tmp_path) / "test.parquet"
    parquet.write_table(parquet.read_table(path).replace_schema_metadata({"huggingface": metadata}), path)
    with pytest.raises(UserError, match="test.parquet has damaged metadata"):
        Cifar10(tmp_path, "test")


def test_parquet_file_without_images_is_refused(tmp_path):
    archives.write_parquet(tmp_path, column="photo")
    with pytest.raises(UserError, match="needs the columns image and label, but has photo, label"):
        Cifar10(tmp_path, "train")


def test_other_folder_is_refused_with_the_download_page(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(UserError, match=r"needs one of cifar-10-python.tar.gz, .* or train\*.parquet.*cifar.html"):
        Cifar10(tmp_path, "train")


def test_folder_must_be_given_and_exist(tmp_path):
    with pytest.raises(UserError, match=r"needs the folder that holds it: give it with --data.root DIR"):
        Cifar10(None, "train")
    with pytest.raises(UserError, match="nowhere is not a folder"):
        Cifar10(tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match="~nobody-of-that-name/data is not a folder"):
        Cifar10(Path("~nobody-of-that-name/data"), "train")
