"""The embedded detection data set: a microscope image of 119 cell nuclei in two halves, shipped with the package."""

from pathlib import Path

NAME = "nuclei"
FOLDER = Path(__file__).parents[1] / "embedded" / "nuclei"
SPLITS = ("train", "test")


def annotation_file(split: str) -> Path:
    """The annotation file of "train" (the upper half of the image) or "test" (the lower); images are in `FOLDER`."""
    return FOLDER / f"{split}.json"
