"""Time average precision of boxes and masks on as many detections as COCO's validation set has.

Ground truth and detections are made up, with COCO's statistics: 5,000 images of 640 x 480 pixels, 7 instances an image
in 80 classes of very different frequency, polygons as ground truth; 100 detections an image, most of them wrong.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pycocotools import mask as run_lengths

from halonet.benchmark.record import Row
from halonet.benchmark.settings import Settings
from halonet.benchmark.timing import time_in_turns
from halonet.detection.average_precision import average_precision

HEIGHT, WIDTH, CLASSES = 480, 640, 80
EVALUATORS: tuple[Literal["faster-coco-eval", "pycocotools"], ...] = ("faster-coco-eval", "pycocotools")
KINDS: tuple[Literal["bbox", "segm"], ...] = ("bbox", "segm")


def make_outlines(boxes: np.ndarray, random: np.random.Generator, points: int = 40) -> np.ndarray:
    """Wavy ellipses [n, points, 2] in boxes [n, 4] of x, y, width, height, with run lengths as long as real ones."""
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radii = 1 + random.normal(0, 0.08, (len(boxes), points, 1)).clip(-0.3, 0.3)
    circle = radii * np.stack([np.cos(angles), np.sin(angles)], -1)
    outlines = boxes[:, None, :2] + (1 + circle) / 2 * boxes[:, None, 2:]
    return outlines.clip(0, (WIDTH, HEIGHT))


def make_boxes(count: int, random: np.random.Generator) -> np.ndarray:
    """Boxes [n, 4] of x, y, width and height: two in five small, one in four large, as in COCO."""
    sides = np.exp(random.normal(np.log(45), 1, (count, 1)) + random.normal(0, 0.3, (count, 2)))
    sides = sides.clip(4, (WIDTH, HEIGHT))
    return np.concatenate([random.random((count, 2)) * ((WIDTH, HEIGHT) - sides), sides], 1)


def make_image(image: int, detections: int, random: np.random.Generator) -> tuple[list[dict], list[dict]]:
    """The annotations and the results of an image."""
    # The most frequent class has about 30 % of COCO's instances, the rarest 0.02 %.
    frequencies = 1 / np.arange(1, CLASSES + 1) ** 1.2
    frequencies /= frequencies.sum()
    count = 1 + random.poisson(6)
    boxes, classes = make_boxes(count, random), 1 + random.choice(CLASSES, count, p=frequencies)
    outlines = make_outlines(boxes, random)
    annotations = [
        {
            "image_id": image,
            "category_id": int(category),
            "bbox": box.tolist(),
            "area": float(box[2] * box[3] * np.pi / 4),
            "segmentation": [outline.ravel().tolist()],
            "iscrowd": 0,
        }
        for box, category, outline in zip(boxes, classes, outlines, strict=True)
    ]
    # Half of the detections lie about an instance, with more or less of an error; the others anywhere.
    near = random.integers(0, count, detections // 2)
    errors = random.normal(0, 1, (len(near), 4)) * random.gamma(1, 0.15, (len(near), 1))
    shifts, growths = errors[:, :2] * boxes[near, 2:], np.exp(errors[:, 2:].clip(-1, 1))
    found = np.concatenate([boxes[near, :2] + shifts, boxes[near, 2:] * growths], 1)
    found = np.concatenate([found, make_boxes(detections - len(near), random)])
    right = random.random(len(near)) < 0.7
    guesses = 1 + random.choice(CLASSES, detections, p=frequencies)
    guesses[: len(near)] = np.where(right, classes[near], guesses[: len(near)])
    scores = random.beta(0.4, 3, detections)
    scores[: len(near)] += right * random.random(len(near)) * np.exp(-3 * np.abs(errors).mean(1)) * 0.6
    masks: Any = run_lengths.frPyObjects(
        [outline.ravel().tolist() for outline in make_outlines(found, random)], HEIGHT, WIDTH
    )
    results = [
        {
            "image_id": image,
            "category_id": int(category),
            "bbox": box.tolist(),
            "score": float(min(score, 1)),
            "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
        }
        for box, category, score, mask in zip(found, guesses, scores, masks, strict=True)
    ]
    return annotations, results


def make_data(images: int, detections: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and results of all images."""
    random = np.random.default_rng(0)
    annotations, results = [], []
    for image in range(1, images + 1):
        of_image = make_image(image, detections, random)
        annotations += of_image[0]
        results += of_image[1]
    truth = {
        "images": [{"id": image, "height": HEIGHT, "width": WIDTH} for image in range(1, images + 1)],
        "annotations": [annotation | {"id": number} for number, annotation in enumerate(annotations, 1)],
        "categories": [{"id": category, "name": f"class {category}"} for category in range(1, CLASSES + 1)],
    }
    return truth, results


def measure(images: int, detections: int, settings: Settings, *, both: bool) -> Iterator[Row]:
    """Time faster-coco-eval, and pycocotools too if `both`; yield a row for boxes and one for masks."""
    truth, results = make_data(images, detections)
    facts = {"images": images, "instances": len(truth["annotations"]), "detections": len(results)}
    for kind in KINDS:
        found = {}

        def evaluate(evaluator: Any, kind: Any = kind, found: dict[str, Any] = found) -> None:
            found[evaluator] = average_precision(truth, results, kind, evaluator=evaluator).summary

        steps = {each: (lambda each=each: evaluate(each)) for each in (EVALUATORS if both else EVALUATORS[:1])}
        milliseconds = time_in_turns(steps, settings, warm_ups=0)
        first, *others = found.values()
        differences = [abs((first[name] or 0) - (other[name] or 0)) for other in others for name in first]
        yield Row(
            case=f"{images} images",
            task=kind,
            baseline=EVALUATORS[0],
            facts=facts | {"ap": first["ap"]} | ({"largest_difference": max(differences)} if both else {}),
            milliseconds=milliseconds,
        )
