"""A tiny training for tests: bright rectangles and discs on dark noise, and a small network."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from halonet.data import DetectionAugmentation
from halonet.detection import FasterRCNN, create_detector
from halonet.detection.recipe import DetectionDataSection, DetectionRecipe, DetectorSection, StepSchedule
from halonet.recipes.schema import EmaSection, EngineSection, OptimizerSection

SPLITS = {"train": 6, "val": 3}
CATEGORIES = [{"id": 3, "name": "box"}, {"id": 7, "name": "disc"}]
BACKBONE = {
    "depths": [1, 1],
    "width_ratio": 0.125,
    "bottleneck_ratio": 1.0,
    "num_heads": [2, 2],
    "stem": "conv3x3_stride2",
    "stem_width": 8,
    "block_size": 4,
    "halo_size": 1,
}
SMALL = {"pyramid_channels": 8, "box_channels": 16, "mask_channels": 8, "anchors_per_image": 32, "boxes_per_image": 16}


def make_scenes(folder: Path, splits: dict[str, int] = SPLITS, size: tuple[int, int] = (48, 64)) -> Path:
    """Write a COCO folder with two instances per image, of categories 3 and 7, masks as polygons."""
    generator = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True)
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    for split, count in splits.items():
        (folder / split).mkdir()
        images, annotations = [], []
        for number in range(1, count + 1):
            pixels = generator.integers(0, 60, (height, width, 3), dtype=np.uint8)
            for category, left in ((3, 4), (7, width // 2 + 4)):
                x, y = left + int(generator.integers(0, 8)), int(generator.integers(4, height // 2))
                side = int(generator.integers(12, 18))
                if category == 3:
                    polygon = [x, y, x + side, y, x + side, y + side, x, y + side]
                    inside = (rows >= y) & (rows < y + side) & (columns >= x) & (columns < x + side)
                else:
                    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
                    center, radius = np.array([x + side / 2, y + side / 2]), side / 2
                    points = center + radius * np.stack([np.cos(turns), np.sin(turns)], 1)
                    polygon = points.flatten().tolist()
                    inside = (columns + 0.5 - center[0]) ** 2 + (rows + 0.5 - center[1]) ** 2 <= radius**2
                pixels[inside] += np.array([150, 40, 0] if category == 3 else [0, 60, 150], dtype=np.uint8)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": category,
                        "bbox": [x, y, side, side],
                        "area": float(inside.sum()),
                        "segmentation": [polygon],
                        "iscrowd": 0,
                    }
                )
            Image.fromarray(pixels).save(folder / split / f"{number:03}.png")
            images.append({"id": number, "file_name": f"{number:03}.png", "height": height, "width": width})
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


def without_masks(folder: Path) -> Path:
    """Remove the masks, as in exports of Roboflow without masks."""
    for file in (folder / "annotations").iterdir():
        content = json.loads(file.read_text())
        for annotation in content["annotations"]:
            annotation["segmentation"] = []
        file.write_text(json.dumps(content))
    return folder


def tiny_augmentation(**changes: Any) -> DetectionAugmentation:
    values = {"min_size": 48, "max_size": 96, "train_min_sizes": (40, 48), "mean": (0.2,) * 3, "std": (0.2,) * 3}
    return DetectionAugmentation(**(values | changes))


def tiny_detector(**settings: Any) -> FasterRCNN:
    torch.manual_seed(0)
    return create_detector("tiny28", 2, tiny_augmentation(), backbone_overrides=BACKBONE, **(SMALL | settings))


def tiny_recipe(
    data: Path | str,
    *,
    steps: int = 7,
    batch_size: int = 2,
    init: str | None = None,
    masks: bool = True,
    workers: int = 0,
    **engine: Any,
) -> DetectionRecipe:
    """Epochs have three steps, so the seven steps end within the third epoch."""
    return DetectionRecipe(
        name="tiny",
        description="Boxes and discs.",
        reproduces="nothing",
        model=DetectorSection(name="tiny28", num_classes=2, init=init, masks=masks, overrides=dict(BACKBONE), **SMALL),
        data=DetectionDataSection(source=str(data), augmentation=tiny_augmentation(), workers=workers),
        optimizer=OptimizerSection(learning_rate=0.02, batch_size=batch_size, weight_decay=1e-4),
        schedule=StepSchedule(steps=steps, warmup_steps=2, drops=(5,)),
        ema=EmaSection(decay=0.9),
        engine=EngineSection(**({"accelerator": "cpu", "log_every_steps": 2, "checkpoint_every_steps": 1} | engine)),
    )
