"""The map-style dataset of classification: images of a source, transformed under a key."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from halonet.data.randomness import derive_seed, isolated_random_state
from halonet.data.sources import ImageSource

ItemKey = int | tuple[int, int]
"""An image's index, or (epoch, index)."""

Item = tuple[Float[Tensor, "channels height width"], int]
"""An image and its label."""


class KeyedDataset(Dataset[tuple[Tensor, int]]):
    """Images and labels of a source, each transformed with randomness that depends on its key alone.

    In training an item is asked for by (epoch, index), and its transform runs with the global generators seeded from
    (seed, epoch, index) and restored afterwards. So an item depends neither on the order of requests, nor on the number
    of workers, nor on any global random state, and moves none. In evaluation, where the transform draws nothing, an
    item is asked for by its index; (epoch, index) is accepted too.

    Args:
        source: The images.
        transform: Turns a PIL image into a tensor [channels, height, width], see
            `halonet.data.transforms.build_transform`.
        seed: The run's seed.
        train: Whether the transform is random.
    """

    def __init__(
        self,
        source: ImageSource,
        transform: Callable[[Image.Image], Tensor],
        seed: int,
        train: bool,
    ) -> None:
        self.source = source
        self.transform = transform
        self.seed = seed
        self.train = train

    @property
    def class_names(self) -> list[str]:
        """The source's class names, by label."""
        return self.source.class_names

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source)

    def __getitem__(self, key: ItemKey) -> Item:
        """Return the transformed image and its label, which is in [0, len(class_names))."""
        if not self.train:
            return self._item(key if isinstance(key, int) else key[1])
        with isolated_random_state() as seed_generators:
            return self._keyed_item(key, seed_generators)

    def __getitems__(self, keys: Sequence[ItemKey]) -> list[Item]:
        """Return the items of a batch: PyTorch's loader calls this, and the global state is put aside only once."""
        if not self.train:
            return [self[key] for key in keys]
        with isolated_random_state() as seed_generators:
            return [self._keyed_item(key, seed_generators) for key in keys]

    def _keyed_item(self, key: ItemKey, seed_generators: Callable[[int], None]) -> Item:
        if isinstance(key, int):
            raise TypeError(
                f"a training item is named by (epoch, index), got {key}: use a sampler that yields such pairs"
            )
        seed_generators(derive_seed(self.seed, *key))
        return self._item(key[1])

    def _item(self, index: int) -> Item:
        image, label = self.source[index]
        return self.transform(image), label
