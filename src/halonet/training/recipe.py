"""A recipe: one experiment as a typed record."""

from dataclasses import dataclass, field
from typing import Any, Literal

from halonet.data import AugmentationConfig
from halonet.data.nullable import OrNull
from halonet.errors import UserError

NOT_YET_RUN = "not yet run"


@dataclass(frozen=True, kw_only=True)
class ProvenanceSection:
    """What running the recipe here took and gave.

    Attributes:
        hardware: It ran on.
        time: It took.
        result: It gave, with the number of seeds; "not yet run" is an honest value.
    """

    hardware: str = NOT_YET_RUN
    time: str = NOT_YET_RUN
    result: str = NOT_YET_RUN


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """The network, as `halonet.create_model` takes it.

    Attributes:
        name: A row of `halonet.HALONETS`.
        num_classes: Of the data.
        in_chans: Channels of an image.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block, rising linearly from the first.
        overrides: Other fields of the model's config.
    """

    name: str
    num_classes: int = 1000
    in_chans: int = 3
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """The images.

    Attributes:
        source: A named data set or a folder.
        root: The folder that a named data set lies in; null for those that need none.
        train_images: How many training images to keep, the classes in equal parts; null for all.
        augmentation: Image size, channels, normalization, and what training does to images.
        validation_split: What is measured after each epoch, for choosing; null for nothing.
        test_split: What is measured once, at the end.
        workers: Processes that load images; 0 loads in the training process.
    """

    source: str
    root: str | None = None
    train_images: int | None = None
    augmentation: AugmentationConfig
    validation_split: str | None = "validation"
    test_split: str = "test"
    workers: int = 0


@dataclass(frozen=True, kw_only=True)
class OptimizerSection:
    """Nesterov SGD.

    Attributes:
        learning_rate: The peak, for the whole batch; null follows from the batch size.
        momentum: Ours: the paper names no value.
        weight_decay: L2 penalty.
        decay: On tensors with two axes or more ("matrices"), or on all; ours: the paper does not say.
        batch_size: Images per optimizer step, over all devices and accumulated micro-batches; null follows from the
            number of images.
        accumulate: Micro-batches per optimizer step.
    """

    learning_rate: OrNull[float]
    momentum: float = 0.9
    weight_decay: float = 2e-5
    decay: Literal["matrices", "all"] = "matrices"
    batch_size: OrNull[int] = 128
    accumulate: int = 1


@dataclass(frozen=True, kw_only=True)
class ScheduleSection:
    """A linear warm-up, then a cosine.

    Attributes:
        epochs: Of the whole run.
        warmup_epochs: May be a fraction.
        final_fraction: Of the peak learning rate, used by the last step.
    """

    epochs: int
    warmup_epochs: float = 0.0
    final_fraction: float = 1 / 128


@dataclass(frozen=True, kw_only=True)
class RegularizationSection:
    """What keeps the network from learning by heart, other than augmentation, dropout and weight decay.

    Attributes:
        label_smoothing: Part of each label given to all classes alike.
    """

    label_smoothing: float = 0.0


