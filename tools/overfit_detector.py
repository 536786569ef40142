"""Let a detector learn a few photos by heart, and measure it on the same photos: whether all its parts can learn.

    python tools/overfit_detector.py path/to/tiny_coco --smallest 32 --output results/detector_overfit.json

Takes the first photos, by image id, of the training split of a COCO folder, with all their instances; with --smallest
only photos whose instances are all at least so many pixels wide, as the root of the box's area.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from halonet.data import load_detection_source
from halonet.detection import train
from halonet.training import resolve
from halonet.training.run import read_result

OVERRIDES = [
    "description=A Mask R-CNN with attention in its last stage learns a few photos by heart.",
    "model.in_chans=3",
    "model.boxes_per_image=64",
    "model.detections_per_image=100",
    "data.augmentation.in_chans=3",
    "data.augmentation.mean=[0.485, 0.456, 0.406]",
    "data.augmentation.std=[0.229, 0.224, 0.225]",
    "data.augmentation.min_size=256",
    "data.augmentation.max_size=320",
    "data.augmentation.train_resize=shortest",
    "data.augmentation.train_min_sizes=[256]",
    "data.augmentation.hflip=0",
    "data.augmentation.vflip=0",
    "data.test_split=train",
    "data.repeats=50",
    "schedule.warmup_steps=50",
]


def make_subset(data: Path, photos: int, smallest: float, folder: Path) -> None:
    source = load_detection_source(str(data), "train", skip_empty=True)
    truth = source.ground_truth
    small = {each["image_id"] for each in truth["annotations"] if each["bbox"][2] * each["bbox"][3] < smallest**2}
    kept = set([image for image in source.image_ids if image not in small][:photos])
    images = [image for image in truth["images"] if image["id"] in kept]
    content = truth | {
        "images": images,
        "annotations": [each for each in truth["annotations"] if each["image_id"] in kept],
    }
    (folder / "annotations").mkdir(parents=True)
    (folder / "train").mkdir()
    (folder / "annotations/instances_train.json").write_text(json.dumps(content))
    for image in images:
        (found,) = data.glob(f"train*/{image['file_name']}")
        shutil.copy(found, folder / "train")


def main() -> None:
    parser = argparse.ArgumentParser(description="Let a detector learn a few photos by heart.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=5)
    parser.add_argument("--smallest", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("overrides", nargs="*", help="fields of the recipe, such as engine.seed=1")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "subset"
        make_subset(options.data, options.photos, options.smallest, folder)
        classes = len(load_detection_source(str(folder), "train").class_names)
        overrides = [
            *OVERRIDES,
            f"data.source={folder}",
            f"model.num_classes={classes}",
            f"optimizer.batch_size={min(options.photos, 5)}",
            f"schedule.steps={options.steps}",
            f"schedule.drops=[{options.steps * 4 // 5}]",
            *options.overrides,
        ]
        run = train(resolve("detection/nuclei", overrides), options.run_dir or Path(place) / "run")
        result = read_result(run)
    photos = f"the first {options.photos} photos of {options.data.name}"
    result["data"] = f"{photos} without instances under {options.smallest:g} px" if options.smallest else photos
    result["per_class"] = {name: values for name, values in result["per_class"].items() if values["box_ap"] is not None}
    print(f"box AP50 {result['box_ap50']:.1f}, mask AP50 {result['mask_ap50']:.1f}, {result['seconds']:.0f} s")
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
