"""Finds instances in image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from halonet.data.detection.coco_file import distinct_labels
from halonet.data.detection.dataset import build_detection_transform
from halonet.data.images import open_image
from halonet.detection.checkpoint import load_detector
from halonet.detection.results import Masks, to_results
from halonet.engine.device import choose_device
from halonet.engine.files import check_output_folder, explain_full_disk, picture_name
from halonet.errors import UserError
from halonet.rules import Probability, check_arguments
from halonet.visual.instances import draw_instances


def predict(
    checkpoint: str | Path,
    images: Sequence[str | Path],
    *,
    min_score: float = 0.5,
    device: str = "auto",
    pictures: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Find the instances in image files, one image at a time.

    Args:
        checkpoint: A run folder, a `model.safetensors` or a `.ckpt`.
        images: Image files; for folders see `halonet.data.images.find_images`.
        min_score: Detections with a lower score are left out.
        device: "cpu", "cuda", ...; "auto" takes an accelerator if there is one.
        pictures: A folder for pictures of the images with their instances, NUMBER_STEM.png; made if it does not exist.
            None draws none.

    Returns:
        For each image, in order: `file`, `image_id`, `width` and `height` (pixels), `picture` (if drawn), and
        `instances`, best first, in COCO's results format with the class name as `label` (with the category id if
        several classes have that name). As in COCO, the id of an image is the number in its file name; if some have
        none, or the same, images are numbered from 1. An image that cannot be read has only its `file` and the reason
        as `error`.

    Raises:
        UserError: The checkpoint cannot be read, `min_score` is not between 0 and 1, or pictures cannot be written,
            which is checked first.
    """
    check_arguments(min_score=(min_score, Probability))
    if pictures is not None:
        check_output_folder(pictures)
    detector, information = load_detector(checkpoint)
    transform = build_detection_transform(detector.augmentation, train=False)
    target = choose_device(device)
    detector.to(target)
    category_ids = information["category_ids"]
    class_labels = distinct_labels(information["class_names"], [{"id": number} for number in category_ids])
    rows = []
    for number, (file, image_id) in enumerate(zip(images, _image_ids(images), strict=True)):
        try:
            picture = open_image(file)
        except UserError as error:
            rows.append({"file": str(file), "error": str(error)})
            continue
        pixels, _ = transform(picture, {})
        with torch.inference_mode():
            (detection,) = detector.detect([pixels.to(target)])
        kept = detection["scores"] >= min_score
        detection = {name: each[kept].cpu() for name, each in detection.items()}
        labels = [class_labels[label - 1] for label in detection["labels"].tolist()]
        results = to_results(detection, image_id, category_ids, size=pixels.shape[-2:])
        row: dict[str, Any] = {
            "file": str(file),
            "image_id": image_id,
            "width": picture.width,
            "height": picture.height,
            "instances": [result | {"label": label} for result, label in zip(results, labels, strict=True)],
        }
        if pictures is not None:
            path = Path(pictures) / picture_name(number, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            masks = Masks(results) if detector.has_masks else None
            boxes, scores = detection["boxes"].numpy(), detection["scores"].numpy()
            with explain_full_disk(path):
                draw_instances(picture, boxes, labels, scores, masks, min_score=min_score).save(path)
            row["picture"] = str(path)
        rows.append(row)
    return rows


def _image_ids(images: Sequence[str | Path]) -> list[int]:
    stems = [Path(image).stem for image in images]
    ids = [int(stem) for stem in stems if stem.isascii() and stem.isdigit()]
    return ids if len(set(ids)) == len(stems) else list(range(1, len(stems) + 1))
