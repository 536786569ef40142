"""Classifiers from checkpoints."""

from pathlib import Path
from typing import Annotated, Any, Literal

from torch import nn

import halonet
from halonet.data import AugmentationConfig
from halonet.engine.weights import build_checked, read_metadata, read_weights, saved_from, without_nulls
from halonet.errors import UserError
from halonet.models import HaloNetConfig
from halonet.models.config import InChans, NumClasses
from halonet.recipes.schema import Seed
from halonet.rules import FilledText, Text, check_together, within
from halonet.schemas import Plain, record


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


def load_checkpoint(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Build the network that a checkpoint holds, in evaluation mode on the CPU.

    Args:
        path: A run folder, a `model.safetensors` or a `.ckpt`. Of a checkpoint of a run with EMA, the average.

    Returns:
        The network, and what `describe` knew of it, without what is null.

    Raises:
        UserError: The file is missing, truncated, no checkpoint, from another model, or holds pickled code.
    """
    state, information, path = read_weights(path)
    if "config" not in information or information.get("network") != halonet.HaloNet.__name__:
        kind = saved_from(information)
        raise UserError(
            f"{path} does not say which HaloNet its weights belong to"
            + (f" (it was saved from a {kind})" if kind else "")
            + ": only checkpoints written by `halonet train`, or from its Classifier, do"
        )
    metadata = read_metadata(ClassifierMetadata, information, str(path))

    def build() -> nn.Module:
        return halonet.HaloNet(metadata.config, num_classes=metadata.num_classes, in_chans=metadata.in_chans)

    return build_checked(build, state, str(path)), without_nulls(information)
