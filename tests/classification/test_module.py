from pathlib import Path

import lightning
import pytest
import torch
from torch import Tensor, nn

import halonet
from halonet.data import AugmentationConfig
from halonet.training import (
    ClassificationData,
    Classifier,
    DataSection,
    OptimizerSection,
    RegularizationSection,
    ScheduleSection,
    load_checkpoint,
    train,
)
from tests.engine.tiny import NETWORK, make_images, tiny_recipe

# Warnings of Lightning in a plain Trainer: its own use of PyTorch, no worker processes, no validation.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
]
AUGMENTATION = AugmentationConfig(image_size=8, in_chans=1, mean=(0.4,), std=(0.2,), train_crop="none", crop_pct=1.0)


def classifier(*, warmup_epochs: float = 0.0, label_smoothing: float = 0.0, seed: int = 0, **optimizer) -> Classifier:
    return Classifier(
        halonet.create_model("h0", num_classes=2, in_chans=1, **NETWORK),
        OptimizerSection(**{"learning_rate": 0.1} | optimizer),
        ScheduleSection(epochs=2, warmup_epochs=warmup_epochs),
        regularization=RegularizationSection(label_smoothing=label_smoothing),
        seed=seed,
    )


def data_of(images: Path, batch_size: int = 4, **section) -> ClassificationData:
    return ClassificationData(
        DataSection(source=str(images), augmentation=AUGMENTATION, **section), batch_size=batch_size
    )


def plain_trainer(folder: Path, **options) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1} | options,
    )


class Recorder(lightning.Callback):
    """Records what a run did."""

    def __init__(self) -> None:
        self.learning_rates: list[float] = []
        self.noise: list[Tensor] = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *_) -> None:
        self.learning_rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_before_zero_grad(self, *_) -> None:
        self.noise.append(torch.rand(1))


def test_a_plain_trainer_fits_tests_and_saves(images: Path, tmp_path: Path):
    data = data_of(images)
    model = classifier(learning_rate=0.05)
    trainer = plain_trainer(tmp_path, max_epochs=2)
    trainer.fit(model, data)
    assert {"loss", "validation_loss", "validation_top1", "validation_top5"} <= set(trainer.callback_metrics)
    (measured,) = trainer.test(model, data, verbose=False)
    assert set(measured) == {"test_loss", "test_top1", "test_top5"}
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    loaded, information = load_checkpoint(tmp_path / "plain.ckpt")
    assert information["class_names"] == ["left", "right"]
    batch = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded(batch), model.network.eval()(batch))


def test_it_overfits_eight_images(tmp_path: Path):
    folder = make_images(tmp_path / "eight", {"train": 4, "val": 1, "test": 1})
    recipe = tiny_recipe(folder, epochs=30, regularized=False, batch_size=8)
    records = []

    class Watch(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            records.append(pl_module.epoch_metrics())

    train(recipe, tmp_path / "run", callbacks=[Watch()])
    assert records[-1]["top1"] == 100
    assert records[-1]["loss"] < 0.05 < 0.5 < records[0]["loss"]


def test_the_learning_rate_follows_the_schedule(images: Path, tmp_path: Path):
    data = data_of(images, validation_split=None)
    recorder = Recorder()
    model = classifier(learning_rate=0.5, warmup_epochs=0.5)
    plain_trainer(tmp_path, max_epochs=2, callbacks=[recorder], enable_checkpointing=False).fit(model, data)
    assert len(recorder.learning_rates) == 12
    assert recorder.learning_rates[:4] == pytest.approx([0.5 / 3, 1 / 3, 0.5, 0.5])
    assert recorder.learning_rates[-1] == 0.5 / 128


def test_the_schedule_counts_optimizer_steps(images: Path, tmp_path: Path):
    data = data_of(images, batch_size=8, validation_split=None)
    recorder = Recorder()
    trainer = plain_trainer(
        tmp_path, max_epochs=2, callbacks=[recorder], enable_checkpointing=False, accumulate_grad_batches=2
    )
    trainer.fit(classifier(learning_rate=0.5, warmup_epochs=1.0), data)
    assert trainer.global_step == 6
    assert recorder.learning_rates[::2] == recorder.learning_rates[1::2]
    middle = 0.5 * (1 + 1 / 128) / 2
    assert recorder.learning_rates[::2] == pytest.approx([0.5 / 3, 1 / 3, 0.5, 0.5, middle, 0.5 / 128])


def test_each_batch_has_its_own_random_numbers(images: Path, tmp_path: Path):
    runs = []
    for state in (1, 2):
        data = data_of(images, validation_split=None)
        recorder = Recorder()
        trainer = plain_trainer(tmp_path, max_epochs=2, callbacks=[recorder], enable_checkpointing=False)
        torch.manual_seed(state)
        trainer.fit(classifier(seed=5), data)
        runs.append(torch.cat(recorder.noise))
    assert torch.equal(*runs)
    assert len(runs[0].unique()) == 12


def test_only_matrices_decay(images: Path, tmp_path: Path):
    def decayed(decay: str) -> dict[str, float]:
        model = classifier(weight_decay=0.25, decay=decay)
        data = data_of(images, validation_split=None)
        trainer = plain_trainer(tmp_path, limit_train_batches=1, enable_checkpointing=False)
        trainer.fit(model, data)
        groups = trainer.optimizers[0].param_groups
        decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
        return {name: decays[id(parameter)] for name, parameter in model.network.named_parameters()}

    matrices = decayed("matrices")
    assert {decay for name, decay in matrices.items() if name.endswith("bias")} == {0.0}
    assert matrices["classifier.weight"] == 0.25
    tables = [name for name in matrices if name.endswith("embedding")]
    assert tables
    assert {matrices[name] for name in tables} == {0.0}
    assert set(decayed("all").values()) == {0.25}


def test_only_training_smooths_labels(images: Path, tmp_path: Path):
    losses = []
    for smoothing in (0.0, 0.5):
        torch.manual_seed(0)
        model = classifier(learning_rate=1e-9, label_smoothing=smoothing)
        nn.init.normal_(model.network.classifier.weight)
        trainer = plain_trainer(tmp_path, enable_checkpointing=False)
        trainer.fit(model, data_of(images))
        losses.append((trainer.callback_metrics["loss"], trainer.callback_metrics["validation_loss"]))
    assert losses[0][0] != losses[1][0]
    torch.testing.assert_close(losses[0][1], losses[1][1], rtol=1e-4, atol=0.0)
