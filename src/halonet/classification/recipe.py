"""The recipe of classification."""

from dataclasses import field
from typing import Annotated, Any, Literal

from halonet.data import AugmentationConfig
from halonet.data.nullable import OrNull
from halonet.models.config import Classes, DropRate, InChans
from halonet.recipes.schema import AnyRecipe, Fraction, Part, check_model
from halonet.rules import Count, FilledText, Workers, within
from halonet.schemas import record


@record
class ModelSection:
    """The network, as `halonet.create_model` takes it.

    Attributes:
        name: A row of `halonet.HALONETS`; null takes one that fits the data.
        num_classes: Number of classes; null takes that of the data.
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
        train_images: How many training images to keep, equally many per class; null for all.
        augmentation: Image size, channels, normalization, and what training does to images.
        validation_split: The split to measure after each epoch, for choosing a model; null for none.
        test_split: The split to measure once, at the end; null takes "test", or the validation split if there is no
            "test".
        hold_out: Where the data has no validation split, the fraction of each class to hold out as one, drawn by
            the images' names and the seed; null holds out every tenth image, in their stored order.
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
class ScheduleSection:
    """A linear warm-up, then a cosine.

    Attributes:
        epochs: Length of the whole run; null derives it from the number of images.
        warmup_epochs: Length of the warm-up, which need not be whole; null derives it from the epochs.
        final_fraction: The fraction of the peak learning rate that the last step uses.
    """

    epochs: OrNull[Count]
    warmup_epochs: OrNull[Annotated[float, within(least=0)]] = 0.0
    final_fraction: Fraction = 1 / 128


@record
class RegularizationSection:
    """Regularization other than augmentation, dropout and weight decay.

    Attributes:
        label_smoothing: The fraction of each label that is spread over all classes.
    """

    label_smoothing: Part = 0.0


@record
class Recipe(AnyRecipe):
    """A recipe of classification, see `AnyRecipe`.

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
