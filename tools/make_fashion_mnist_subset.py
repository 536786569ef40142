"""Choose the embedded subset of Fashion-MNIST and write it, with its README, into a folder.

The four official files (train-images-idx3-ubyte.gz and its companions) come from
https://github.com/zalandoresearch/fashion-mnist or from the Debian package `dataset-fashion-mnist`, which installs
them in /usr/share/datasets/fashion-mnist. From the root of a checkout:

    python tools/make_fashion_mnist_subset.py /usr/share/datasets/fashion-mnist

An image's place in its class is decided by a hash of the seed, the split and its number in the official file, so the
choice depends on no random number generator. Images whose pixels were already taken are passed over. Row i of each
array holds class i % 10, so that the last 1,000 training images, which `halonet.data` holds out for validation, are
balanced too.
"""

import argparse
import gzip
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

SEED = 2103_12731
NUM_CLASSES = 10
TRAIN_PER_CLASS = 1_000
TEST_PER_CLASS = 200
FOLDER = Path(__file__).parents[1] / "src/halonet/data/embedded/fashion_mnist"
ARCHIVE = "fashion_mnist_subset.npz"

README = """\
# Fashion-MNIST, a balanced subset

{train:,} training and {test:,} test images of Fashion-MNIST: photographs of articles of clothing, 28 x 28 pixels, gray,
in ten classes of equal size, taken from the official training and test sets of 60,000 and 10,000 images.

| class | name | class | name |
|---|---|---|---|
| 0 | T-shirt/top | 5 | Sandal |
| 1 | Trouser | 6 | Shirt |
| 2 | Pullover | 7 | Sneaker |
| 3 | Dress | 8 | Bag |
| 4 | Coat | 9 | Ankle boot |

- **Source**: https://github.com/zalandoresearch/fashion-mnist (Xiao, Rasul and Vollgraf, arXiv:1708.07747), as packaged
  by Debian in `dataset-fashion-mnist`. Copyright 2017 Zalando SE, MIT license: see `LICENSE`.
- **Made by** `tools/make_fashion_mnist_subset.py` with seed {seed}; a second run gives the same pixels anywhere, and
  the same file with the same zlib. No two of the {total:,} images are equal.
- **File**: `{archive}`, read with `numpy.load(path, allow_pickle=False)`: `train_images` and `test_images`
  (uint8 [N, 28, 28]), `train_labels` and `test_labels` (uint8 [N]). Row i holds class i % 10.
- **Validation**: `halonet` trains on the first 9,000 training images and chooses on the last 1,000.
- **sha256** `{sha256}`
"""


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped file of unsigned bytes in the IDX format of MNIST."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\x00\x00\x08":
        sys.exit(f"{path} is not an IDX file of unsigned bytes")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def choose(images: np.ndarray, labels: np.ndarray, split: str, per_class: int, taken: set[bytes]) -> np.ndarray:
    """Return the chosen rows, class after class in turn, and add their pixels to `taken`."""
    order = sorted(range(len(labels)), key=lambda row: hashlib.sha256(f"{SEED}/{split}/{row}".encode()).digest())
    chosen: list[list[int]] = [[] for _ in range(NUM_CLASSES)]
    for row in order:
        pixels, members = images[row].tobytes(), chosen[labels[row]]
        if len(members) < per_class and pixels not in taken:
            taken.add(pixels)
            members.append(row)
    if any(len(members) < per_class for members in chosen):
        sys.exit(f"the {split} set holds fewer than {per_class} distinct images of some class")
    return np.array(chosen).T.reshape(-1)


def archive_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Pack arrays as `numpy.savez_compressed` does, but with every header field fixed."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.create_system, entry.external_attr = (
                zipfile.ZIP_DEFLATED,
                3,
                0o644 << 16,
            )
            archive.writestr(entry, content.getvalue())
    return target.getvalue()


def make_subset(
    source: Path, target: Path, train_per_class: int = TRAIN_PER_CLASS, test_per_class: int = TEST_PER_CLASS
) -> Path:
    """Write the archive and its README into `target`, and return the archive's path."""
    taken: set[bytes] = set()
    arrays: dict[str, np.ndarray] = {}
    for split, prefix, per_class in (("test", "t10k", test_per_class), ("train", "train", train_per_class)):
        images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        rows = choose(images, labels, split, per_class, taken)
        arrays |= {f"{split}_images": images[rows], f"{split}_labels": labels[rows]}

    data = archive_bytes(dict(sorted(arrays.items(), reverse=True)))
    target.mkdir(parents=True, exist_ok=True)
    (target / ARCHIVE).write_bytes(data)
    train, test = len(arrays["train_labels"]), len(arrays["test_labels"])
    text = README.format(
        train=train,
        test=test,
        total=train + test,
        seed=SEED,
        archive=ARCHIVE,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    (target / "README.md").write_text(text, encoding="utf-8")
    return target / ARCHIVE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with the four official .gz files")
    parser.add_argument("--target", type=Path, default=FOLDER, help="folder to write to (default: %(default)s)")
    arguments = parser.parse_args()
    if not (arguments.source / "train-images-idx3-ubyte.gz").is_file():
        sys.exit(f"{arguments.source} does not hold train-images-idx3-ubyte.gz; see --help for where to get it")
    path = make_subset(arguments.source, arguments.target)
    print(f"wrote {path} ({path.stat().st_size / 2**20:.2f} MiB) and {path.with_name('README.md')}")


if __name__ == "__main__":
    main()
