import hashlib
import io
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from halonet.data.detection.coco import available_detection_splits, load_detection_source
from halonet.data.detection.nuclei import FOLDER, annotation_file
from tools.make_nuclei import IMAGE, MASK, make_nuclei

COUNTS = {"train": 58, "test": 61}
CUT = 6
WIDTH, HEIGHT = 512, 256


def crowd_boxes(source):
    return [entry["bbox"] for entry in source.ground_truth["annotations"] if entry["iscrowd"]]


@pytest.mark.parametrize("split", COUNTS)
def test_nuclei_are_counted_and_do_not_overlap(split):
    source = load_detection_source("nuclei", split, skip_empty=split == "train")
    assert len(source) == 1
    image, target = source[0]
    assert (image.mode, image.size) == ("L", (WIDTH, HEIGHT))
    assert target["masks"].shape == (COUNTS[split], HEIGHT, WIDTH)
    assert target["labels"].tolist() == [1] * COUNTS[split]
    assert target["masks"].sum(0).max() == 1
    assert len(crowd_boxes(source)) == CUT
    assert (source.class_names, source.category_ids) == (["nucleus"], [1])


def test_splits_share_no_image_or_annotation():
    assert available_detection_splits("nuclei") == ("train", "test")
    train, test = (load_detection_source("nuclei", split).ground_truth for split in COUNTS)
    for kind in ("images", "annotations"):
        assert not {entry["id"] for entry in train[kind]} & {entry["id"] for entry in test[kind]}


def test_no_nucleus_crosses_the_cut():
    # Nuclei may touch the cut from both sides, but one that crosses it is a crowd in both halves.
    train, test = (load_detection_source("nuclei", split) for split in COUNTS)
    above, below = train[0][1]["masks"][:, -1].any(0), test[0][1]["masks"][:, 0].any(0)
    assert not (above & below).any()
    for source, edge in ((train, HEIGHT), (test, 0)):
        assert all(edge in (top, top + height) for _, top, _, height in crowd_boxes(source))
    for (left, _, width, _), (other_left, _, other_width, _) in zip(crowd_boxes(train), crowd_boxes(test), strict=True):
        assert max(left, other_left) < min(left + width, other_left + other_width)


@pytest.mark.parametrize("split", COUNTS)
def test_masks_and_boxes_lie_on_their_nuclei(split):
    image, target = load_detection_source("nuclei", split)[0]
    pixels, background = np.asarray(image).astype(float), target["masks"].sum(0).numpy() == 0
    for mask, (left, top, right, bottom) in zip(target["masks"].numpy(), target["boxes"].tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)
        assert pixels[mask == 1].mean() > 1.5 * np.median(pixels[background])


def test_readme_license_and_size():
    readme = (FOLDER / "README.md").read_text()
    for split, count in COUNTS.items():
        stated = re.search(rf"{split} `([0-9a-f]{{64}})`", readme)
        assert stated is not None
        assert hashlib.sha256((FOLDER / f"{split}.png").read_bytes()).hexdigest() == stated[1]
        assert f"| {split} | `{split}.png` | `{annotation_file(split).name}` | {count} | {CUT} |" in readme
    assert "Copyright (c) 2018-2025, Uwe Schmidt, Martin Weigert" in (FOLDER / "LICENSE").read_text()
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 300_000


def test_tool_scales_by_training_half_and_marks_cut_nuclei(tmp_path):
    image = np.random.default_rng(0).integers(100, 200, (40, 30)).astype(np.uint16)
    image[20:] += 1_000  # the test half, which must not affect the scale
    instances = np.zeros((40, 30), np.uint16)
    instances[2:6, 2:9] = 1
    instances[15:25, 10:20] = 2
    instances[30:34, 4:8] = 3
    wheel = tmp_path / "stardist-0.0.0-none.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, array in ((IMAGE, image), (MASK, instances)):
            file = io.BytesIO()
            Image.fromarray(array).save(file, "TIFF")
            archive.writestr(name, file.getvalue())
        archive.writestr("stardist-0.0.0.dist-info/licenses/LICENSE.txt", "as you like")
    target = tmp_path / "made"
    assert make_nuclei(wheel, target) == {"train": 1, "test": 1, "cut": 1}
    first = {file.name: file.read_bytes() for file in target.iterdir()}
    make_nuclei(wheel, target)
    assert first == {file.name: file.read_bytes() for file in target.iterdir()}
    train, test = np.array(Image.open(target / "train.png")), np.array(Image.open(target / "test.png"))
    assert (train.min(), train.max()) == (0, 255)
    assert abs(int(train[image[:20] == 150][0]) - 128) < 5
    assert (test == 255).all()
    assert "stardist 0.0.0" in (target / "README.md").read_text()
    assert (target / "LICENSE").read_text() == "as you like"
