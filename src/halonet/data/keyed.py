"""Datasets whose random items depend only on their key."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from torch.utils.data import Dataset

from halonet.data.randomness import derive_seed, isolated_random_state

ItemKey = int | tuple[int, int]
"""An image's index, or (epoch, index)."""

ItemT = TypeVar("ItemT")


class KeyedItems(Dataset[ItemT], Generic[ItemT]):
    """A map-style dataset whose random items depend only on their key.

    In training the key is (epoch, index): the global generators are seeded from (seed, epoch, index) while the item is
    made, and restored afterwards. So items do not depend on the order of requests, the number of workers or any global
    random state. In evaluation, where nothing is random, the key is the index; (epoch, index) is accepted too.
    """

    def __init__(self, seed: int, train: bool) -> None:
        self.seed = seed
        self.train = train

    @abstractmethod
    def item(self, index: int) -> ItemT:
        """Make an item; it may draw from the global generators."""

    def __getitem__(self, key: ItemKey) -> ItemT:
        """Return the item of a key."""
        if not self.train:
            return self.item(key if isinstance(key, int) else key[1])
        with isolated_random_state() as seed_generators:
            return self._keyed_item(key, seed_generators)

    def __getitems__(self, keys: Sequence[ItemKey]) -> list[ItemT]:
        """Return the items of a batch; PyTorch's loader calls this, which saves the global state only once."""
        if not self.train:
            return [self[key] for key in keys]
        with isolated_random_state() as seed_generators:
            return [self._keyed_item(key, seed_generators) for key in keys]

    def _keyed_item(self, key: ItemKey, seed_generators: Callable[[int], None]) -> ItemT:
        if isinstance(key, int):
            raise TypeError(
                f"a training item is named by (epoch, index), got {key}: use a sampler that yields such pairs"
            )
        seed_generators(derive_seed(self.seed, *key))
        return self.item(key[1])
