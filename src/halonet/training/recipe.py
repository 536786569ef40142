"""A recipe: one experiment as a typed record. What all tasks share comes first, then that of classification."""

import dataclasses
import functools
import re
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from halonet.data import AugmentationConfig
from halonet.data.nullable import OrNull
from halonet.errors import UserError, unknown_name
from halonet.models import HALONETS, HaloNetConfig, configure
from halonet.models.config import Classes, DropRate, InChans
from halonet.rules import (
    Complaint,
    Count,
    FilledText,
    Rule,
    RuleError,
    Text,
    Workers,
    check_together,
    within,
)
from halonet.schemas import record

RecipeT = TypeVar("RecipeT", bound="AnyRecipe")

NOT_YET_RUN = "not yet run"

LONGEST_NAME, LONGEST_PART = 200, 100


def _is_name(name: str) -> bool:
    """Whether a name is a path that stays below the folder of runs; no name at all is for runs that get a folder."""
    parts = name.split("/")
    return name == "" or (
        len(name) <= LONGEST_NAME
        and all(part.strip(". ") != "" and len(part) <= LONGEST_PART for part in parts)
        and re.search(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]", name) is None
    )


Name = Annotated[
    str,
    Rule(
        f"a path below runs/, such as imagenet/h0: of at most {LONGEST_NAME} letters, {LONGEST_PART} from one / to the "
        "next, without .., backslash and control characters",
        _is_name,
    ),
]
LearningRate = Annotated[float, within(above=0)]
Fraction = Annotated[float, within(above=0, most=1)]
Part = Annotated[float, within(least=0, below=1)]
Seed = Annotated[int, within(least=0, below=2**63)]


@record
class ProvenanceSection:
    """What running the recipe here took and gave.

    Attributes:
        hardware: It ran on.
        time: It took.
        result: It gave, with the number of seeds; "not yet run" is an honest value.
    """

    hardware: Text = NOT_YET_RUN
    time: Text = NOT_YET_RUN
    result: Text = NOT_YET_RUN


@record
class ModelSection:
    """The network, as `halonet.create_model` takes it.

    Attributes:
        name: A row of `halonet.HALONETS`; null follows from the data.
        num_classes: Of the data; null follows from the data.
        in_chans: Channels of an image.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block, rising linearly from the first.
        overrides: Other fields of the model's config.
    """

    name: OrNull[str]
    num_classes: OrNull[Classes] = 1000
    in_chans: InChans = 3
    drop_rate: DropRate = 0.0
    drop_path_rate: DropRate = 0.0
    overrides: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name is not None:
            check_model(self)


@record
class DataSection:
    """The images.

    Attributes:
        source: A named data set or a folder; null must be replaced on the command line.
        root: The folder that a named data set lies in; null for those that need none.
        train_images: How many training images to keep, the classes in equal parts; null for all.
        augmentation: Image size, channels, normalization, and what training does to images.
        validation_split: What is measured after each epoch, for choosing; null for nothing.
        test_split: What is measured once, at the end; null takes "test", or the validation split where there is none.
        hold_out: Where the data has no validation split, the part of each class to hold out as one, drawn by the
            images' names and the seed; null holds every tenth image out, in their stored order.
        shrink: Scale images down as they are read, to a shorter side of this many times `image_size`, and keep them in
            memory; null leaves them as they are.
        workers: Processes that load images; 0 loads in the training process.
    """

    source: OrNull[FilledText]
    root: FilledText | None = None
    train_images: Count | None = None
    augmentation: AugmentationConfig
    validation_split: FilledText | None = "validation"
    test_split: OrNull[FilledText] = "test"
    hold_out: Annotated[float, within(above=0, below=1)] | None = None
    shrink: Annotated[float, within(least=1, most=1_000)] | None = None
    workers: Workers = 0


@record
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

    learning_rate: OrNull[LearningRate]
    momentum: Part = 0.9
    weight_decay: Annotated[float, within(least=0, most=1_000)] = 2e-5
    decay: Literal["matrices", "all"] = "matrices"
    batch_size: OrNull[Count] = 128
    accumulate: Count = 1


@record
class ScheduleSection:
    """A linear warm-up, then a cosine.

    Attributes:
        epochs: Of the whole run; null follows from the number of images.
        warmup_epochs: May be a fraction; null follows from the epochs.
        final_fraction: Of the peak learning rate, used by the last step.
    """

    epochs: OrNull[Count]
    warmup_epochs: OrNull[Annotated[float, within(least=0)]] = 0.0
    final_fraction: Fraction = 1 / 128


@record
class RegularizationSection:
    """What keeps the network from learning by heart, other than augmentation, dropout and weight decay.

    Attributes:
        label_smoothing: Part of each label given to all classes alike.
    """

    label_smoothing: Part = 0.0


@record
class EmaSection:
    """The moving average of the weights.

    Attributes:
        decay: What each step keeps of it in the long run (less at first); 0 turns it off.
    """

    decay: Part = 0.0


