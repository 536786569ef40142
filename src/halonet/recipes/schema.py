"""The fields that the recipes of all tasks share."""

import dataclasses
import functools
import re
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from halonet.complaints import Complaint, RuleError
from halonet.data.nullable import OrNull
from halonet.errors import UserError, unknown_name
from halonet.models import HALONETS, HaloNetConfig, configure
from halonet.rules import Count, FilledText, Rule, Text, check_together, within
from halonet.schemas import record

NOT_YET_RUN = "not yet run"

LONGEST_NAME, LONGEST_PART = 200, 100


def _is_name(name: str) -> bool:
    """Whether a name is a path below the folder of runs; it may be empty if the run folder is given."""
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
    """What a run of the recipe cost, and its result.

    Attributes:
        hardware: What it ran on.
        time: How long it took.
        result: Its result, with the number of seeds; or "not yet run".
    """

    hardware: Text = NOT_YET_RUN
    time: Text = NOT_YET_RUN
    result: Text = NOT_YET_RUN


@record
class OptimizerSection:
    """SGD with Nesterov momentum.

    Attributes:
        learning_rate: The peak, for the whole batch; null takes one that fits the batch size.
        momentum: Our choice: the paper names no value.
        weight_decay: L2 penalty.
        decay: Applies it to tensors with two axes or more ("matrices"), or to all; our choice: the paper does not say.
        batch_size: Images per optimizer step, over all devices and accumulated micro-batches; null takes one that fits
            the number of images.
        accumulate: Micro-batches per optimizer step.
    """

    learning_rate: OrNull[LearningRate]
    momentum: Part = 0.9
    weight_decay: Annotated[float, within(least=0, most=1_000)] = 2e-5
    decay: Literal["matrices", "all"] = "matrices"
    batch_size: OrNull[Count] = 128
    accumulate: Count = 1


@record
class EmaSection:
    """The moving average of the weights.

    Attributes:
        decay: The fraction of the average that a step keeps in the long run (less at first); 0 turns it off.
    """

    decay: Part = 0.0


@record
class EngineSection:
    """How the training is computed; only the seed is part of the experiment.

    Attributes:
        precision: Precision of the network's arithmetic; weights are always float32.
        accelerator: "cpu", "gpu", ...; "auto" takes what there is.
        devices: Processes per node.
        nodes: Machines.
        strategy: Lightning's, such as "ddp".
        compile: Whether to `torch.compile` the network.
        clip_gradient: Largest norm of the gradient; null for none.
        seed: Seeds weights, order, augmentation, dropout and stochastic depth.
        checkpoint_every_steps: Optimizer steps between checkpoints; one more is written at the start of each epoch.
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
    """The base of the recipes of all tasks, which add `model`, `data` and `schedule` sections of their own.

    Attributes:
        name: Its path among the recipes, without suffix; a file elsewhere is named by its stem.
        task: The task to train.
        description: What is trained, and how.
        reproduces: The figure of the paper that it reproduces, or that it is our own.
        provenance: What a run cost, and its result.
        model: The network, with `name`, `num_classes` and `in_chans`.
        data: The images, with `source`, `augmentation` and `test_split`.
        optimizer: SGD with Nesterov momentum.
        schedule: The learning rate over the run.
        ema: The average of the weights.
        engine: How the training is computed.

    Raises:
        RuleError: Values break rules; it names all of them.
    """

    follow_from_data: ClassVar[tuple[str, ...]] = ()
    """Dotted keys of values that may be null, to be filled in from the data."""

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
        """More rules for fields together, see `halonet.rules.check_together`."""
        return {}

    def missing_values(self) -> list[str]:
        """List the dotted keys of values that still have to be filled in from the data."""
        return [key for key in self.follow_from_data if value_of(self, key) is None]

    def require_complete(self) -> None:
        """Refuse a recipe with values that still have to be filled in from the data.

        Raises:
            UserError: It names them.
        """
        if missing := self.missing_values():
            raise UserError(
                f"recipe {self.name} leaves {', '.join(missing)} null: take them from the data with fill_in(recipe), "
                "or give them values"
            )


RecipeT = TypeVar("RecipeT", bound=AnyRecipe)


def value_of(recipe: AnyRecipe, key: str) -> Any:
    """Look up the value of a dotted key."""
    return functools.reduce(getattr, key.split("."), recipe)


def replaced(recipe: RecipeT, section: str, **values: Any) -> RecipeT:
    """Change values of one section."""
    changed = dataclasses.replace(getattr(recipe, section), **values)
    return dataclasses.replace(recipe, **{section: changed})


def check_model(section: Any) -> HaloNetConfig:
    """Check that a network exists and takes its overrides.

    Args:
        section: With the fields `name` and `overrides`.

    Raises:
        RuleError: There is no such network, or overrides break the rules of `HaloNetConfig`.
    """
    if section.name not in HALONETS:
        raise RuleError.of("model", [Complaint("name", f"is wrong: {unknown_name('model', section.name, HALONETS)}")])
    try:
        return configure(section.name, **section.overrides)
    except RuleError as error:
        raise RuleError.of("model", [complaint.under("overrides") for complaint in error.complaints]) from None