@dataclass(frozen=True, kw_only=True)
class EmaSection:
    """The moving average of the weights.

    Attributes:
        decay: What each step keeps of it in the long run (less at first); 0 turns it off.
    """

    decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class EngineSection:
    """How the computer does it; nothing here is part of the experiment, but the seed.

    Attributes:
        precision: Of the network's arithmetic; weights are always float32.
        accelerator: "cpu", "gpu", ...; "auto" takes what there is.
        devices: Processes on each node.
        nodes: Machines.
        strategy: Lightning's, such as "ddp".
        compile: Whether to `torch.compile` the network.
        clip_gradient: Largest norm of the gradient; null for none.
        seed: Of weights, order, augmentation, dropout and stochastic depth.
        checkpoint_every_steps: Optimizer steps between checkpoints; one more is written as each epoch begins.
        log_every_steps: Optimizer steps between lines of the log.
    """

    precision: Literal["fp32", "bf16-mixed", "16-mixed"] = "fp32"
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    compile: bool = False
    clip_gradient: float | None = None
    seed: int = 0
    checkpoint_every_steps: int = 100
    log_every_steps: int = 10


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment.

    Attributes:
        name: Its path among the recipes, without suffix; a file elsewhere is named by its stem.
        task: What is trained.
        description: What is trained, and how.
        reproduces: Which figure of the paper, or that it is our own.
        provenance: What it took and gave here.
        model: The network.
        data: The images.
        optimizer: Nesterov SGD.
        schedule: The learning rate over the run.
        regularization: Label smoothing.
        ema: The average of the weights.
        engine: How the computer does it.

    Raises:
        UserError: A value is out of its range.
    """

    name: str = ""
    task: Literal["classification"] = "classification"
    description: str
    reproduces: str
    provenance: ProvenanceSection = ProvenanceSection()
    model: ModelSection
    data: DataSection
    optimizer: OptimizerSection
    schedule: ScheduleSection
    regularization: RegularizationSection = RegularizationSection()
    ema: EmaSection = EmaSection()
    engine: EngineSection = EngineSection()

    def __post_init__(self) -> None:
        schedule = self.schedule
        check_values(
            self,
            common_rules(self)
            | {
                "data.train_images": (self.data.train_images is None or self.data.train_images >= 1, "at least 1"),
                "schedule.epochs": (schedule.epochs >= 1, "at least 1"),
                "schedule.warmup_epochs": (
                    0 <= schedule.warmup_epochs <= schedule.epochs,
                    f"from 0 to schedule.epochs, which is {schedule.epochs}",
                ),
                "schedule.final_fraction": (0 < schedule.final_fraction <= 1, "above 0 and at most 1"),
                "regularization.label_smoothing": (
                    0 <= self.regularization.label_smoothing < 1,
                    "at least 0 and below 1",
                ),
            },
        )


Rules = dict[str, tuple[bool, str]]
"""By the key of a value: whether it is within its range, and what it must be."""


def common_rules(recipe: Any) -> Rules:
    """What holds for every task's recipe.

    Args:
        recipe: With the sections `model`, `data`, `optimizer`, `ema` and `engine`.
    """
    optimizer, engine = recipe.optimizer, recipe.engine
    micro_batches = optimizer.accumulate * engine.devices * engine.nodes
    return {
        "model.num_classes": (recipe.model.num_classes is None or recipe.model.num_classes >= 1, "at least 1"),
        "model.in_chans": (
            recipe.model.in_chans == recipe.data.augmentation.in_chans,
            f"data.augmentation.in_chans, which is {recipe.data.augmentation.in_chans}",
        ),
        "data.workers": (recipe.data.workers >= 0, "at least 0"),
        "optimizer.learning_rate": (optimizer.learning_rate is None or optimizer.learning_rate > 0, "above 0"),
        "optimizer.momentum": (0 <= optimizer.momentum < 1, "at least 0 and below 1"),
        "optimizer.weight_decay": (optimizer.weight_decay >= 0, "at least 0"),
        "optimizer.accumulate": (optimizer.accumulate >= 1, "at least 1"),
        "engine.devices": (engine.devices >= 1, "at least 1"),
        "engine.nodes": (engine.nodes >= 1, "at least 1"),
        "optimizer.batch_size": (
            optimizer.batch_size is None
            or (optimizer.batch_size >= 1 and micro_batches >= 1 and optimizer.batch_size % micro_batches == 0),
            f"a positive multiple of accumulate x devices x nodes, which is {micro_batches}",
        ),
        "ema.decay": (0 <= recipe.ema.decay < 1, "at least 0 and below 1"),
        "engine.clip_gradient": (engine.clip_gradient is None or engine.clip_gradient > 0, "above 0, or null"),
        "engine.checkpoint_every_steps": (engine.checkpoint_every_steps >= 1, "at least 1"),
        "engine.log_every_steps": (engine.log_every_steps >= 1, "at least 1"),
    }


def check_values(recipe: Any, rules: Rules) -> None:
    """Refuse a recipe with a value out of its range.

    Raises:
        UserError: It names the first such key, its value and its rule.
    """
    for key, (holds, rule) in rules.items():
        if not holds:
            section, name = key.split(".")
            raise UserError(f"{key} is {getattr(getattr(recipe, section), name)}, but must be {rule}")
