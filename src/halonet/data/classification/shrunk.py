"""Large photographs, scaled down and kept in memory, so that each is decoded once in a run."""

from PIL import Image

from halonet.data.classification.image_source import ImageSource, inspect_source, labels_of, names_of, read_scaled
from halonet.data.images import Header

MEMORY = 2**31  # bytes of pixels kept per process; further images are read each time


class ShrunkImages:
    """The images of a source, scaled down to what training needs, whether or not they come from memory.

    Args:
        source: The images.
        shorter_side: Largest length of an image's shorter side, in pixels.
        memory: How many bytes of pixels to keep.
    """

    def __init__(self, source: ImageSource, shorter_side: int, memory: int = MEMORY) -> None:
        self.class_names = source.class_names
        self.variant = getattr(source, "variant", None)
        self._source = source
        self._shorter_side = shorter_side
        self._memory = memory
        self._kept: dict[int, tuple[Image.Image, int]] = {}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return an image and its label."""
        if index not in self._kept:
            image, label = read_scaled(self._source, index, self._shorter_side)
            size = image.width * image.height * len(image.getbands())
            if size > self._memory:
                return image, label
            self._memory -= size
            self._kept[index] = image, label
        return self._kept[index]

    def inspect(self, index: int) -> Header:
        """Return the header of the stored image."""
        return inspect_source(self._source, index)

    @property
    def labels(self) -> list[int]:
        """The labels of all images."""
        return labels_of(self._source)

    @property
    def names(self) -> list[str]:
        """The names of all images."""
        return names_of(self._source)
