"""The description in a checkpoint, checked before anything is built from it."""

from typing import Annotated, Any, TypeVar

from halonet.errors import LONGEST_NAME
from halonet.models.config import InChans, NumClasses
from halonet.rules import FilledText, Text, check_together, hints_of, within
from halonet.schemas import check, record


@record
class Metadata:
    """What `halonet.engine.weights.describe` says of a network of any task.

    Attributes:
        network: The class.
        config: What it is built from.
        num_classes: Without background; 0 for a network without a classifier.
        in_chans: Channels of an image.
        class_names: In the order of the labels.
        preprocessing: How images were prepared.
        data: What it was trained on.
        test_split: The split that was measured after the training.
        hold_out: The part of the training images that was held out at random, if any.

    Raises:
        RuleError: Values break rules; it names all of them.
    """

    network: str
    config: Any
    num_classes: NumClasses
    in_chans: InChans
    class_names: tuple[Text, ...] | None
    preprocessing: Any
    data: FilledText | None = None
    test_split: FilledText | None = None
    hold_out: Annotated[float, within(above=0, below=1)] | None = None

    def __post_init__(self) -> None:
        names, preprocessing = self.class_names, self.preprocessing
        rules = {
            "class_names": (names is None or len(names) == self.num_classes, f"{self.num_classes:,} names"),
            "preprocessing": (None not in self._sizes(), "without null"),
            "preprocessing.in_chans": (
                preprocessing is None or preprocessing.in_chans == self.in_chans,
                f"in_chans, which is {self.in_chans}",
            ),
        }
        check_together(self, rules | self._rules())

    def _sizes(self) -> tuple[Any, ...]:
        """The values of `preprocessing` that a recipe may leave null, and a checkpoint may not."""
        return ()

    def _rules(self) -> dict[str, tuple[bool, str]]:
        """What else must fit together, see `halonet.rules.check_together`."""
        return {}


MetadataT = TypeVar("MetadataT", bound=Metadata)


def saved_from(information: dict[str, Any]) -> str | None:
    """The class that weights were saved from, or None if the checkpoint does not name one."""
    kind = information.get("network")
    return kind if isinstance(kind, str) and kind.isidentifier() and len(kind) <= LONGEST_NAME else None


def read_metadata(schema: type[MetadataT], information: dict[str, Any], source: str) -> MetadataT:
    """Check what a checkpoint, called `source` in messages, says; keys of later versions are ignored.

    Raises:
        RuleError: It names all that is missing or breaks a rule.
    """
    known = {name: information[name] for name in hints_of(schema) if name in information}
    return check(schema, known, f"the description in {source}")


def without_nulls(information: dict[str, Any]) -> dict[str, Any]:
    """Leave out null values: in a checkpoint they mean the same as missing ones."""
    return {name: value for name, value in information.items() if value is not None}
