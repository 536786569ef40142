"""The map-style dataset for classification: images of a source, transformed reproducibly."""

from collections.abc import Callable

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from halonet.data.classification.image_source import ImageSource
from halonet.data.keyed import KeyedItems

Item = tuple[Float[Tensor, "channels height width"], int]
"""An image and its label."""


class KeyedDataset(KeyedItems[Item]):
    """Transformed images and labels of a source; their randomness depends only on the key (see `KeyedItems`).

    Args:
        source: The images.
        transform: Converts a PIL image to a tensor [channels, height, width], see
            `halonet.data.classification.transforms.build_transform`.
        seed: The run's seed.
        train: Whether the transform is random; keys are then (epoch, index), else the index.
    """

    def __init__(
        self,
        source: ImageSource,
        transform: Callable[[Image.Image], Tensor],
        seed: int,
        train: bool,
    ) -> None:
        super().__init__(seed, train)
        self.source = source
        self.transform = transform

    @property
    def class_names(self) -> list[str]:
        """The source's class names, by label."""
        return self.source.class_names

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source)

    def item(self, index: int) -> Item:
        """Return the transformed image and its label."""
        image, label = self.source[index]
        return self.transform(image), label
