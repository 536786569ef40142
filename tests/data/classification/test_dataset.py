import inspect
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from halonet.data.classification.dataset import KeyedDataset
from halonet.data.classification.sources import load_source
from halonet.data.classification.transforms import AugmentationConfig, build_transform
from halonet.errors import UserError
from tests.data.samples import global_states, write_classes

# Together these steps draw from the generators of Python, NumPy and PyTorch.
AUGMENTATION = AugmentationConfig(
    image_size=28,
    in_chans=1,
    mean=(0.3,),
    std=(0.3,),
    color_jitter=0.3,
    randaugment_magnitude=9,
    random_erasing=0.5,
)
KEYS = [(epoch, index) for epoch in range(2) for index in range(12)]


def make_dataset(train=True, seed=0):
    transform = build_transform(AUGMENTATION, train)
    return KeyedDataset(load_source("fashion-mnist", "validation"), transform, seed, train)


def same(first, second):
    return torch.equal(first[0], second[0]) and first[1] == second[1]


def test_item_does_not_depend_on_the_order_of_requests():
    dataset = make_dataset()
    forward = {key: dataset[key] for key in KEYS}
    backward = {key: dataset[key] for key in reversed(KEYS)}
    batch = dict(zip(KEYS, make_dataset().__getitems__(KEYS), strict=True))
    for key in KEYS:
        assert same(forward[key], backward[key])
        assert same(forward[key], batch[key])


def test_item_does_not_depend_on_the_number_of_workers():
    def batches(workers):
        loader = DataLoader(
            make_dataset(), batch_size=5, sampler=KEYS, num_workers=workers, generator=torch.Generator()
        )
        return list(loader)

    alone, shared = batches(0), batches(2)
    assert len(alone) == len(shared) == 5
    for (images, labels), (other_images, other_labels) in zip(alone, shared, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def one_by_one(dataset, keys):
    return [dataset[key] for key in keys]


# The run-time type checks of lists, which only tests have, draw from Python's global generator: they are removed here.
@pytest.mark.parametrize("fetch", [one_by_one, inspect.unwrap(KeyedDataset.__getitems__)], ids=["item", "batch"])
def test_item_leaves_the_global_generators_alone(fetch):
    dataset = make_dataset()
    items = []
    for seed in (1, 2):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)  # noqa: NPY002
        before = global_states()
        items.append(fetch(dataset, KEYS))
        assert global_states() == before
    assert all(same(first, second) for first, second in zip(*items, strict=True))


def test_augmentation_differs_by_seed_epoch_and_image():
    dataset = make_dataset()
    assert not torch.equal(dataset[0, 3][0], dataset[1, 3][0])
    assert not torch.equal(dataset[0, 3][0], make_dataset(seed=1)[0, 3][0])
    # The same picture is augmented differently under other indices.
    dataset.source = [dataset.source[0]] * 2
    assert not torch.equal(dataset[0, 0][0], dataset[0, 1][0])


def test_failed_item_leaves_the_global_generators_alone(tmp_path):
    folder = write_classes(tmp_path, {"ant": 1})
    dataset = KeyedDataset(load_source(str(folder), "all"), build_transform(AUGMENTATION, True), 0, train=True)
    (folder / "ant/0.png").write_bytes(b"")
    before = global_states()
    with pytest.raises(UserError, match=r"0\.png"):
        dataset[0, 0]
    assert global_states() == before


def test_worker_names_an_unreadable_image(tmp_path):
    folder = write_classes(tmp_path, {"ant": 1})
    dataset = KeyedDataset(load_source(str(folder), "all"), build_transform(AUGMENTATION, False), 0, train=False)
    (folder / "ant/0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"0\.png is empty \(0 bytes\): replace or remove it"):
        next(iter(DataLoader(dataset, num_workers=1)))


def test_evaluation_takes_indices_and_augments_nothing():
    dataset = make_dataset(train=False)
    image, label = dataset.source[5]
    expected = (torch.from_numpy(np.array(image)).float() / 255 - 0.3) / 0.3
    assert dataset[5][0].shape == (1, 28, 28)
    assert dataset[5][1] == label
    assert same(dataset[5], dataset[0, 5])
    assert same(dataset[5], dataset[7, 5])
    # Only the border that crop_pct cuts off is missing.
    assert (dataset[5][0][0] - expected).abs().mean() < expected.abs().mean()


def test_training_requires_an_epoch():
    with pytest.raises(TypeError, match=r"named by \(epoch, index\), got 3"):
        make_dataset()[3]


def test_dataset_has_length_and_classes():
    dataset = make_dataset()
    assert len(dataset) == 1_000
    assert dataset.class_names[9] == "Ankle boot"
