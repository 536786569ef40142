"""What a checkpoint says of its weights, checked before a network is built."""

from typing import Annotated, Any, Literal, TypeVar

from halonet.data import AugmentationConfig
from halonet.models import HaloNetConfig
from halonet.models.config import InChans, NumClasses
from halonet.rules import FilledText, Text, check_together, hints_of, within
from halonet.schemas import Plain, check, record
from halonet.recipes.schema import Seed

MetadataT = TypeVar("MetadataT")


@record
class ClassifierMetadata:
    """What `halonet.engine.weights.describe` says of a classifier.

    Attributes:
        network: The class.
        config: What it is built from.
        num_classes: Classes; 0 for a network without a classifier.
        in_chans: Channels of an image.
        class_names: By label, if it was trained on data that has them.
        preprocessing: How images were prepared, if it was trained here.
        data: What it was trained on.
        root: The folder that a named data set lay in.
        test_split: The split that training measured at its end.
        hold_out: The part of each class that was held out, if it was drawn.
        seed: That it was drawn with.

    Raises:
        RuleError: Values break rules; it names all of them.
    """

    network: Literal["HaloNet"]
    config: Annotated[HaloNetConfig, Plain()]
    num_classes: NumClasses
    in_chans: InChans
    class_names: tuple[Text, ...] | None = None
    preprocessing: AugmentationConfig | None = None
    data: FilledText | None = None
    root: FilledText | None = None
    test_split: FilledText | None = None
    hold_out: Annotated[float, within(above=0, below=1)] | None = None
    seed: Seed | None = None

    def __post_init__(self) -> None:
        names, preprocessing = self.class_names, self.preprocessing
        filled_in = preprocessing is None or None not in (preprocessing.image_size, preprocessing.train_crop)
        check_together(
            self,
            {
                "class_names": (names is None or len(names) == self.num_classes, f"{self.num_classes:,} names"),
                "preprocessing": (filled_in, "without null"),
                "preprocessing.in_chans": (
                    preprocessing is None or preprocessing.in_chans == self.in_chans,
                    f"in_chans, which is {self.in_chans}",
                ),
            },
        )


def read_metadata(schema: type[MetadataT], information: dict[str, Any], source: str) -> MetadataT:
    """Check what a checkpoint says.

    Args:
        schema: What it must say; what a later version says besides is passed over.
        information: What it says.
        source: The checkpoint, for the message.

    Raises:
        RuleError: It names all that is missing or breaks a rule.
    """
    known = {name: information[name] for name in hints_of(schema) if name in information}
    return check(schema, known, f"the description in {source}")
