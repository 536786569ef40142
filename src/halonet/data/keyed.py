"""Items whose randomness depends on their key alone."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from torch.utils.data import Dataset

from halonet.data.randomness import derive_seed, isolated_random_state

ItemKey = int | tuple[int, int]
"""An image's index, or (epoch, index)."""

ItemT = TypeVar("ItemT")


class KeyedItems(Dataset[ItemT], Generic[ItemT]):
    """A map-style dataset whose items are each made with randomness that depends on its key alone.

    In training an item is asked for by (epoch, index), and is made with the global generators seeded from
    (seed, epoch, index) and restored afterwards. So an item depends neither on the order of requests, nor on the number
    of workers, nor on any global random state, and moves none. In evaluation, where nothing is drawn, an item is asked
    for by its index; (epoch, index) is accepted too.

    Args:
        seed: The run's seed.
        train: Whether items are random.
    """

    def __init__(self, seed: int, train: bool) -> None:
        self.seed = seed
        self.train = train

    @abstractmethod
    def item(self, index: int) -> ItemT:
        """Make an item, drawing from the global generators."""

    def __getitem__(self, key: ItemKey) -> ItemT:
        """Return the item of a key."""
        if not self.train:
            return self.item(key if isinstance(key, int) else key[1])
        with isolated_random_state() as seed_generators:
            return self._keyed_item(key, seed_generators)

    def __getitems__(self, keys: Sequence[ItemKey]) -> list[ItemT]:
        """Return the items of a batch: PyTorch's loader calls this, and the global state is put aside only once."""
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
