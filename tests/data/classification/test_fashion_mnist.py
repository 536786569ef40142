import gzip
import hashlib
import re
import struct
from collections import Counter

import numpy as np
import pytest

from halonet.data.classification.fashion_mnist import ARCHIVE, CLASS_NAMES, FOLDER, SPLITS, FashionMNIST
from tools.make_fashion_mnist_subset import make_subset


def hashes(split):
    source = FashionMNIST(split)
    return [hashlib.sha256(source[i][0].tobytes()).hexdigest() for i in range(len(source))]


@pytest.mark.parametrize(("split", "per_class"), [("train", 900), ("validation", 100), ("test", 200)])
def test_splits_are_balanced(split, per_class):
    source = FashionMNIST(split)
    counts = Counter(source[i][1] for i in range(len(source)))
    assert counts == dict.fromkeys(range(10), per_class)
    assert len(source) == 10 * per_class


def test_images_are_unique():
    everything = [value for split in SPLITS for value in hashes(split)]
    assert len(everything) == len(set(everything)) == 12_000


def test_images_are_gray_and_28_pixels_wide():
    image, label = FashionMNIST("test")[1_234]
    assert (image.mode, image.size, label) == ("L", (28, 28), 4)


def test_labels_match_their_images():
    # Trousers fill the middle and leave the sides dark; bags are wide. Shuffled labels would break this.
    source = FashionMNIST("test")
    pixels = np.stack([np.asarray(source[i][0]) for i in range(len(source))]).astype(float)
    labels = np.array([source[i][1] for i in range(len(source))])
    means = np.stack([pixels[labels == label].mean(0) for label in range(10)])
    distance = ((pixels[:, None] - means[None]) ** 2).sum((2, 3))
    assert (distance.argmin(1) == labels).mean() > 0.65


def test_class_names_are_official():
    assert FashionMNIST("train").class_names == list(CLASS_NAMES)
    readme = (FOLDER / "README.md").read_text()
    for label, name in enumerate(CLASS_NAMES):
        assert f"| {label} | {name} |" in readme


def test_readme_states_the_checksum():
    stated = re.search(r"\*\*sha256\*\* `([0-9a-f]{64})`", (FOLDER / "README.md").read_text())
    assert stated is not None
    assert hashlib.sha256(ARCHIVE.read_bytes()).hexdigest() == stated[1]


def test_license_and_size():
    assert "Copyright (c) 2017 Zalando SE" in (FOLDER / "LICENSE").read_text()
    assert ARCHIVE.stat().st_size < 5.5 * 2**20


def test_tool_is_reproducible_and_skips_duplicates(tmp_path):
    generator = np.random.default_rng(0)
    for prefix in ("train", "t10k"):
        images = generator.integers(0, 256, (80, 28, 28), dtype=np.uint8)
        images[40:] = images[:40]
        labels = np.tile(np.arange(10, dtype=np.uint8), 8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (tmp_path / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    first, second = (make_subset(tmp_path, tmp_path / name, 3, 2) for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert (first.parent / "README.md").read_text() == (second.parent / "README.md").read_text()
    with np.load(first, allow_pickle=False) as arrays:
        assert arrays["train_labels"].tolist() == [*range(10)] * 3
        assert arrays["test_labels"].tolist() == [*range(10)] * 2
        assert len(np.unique(arrays["train_images"], axis=0)) == 30
    with pytest.raises(SystemExit, match="fewer than 5 distinct"):
        make_subset(tmp_path, tmp_path / "third", 5, 2)
