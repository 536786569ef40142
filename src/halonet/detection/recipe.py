"""A recipe of detection: one experiment as a typed record. What it shares with classification is that one's."""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from halonet.data.detection import DetectionAugmentation
from halonet.data.nullable import OrNull
from halonet.detection.mask_rcnn import AnchorScale, BatchNorm, FrozenStages, Samples, ScoreThreshold, fitting_stages
from halonet.models.config import Classes, InChans
from halonet.rules import Channels, Count, FilledText, Text, Workers, check_together, within
from halonet.schemas import record
from halonet.training.recipe import (
    EmaSection,
    EngineSection,
    Fraction,
    Name,
    OptimizerSection,
    ProvenanceSection,
    Recipe,
    check_model,
    common_rules,
)
from halonet.training.recipes import resolve, task_of


@record
class DetectorSection:
    """The detector, as `halonet.detection.create_detector` takes it; the fields it shares have that one's defaults.

    Attributes:
        name: The backbone, a row of `halonet.HALONETS`.
        num_classes: Of the data, without background; null follows from the data.
        in_chans: Channels of an image.
        init: A checkpoint of a classifier, for the backbone, or of a detector; null draws all weights.
        overrides: Other fields of the backbone's config.
        masks: Whether it draws masks (Mask R-CNN) or finds boxes alone (Faster R-CNN); null draws them, or follows
            from the data if `num_classes` does.
        batch_norm: Of the backbone: "batch", "synchronized" over all processes, or "frozen".
        frozen_stages: How many of the backbone's first stages, with the stem, do not learn.
        pyramid_channels: Width of the feature pyramid.
        box_channels: Width of the two layers that judge a box.
        mask_channels: Width of the four convolutions that draw a mask.
        anchor_scale: Side of a square anchor, in pixels of its level.
        anchors_per_image: Anchors that the proposals' loss samples from an image.
        boxes_per_image: Proposals that the boxes' loss samples from an image.
        score_threshold: Detections of a lower score are dropped.
        detections_per_image: At most so many are kept, the best; null follows from the data.
    """

    name: str
    num_classes: OrNull[Classes] = 80
    in_chans: InChans = 3
    init: FilledText | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    masks: bool | None = None
    batch_norm: BatchNorm = "batch"
    frozen_stages: FrozenStages = 0
    pyramid_channels: Channels = 256
    box_channels: Channels = 1024
    mask_channels: Channels = 256
    anchor_scale: AnchorScale = 8.0
    anchors_per_image: Samples = 256
    boxes_per_image: Samples = 512
    score_threshold: ScoreThreshold = 0.05
    detections_per_image: OrNull[Samples] = 100

    def __post_init__(self) -> None:
        check_together(self, fitting_stages(self.frozen_stages, check_model(self)))


@record
class DetectionDataSection:
    """The images and their instances.

    Attributes:
        source: "nuclei", or a folder in COCO's or Roboflow's layout; null must be replaced on the command line.
        augmentation: Image size, channels, normalization, and what training does to images.
        validation_split: What is measured after each epoch, for choosing; null for nothing.
        test_split: What is measured once, at the end; null takes "test", or the validation split where there is none.
        repeats: How often an epoch takes each image, augmented anew each time; null follows from the data.
        skip_empty: Whether training leaves out images without instances.
        hold_out: Where the data has no validation split, the part of the training images to hold out as one, drawn by
            their names; null holds none out.
        workers: Processes that load images; 0 loads in the training process.
    """

    source: OrNull[FilledText]
    augmentation: DetectionAugmentation
    validation_split: FilledText | None = "validation"
    test_split: OrNull[FilledText] = "validation"
    repeats: OrNull[Count] = 1
    skip_empty: bool = True
    hold_out: Annotated[float, within(above=0, below=1)] | None = None
    workers: Workers = 0


@record
class StepSchedule:
    """A warm-up, then a learning rate that drops in steps.

    Attributes:
        steps: Optimizer steps of the whole run; null follows from the number of images.
        warmup_steps: May be 0; null follows from the steps.
        warmup_fraction: Of the peak learning rate, where the warm-up begins.
        warmup: "linear" rises from there to the peak, "constant" stays there.
        drops: The steps from which the learning rate is lower; null follows from the steps.
        drop_factor: By which each drop multiplies it.
    """

    steps: OrNull[Count]
    warmup_steps: OrNull[Annotated[int, within(least=0)]] = 0
    warmup_fraction: Fraction = 1 / 15
    warmup: Literal["linear", "constant"] = "linear"
    drops: OrNull[tuple[Count, ...]] = ()
    drop_factor: Fraction = 0.1

    def factor(self, step: int) -> float:
        """The learning rate of an optimizer step, counted from 0, as a fraction of the peak."""
        if step < self.warmup_steps:
            risen = 0.0 if self.warmup == "constant" else step / self.warmup_steps
            return self.warmup_fraction + (1 - self.warmup_fraction) * risen
        return self.drop_factor ** sum(step >= drop for drop in self.drops)


@record
class DetectionRecipe:
    """One experiment.

    Attributes:
        name: Its path among the recipes, without suffix; a file elsewhere is named by its stem.
        task: What is trained.
        description: What is trained, and how.
        reproduces: Which figure of the paper, or that it is our own.
        provenance: What it took and gave here.
        model: The detector.
        data: The images.
        optimizer: Nesterov SGD.
        schedule: The learning rate over the run.
        ema: The average of the weights.
        engine: How the computer does it.

    Raises:
        RuleError: Values break rules; it names all of them.
    """

    name: Name = ""
    task: Literal["detection"] = "detection"
    description: Text = ""
    reproduces: Text = ""
    provenance: ProvenanceSection = field(default_factory=ProvenanceSection)
    model: DetectorSection
    data: DetectionDataSection
    optimizer: OptimizerSection
    schedule: StepSchedule
    ema: EmaSection = field(default_factory=EmaSection)
    engine: EngineSection = field(default_factory=EngineSection)

    def __post_init__(self) -> None:
        schedule = self.schedule
        check_together(
            self,
            common_rules(self)
            | {
                "schedule.warmup_steps": (
                    None in (schedule.warmup_steps, schedule.steps) or schedule.warmup_steps <= schedule.steps,
                    f"from 0 to schedule.steps, which is {schedule.steps}",
                ),
                "schedule.drops": (
                    list(schedule.drops or ()) == sorted(schedule.drops or ()),
                    "steps in ascending order",
                ),
            },
        )


def resolve_any(name_or_path: str | Path) -> Recipe | DetectionRecipe:
    """Read a recipe of either task, see `halonet.training.resolve`.

    Args:
        name_or_path: A packaged recipe's name, or a YAML file.

    Raises:
        UserError: As there.
    """
    schema = DetectionRecipe if task_of(name_or_path) == "detection" else Recipe
    return resolve(name_or_path, schema=schema)
