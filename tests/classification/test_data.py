import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from halonet.data import AugmentationConfig
from halonet.engine.data import Position
from halonet.errors import UserError
from halonet.training import ClassificationData, DataSection
from tests.engine.tiny import make_images

AUGMENTATION = AugmentationConfig(image_size=8, in_chans=1, mean=(0.4,), std=(0.2,), train_crop="pad", padding=2)


def data_of(
    images: Path, *, batch_size: int = 4, num_classes: int | None = None, seed: int = 1, **section
) -> ClassificationData:
    data = DataSection(**{"source": str(images), "augmentation": AUGMENTATION} | section)
    return ClassificationData(data, batch_size=batch_size, num_classes=num_classes, seed=seed)


def training_batches(data: ClassificationData) -> list[tuple[Tensor, Tensor]]:
    return [(images, targets) for images, targets in data.train_dataloader()]


def assert_equal_batches(actual: list[tuple[Tensor, Tensor]], expected: list[tuple[Tensor, Tensor]]) -> None:
    assert len(actual) == len(expected)
    for (images, targets), (expected_images, expected_targets) in zip(actual, expected, strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(targets, expected_targets)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_workers_or_global_state(images: Path, workers: int):
    expected = training_batches(data_of(images))
    torch.manual_seed(77)
    assert_equal_batches(training_batches(data_of(images, workers=workers)), expected)


def test_loaders_keep_the_global_random_state(images: Path):
    before = torch.get_rng_state()
    training_batches(data_of(images))
    list(data_of(images).val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_and_epoch_change_the_batches(images: Path):
    data = data_of(images)
    first = training_batches(data)
    data.position = Position(1, 0)
    second = training_batches(data)
    other = training_batches(data_of(images, seed=2))
    assert not torch.equal(first[0][0], second[0][0])
    assert not torch.equal(first[0][0], other[0][0])
    everything = torch.cat([image for image, _ in first]).flatten(1).sum(1).sort().values
    assert not torch.equal(everything, torch.cat([image for image, _ in second]).flatten(1).sum(1).sort().values)


def test_a_restored_position_yields_the_rest(images: Path):
    data = data_of(images)
    data.position = Position(2, 0)
    whole = training_batches(data)
    data.position = Position(2, 4)
    restored = data_of(images)
    restored.load_state_dict(data.state_dict())
    assert_equal_batches(training_batches(restored), whole[4:])
    assert len(restored.train_dataloader()) == len(whole)


def test_a_run_does_not_resume_with_other_images(images: Path, tmp_path: Path):
    state = data_of(images).state_dict()
    shutil.copytree(images, tmp_path / "fewer")
    (tmp_path / "fewer" / "train" / "left" / "0.png").unlink()
    with pytest.raises(UserError, match="has 23 training images, but had 24 when the checkpoint was written"):
        data_of(tmp_path / "fewer").load_state_dict(state)


def test_evaluation_sees_every_image_once(images: Path):
    data = data_of(images, batch_size=3)
    for loader in (data.val_dataloader(), data.test_dataloader()):
        targets = torch.cat([targets for _, targets in loader])
        assert targets.tolist() == [0] * 4 + [1] * 4
    assert_equal_batches(list(data.val_dataloader()), list(data.val_dataloader()))


def test_all_mistakes_in_the_data_are_reported_at_once(images: Path):
    with pytest.raises(UserError, match="24 training images, too few for one batch of 25: lower"):
        data_of(images, batch_size=25).setup()
    with pytest.raises(UserError, match="nowhere"):
        data_of(Path("nowhere/at/all")).setup()
    with pytest.raises(UserError, match="split"):
        data_of(images, test_split="tset").setup()
    data_of(images, test_split="tset").setup("fit")


def test_a_single_class_is_refused(tmp_path: Path):
    images = make_images(tmp_path / "images")
    for split in ("train", "val", "test"):
        shutil.rmtree(images / split / "right")
    with pytest.raises(UserError, match="has one class, 'left', but a classifier learns to tell two or more apart"):
        data_of(images).setup()
