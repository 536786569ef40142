"""Small data sets in COCO's format."""

import json

import numpy as np
import pytest
from pycocotools import mask as mask_tools

from halonet.data.detection.coco import CocoImages
from halonet.errors import UserError
from tests.data.samples import noise_image

WIDTH, HEIGHT = 12, 9


def rectangle(left, top, right, bottom):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def polygon(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def uncompressed(mask):
    # Column by column; the first run counts zeros and may be empty.
    pixels = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff([0, *ends, len(pixels)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if pixels[0] else runs}


def compressed(mask):
    run_lengths = mask_tools.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": run_lengths["counts"].decode()}


def image_entry(number, **changes):
    return {"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT} | changes


def instance(number, image, box=(2, 3, 7, 8), category=7, **changes):
    """An annotation with a rectangular mask; `box` is x0, y0, x1, y1."""
    left, top, right, bottom = box
    entry = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0}
    entry |= {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
    return entry | {"segmentation": polygon(*box)} | changes


def content_of(annotations, num_images=1, **changes):
    categories = [{"id": 90, "name": "zebra"}, {"id": 7, "name": "ant"}]
    images = [image_entry(number) for number in range(num_images, 0, -1)]
    return {"images": images, "annotations": annotations, "categories": categories} | changes


def write_coco(folder, content, name="train2017", images="train2017"):
    """Write a data set in COCO's layout; each image is noise with its id as seed."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / images).mkdir(parents=True, exist_ok=True)
    for entry in content["images"]:
        noise_image(entry["id"], (WIDTH, HEIGHT)).save(folder / images / f"{entry['id']}.png")
    (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
    return folder


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