@record
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
    accelerator: FilledText = "auto"
    devices: Annotated[int, within(least=1, most=1_024)] = 1
    nodes: Annotated[int, within(least=1, most=65_536)] = 1
    strategy: FilledText = "auto"
    compile: bool = False
    clip_gradient: Annotated[float, within(above=0)] | None = None
    seed: Seed = 0
    checkpoint_every_steps: Count = 100
    log_every_steps: Count = 10


@record
class AnyRecipe:
    """One experiment of any task, which gives `model`, `data` and `schedule` sections of its own.

    Attributes:
        name: Its path among the recipes, without suffix; a file elsewhere is named by its stem.
        task: What is trained.
        description: What is trained, and how.
        reproduces: Which figure of the paper, or that it is our own.
        provenance: What it took and gave here.
        model: The network; `name`, `num_classes` and `in_chans` are among its fields.
        data: The images; `source`, `augmentation` and `test_split` are among its fields.
        optimizer: Nesterov SGD.
        schedule: The learning rate over the run.
        ema: The average of the weights.
        engine: How the computer does it.

    Raises:
        RuleError: Values break rules; it names all of them.
    """

    follow_from_data: ClassVar[tuple[str, ...]] = ()
    """Dotted keys of values that may be null, and then follow from the data."""

    name: Name = ""
    task: str = ""
    description: Text = ""
    reproduces: Text = ""
    provenance: ProvenanceSection = ProvenanceSection()
    model: Any
    data: Any
    optimizer: OptimizerSection
    schedule: Any
    ema: EmaSection = EmaSection()
    engine: EngineSection = EngineSection()

    def __post_init__(self) -> None:
        optimizer, engine = self.optimizer, self.engine
        micro_batches = optimizer.accumulate * engine.devices * engine.nodes
        rules = {
            "model.in_chans": (
                self.model.in_chans == self.data.augmentation.in_chans,
                f"data.augmentation.in_chans, which is {self.data.augmentation.in_chans}",
            ),
            "optimizer.batch_size": (
                optimizer.batch_size is None or optimizer.batch_size % micro_batches == 0,
                f"a positive multiple of accumulate x devices x nodes, which is {micro_batches}",
            ),
        }
        check_together(self, rules | self._rules())

    def _rules(self) -> dict[str, tuple[bool, str]]:
        """What else must fit together, see `halonet.rules.check_together`."""
        return {}

    def missing_values(self) -> list[str]:
        """Dotted keys of the values that still have to follow from the data."""
        return [key for key in self.follow_from_data if value_of(self, key) is None]

    def require_complete(self) -> None:
        """Refuse to go on with values that still have to follow from the data.

        Raises:
            UserError: It names them.
        """
        if missing := self.missing_values():
            raise UserError(
                f"recipe {self.name} leaves {', '.join(missing)} null: take them from the data with fill_in(recipe), "
                "or give them values"
            )


def value_of(recipe: AnyRecipe, key: str) -> Any:
    """Look up the value of a dotted key."""
    return functools.reduce(getattr, key.split("."), recipe)


def replaced(recipe: RecipeT, section: str, **values: Any) -> RecipeT:
    """Change values of one section."""
    changed = dataclasses.replace(getattr(recipe, section), **values)
    return dataclasses.replace(recipe, **{section: changed})


@record
class Recipe(AnyRecipe):
    """One experiment of classification, see `AnyRecipe`.

    Attributes:
        regularization: Label smoothing.

    Raises:
        RuleError: Values break rules; it names all of them.
    """

    follow_from_data = (
        "model.name",
        "model.num_classes",
        "data.augmentation.image_size",
        "data.augmentation.train_crop",
        "data.test_split",
        "optimizer.batch_size",
        "optimizer.learning_rate",
        "schedule.epochs",
        "schedule.warmup_epochs",
    )

    task: Literal["classification"] = "classification"
    model: ModelSection
    data: DataSection
    schedule: ScheduleSection
    regularization: RegularizationSection = RegularizationSection()

    def _rules(self) -> dict[str, tuple[bool, str]]:
        schedule = self.schedule
        fits = None in (schedule.warmup_epochs, schedule.epochs) or schedule.warmup_epochs <= schedule.epochs
        return {"schedule.warmup_epochs": (fits, f"from 0 to schedule.epochs, which is {schedule.epochs}")}


def check_model(section: Any) -> HaloNetConfig:
    """Check that a network exists and takes its overrides.

    Args:
        section: With the fields `name` and `overrides`.

    Returns:
        The network's config.

    Raises:
        RuleError: There is no such network, or overrides break the rules of `HaloNetConfig`.
    """
    if section.name not in HALONETS:
        raise RuleError.of("model", [Complaint("name", f"is wrong: {unknown_name('model', section.name, HALONETS)}")])
    try:
        return configure(section.name, **section.overrides)
    except RuleError as error:
        raise RuleError.of("model", [complaint.under("overrides") for complaint in error.complaints]) from None
