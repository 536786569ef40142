"""The embedded detection data set: a microscope image of 119 cell nuclei in two halves, shipped with the package."""

from pathlib import Path

NAME = "nuclei"
FOLDER = Path(__file__).parents[1] / "embedded" / "nuclei"
SPLITS = ("train", "test")


def annotation_file(split: str) -> Path:
    """Where the annotations of a half lie, in COCO's format, for `halonet.data.detection.coco.CocoImages`.

    Args:
        split: "train" (the upper half of the image) or "test" (the lower half).

    Returns:
        The file; its image lies in `FOLDER`.
    """
    return FOLDER / f"{split}.json"
