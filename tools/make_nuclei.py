"""Make the embedded data set of cell nuclei, with its README and its license, from a wheel of StarDist.

The wheel, which holds a test image of 512 x 512 pixels and the outlines of its 125 nuclei, comes with
`pip download --no-deps stardist`. From the root of a checkout, with halonet's extra "detection" installed:

    python tools/make_nuclei.py stardist-0.9.2-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl

The image is cut into an upper half to train on and a lower half to test on. Of the two straight cuts through its
middle, this one leaves halves that are alike, 58 and 61 nuclei for six that it cuts through; the upright one leaves 68
and 52 for five.
"""

import argparse
import hashlib
import io
import json
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_tools

FOLDER = Path(__file__).parents[1] / "src/halonet/data/embedded/nuclei"
IMAGE, MASK = "stardist/data/images/img2d.tif", "stardist/data/images/mask2d.tif"
PERCENTILES = (0.1, 99.9)

README = """\
# Nuclei, a microscope image in two halves

One fluorescence image of {total} cell nuclei with the mask of each, cut into an upper half to train on and a lower half
to test on, each 512 x 256 pixels, gray. It is small enough to watch a detector learn, and too small to compare two.

| split | image | annotations | nuclei | crowds |
|---|---|---|---|---|
| train | `train.png` | `train.json` | {train} | {cut} |
| test | `test.png` | `test.json` | {test} | {cut} |

- **Source**: `{image}` and `{mask}` of the wheel of {wheel}
  (https://github.com/stardist/stardist). Copyright 2018-2025 Uwe Schmidt and Martin Weigert, BSD 3-clause license: see
  `LICENSE`. StarDist took the image from the 2018 Data Science Bowl (Caicedo et al., Nature Methods 16, 2019).
- **Made by** `tools/make_nuclei.py`; a second run gives the same pixels and masks anywhere, and the same image files
  with the same zlib. Gray values are scaled so that the {low} and {high} percentiles of the upper half become 0 and 255
  in both halves.
- **Cut nuclei**: {cut} nuclei lie across the cut. What a half shows of them is marked as a crowd (`iscrowd` 1), COCO's
  own means: training leaves it out, and evaluation counts a detection there neither as right nor as wrong.
- **Format**: COCO's, one category (id 1, "nucleus"), masks as compressed run lengths. `halonet` reads it as `nuclei`.
- **sha256** of the images: train `{train_sha256}`,
  test `{test_sha256}`
"""


def open_member(wheel: zipfile.ZipFile, name: str) -> np.ndarray:
    """Decode an image of the wheel."""
    return np.array(Image.open(io.BytesIO(wheel.read(name))))


def annotate(instances: np.ndarray, cut: set[int], first_id: int, image_id: int) -> list[dict[str, Any]]:
    """Describe the instances of a half, those of `cut` as crowds, in COCO's format."""
    annotations = []
    for number, instance in enumerate(np.unique(instances[instances > 0]).tolist()):
        run_lengths = mask_tools.encode(np.asfortranarray(instances == instance, np.uint8))
        annotations.append(
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": 1,
                "iscrowd": int(instance in cut),
                "area": int(mask_tools.area(run_lengths)),
                "bbox": mask_tools.toBbox(run_lengths).tolist(),
                "segmentation": {
                    "size": list(run_lengths["size"]),
                    "counts": run_lengths["counts"].decode("ascii"),
                },
            }
        )
    return annotations


def make_nuclei(source: Path, target: Path) -> dict[str, int]:
    """Write the data set into `target`, and return how many nuclei are in each half and how many are cut."""
    with zipfile.ZipFile(source) as wheel:
        image, instances = open_member(wheel, IMAGE), open_member(wheel, MASK)
        license_file = next(name for name in wheel.namelist() if PurePosixPath(name).name.startswith("LICENSE"))
        license_text = wheel.read(license_file).decode()

    middle = len(image) // 2
    halves = {"train": slice(None, middle), "test": slice(middle, None)}
    low, high = np.percentile(image[halves["train"]], PERCENTILES)
    gray = np.clip(np.rint((image.astype(float) - low) / (high - low) * 255), 0, 255).astype(np.uint8)
    above, below = (set(np.unique(instances[half]).tolist()) - {0} for half in halves.values())
    cut = above & below

    target.mkdir(parents=True, exist_ok=True)
    hashes, first_id = {}, 1
    for image_id, (split, half) in enumerate(halves.items(), 1):
        file = target / f"{split}.png"
        Image.fromarray(gray[half]).save(file, optimize=True)
        hashes[f"{split}_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        height, width = gray[half].shape
        annotations = annotate(instances[half], cut, first_id, image_id)
        content = {
            "images": [{"id": image_id, "file_name": file.name, "width": width, "height": height}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "nucleus"}],
        }
        (target / f"{split}.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
        first_id += len(annotations)

    counts = {"train": len(above - cut), "test": len(below - cut), "cut": len(cut)}
    text = README.format(
        **counts,
        **hashes,
        total=sum(counts.values()),
        image=IMAGE,
        mask=PurePosixPath(MASK).name,
        wheel=" ".join(source.name.split("-")[:2]),
        low=PERCENTILES[0],
        high=PERCENTILES[1],
    )
    (target / "README.md").write_text(text, encoding="utf-8")
    (target / "LICENSE").write_text(license_text, encoding="utf-8")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="a wheel of stardist")
    parser.add_argument("--target", type=Path, default=FOLDER, help="folder to write to (default: %(default)s)")
    arguments = parser.parse_args()
    if not zipfile.is_zipfile(arguments.wheel):
        sys.exit(f"{arguments.wheel} is not a wheel; see --help for where to get it")
    counts = make_nuclei(arguments.wheel, arguments.target)
    size = sum(file.stat().st_size for file in arguments.target.iterdir())
    print(f"wrote {arguments.target} ({size / 2**10:.0f} KiB): {counts}")


if __name__ == "__main__":
    main()
