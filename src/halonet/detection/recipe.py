"""The recipe of detection."""

from dataclasses import field, fields
from typing import Annotated, Any, Literal

from halonet.data.detection.dataset import DetectionAugmentation
from halonet.data.nullable import OrNull
from halonet.detection.mask_rcnn import DetectorSettings, FasterRCNN, Samples, create_detector, fitting_stages
from halonet.models.config import Classes, InChans
from halonet.recipes.schema import AnyRecipe, Fraction, check_model
from halonet.rules import Count, FilledText, Workers, check_together, within
from halonet.schemas import record


@record
class BackboneSection:
    """The backbone of a detector, and its classes.

    Attributes:
        name: A row of `halonet.HALONETS`.
        num_classes: Number of classes, without background; null takes that of the data.
        in_chans: Channels of an image.
        init: A checkpoint of a classifier, for the backbone, or of a detector; null starts from random weights.
        overrides: Other fields of the backbone's config.
        masks: Whether the detector draws masks (Mask R-CNN) or finds boxes alone (Faster R-CNN); null draws masks, or
            if `num_classes` is null too, follows from the data.
    """

    name: str
    num_classes: OrNull[Classes] = 80
    in_chans: InChans = 3
    init: FilledText | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    masks: bool | None = None


@record
class DetectorSection(DetectorSettings, BackboneSection):
    """The detector.

    Attributes:
        detections_per_image: As in `DetectorSettings`; null follows from the data.
    """

    detections_per_image: OrNull[Samples] = 100

    def __post_init__(self) -> None:
        check_together(self, fitting_stages(self.frozen_stages, check_model(self)))

    def build(self, augmentation: DetectionAugmentation) -> FasterRCNN:
        """Make the detector with random weights, for images that this augmentation scales and normalizes."""
        settings = {each.name: getattr(self, each.name) for each in fields(DetectorSettings)}
        return create_detector(
            self.name,
            self.num_classes,
            augmentation,
            masks=self.masks is not False,
            backbone_overrides=self.overrides,
            **settings,
        )


@record
class DetectionDataSection:
    """The images and their instances.

    Attributes:
        source: "nuclei", or a folder in COCO's or Roboflow's layout; null must be replaced on the command line.
        augmentation: Image size, channels, normalization, and what training does to images.
        validation_split: The split to measure after each epoch, for choosing a model; null for none.
        test_split: The split to measure once, at the end; null takes "test", or the validation split if there is no
            "test".
        repeats: How often an epoch uses each image, augmented anew each time; null derives it from the data.
        skip_empty: Whether training leaves out images without instances.
        hold_out: Where the data has no validation split, the fraction of the training images to hold out as one,
            drawn by their names; null holds none out.
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
        warmup_steps: Length of the warm-up, which may be 0; null derives it from the steps.
        warmup_fraction: The fraction of the peak learning rate at which the warm-up begins.
        warmup: "linear" rises from there to the peak, "constant" stays there.
        drops: The steps at which the learning rate drops; null derives them from the steps.
        drop_factor: The factor by which each drop multiplies the learning rate.
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
class DetectionRecipe(AnyRecipe):
    """A recipe of detection, see `AnyRecipe`.

    Raises:
        RuleError: Values break rules; it names all of them.
    """

    # `model.masks` follows too, if `model.num_classes` does.
    follow_from_data = (
        "model.num_classes",
        "model.detections_per_image",
        "data.augmentation.min_size",
        "data.augmentation.max_size",
        "data.augmentation.jitter_size",
        "data.test_split",
        "data.repeats",
        "optimizer.batch_size",
        "optimizer.learning_rate",
        "schedule.steps",
        "schedule.warmup_steps",
        "schedule.drops",
    )

    task: Literal["detection"] = "detection"
    model: DetectorSection
    data: DetectionDataSection
    schedule: StepSchedule

    @property
    def draws_masks(self) -> bool:
        """Whether the detector is a Mask R-CNN, as it is by default."""
        return self.model.masks is not False

    def _rules(self) -> dict[str, tuple[bool, str]]:
        schedule = self.schedule
        drops = list(schedule.drops or ())
        return {
            "schedule.warmup_steps": (
                None in (schedule.warmup_steps, schedule.steps) or schedule.warmup_steps <= schedule.steps,
                f"from 0 to schedule.steps, which is {schedule.steps}",
            ),
            "schedule.drops": (drops == sorted(drops), "steps in ascending order"),
        }
