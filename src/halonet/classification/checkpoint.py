"""Classifiers from checkpoints."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import halonet
from halonet.data import AugmentationConfig
from halonet.engine.metadata import Metadata, read_metadata, saved_from, without_nulls
from halonet.engine.weights import build_checked, read_weights
from halonet.errors import UserError
from halonet.models import HaloNetConfig
from halonet.models.pretrained import pretrained_cfg
from halonet.models.registry import nearest_row
from halonet.recipes.schema import Seed
from halonet.rules import FilledText, Text
from halonet.schemas import Plain, record


@record
class ClassifierMetadata(Metadata):
    """What a checkpoint says of a classifier, see `Metadata`; one that was not trained here may say less.

    Attributes:
        root: The folder that a named data set was in.
        seed: The seed that the held-out images were drawn with.
    """

    network: Literal["HaloNet"]
    config: Annotated[HaloNetConfig, Plain()]
    class_names: tuple[Text, ...] | None = None
    preprocessing: AugmentationConfig | None = None
    root: FilledText | None = None
    seed: Seed | None = None

    def _sizes(self) -> tuple[Any, ...]:
        return () if self.preprocessing is None else (self.preprocessing.image_size, self.preprocessing.train_crop)


def load_checkpoint(path: str | Path) -> tuple[halonet.HaloNet, dict[str, Any]]:
    """Build the network of a checkpoint, in evaluation mode on the CPU.

    Args:
        path: A run folder, a `model.safetensors` or a `.ckpt`. If the run has an EMA, its average is read.

    Returns:
        The network, which says in timm's terms how its images are prepared, and its description (see
        `halonet.engine.weights.describe`) without null values.

    Raises:
        UserError: The file is missing, truncated, not a checkpoint, from another model, or holds pickled code.
    """
    state, information, path = read_weights(path)
    if "config" not in information or information.get("network") != halonet.HaloNet.__name__:
        kind = saved_from(information)
        raise UserError(
            f"{path} does not say which HaloNet its weights belong to"
            + (f" (it was saved from a {kind})" if kind else "")
            + ": only checkpoints written by `halonet train`, or from its Classifier, do"
        )
    if information.get("num_classes") == 0:
        raise UserError(f"{path} holds a network without a classifier: load it with halonet.create_model or timm's")
    metadata = read_metadata(ClassifierMetadata, information, str(path))

    row, changes = nearest_row(metadata.config)

    def build() -> halonet.HaloNet:
        cfg = _pretrained_cfg(metadata)
        network = halonet.create_model(row, metadata.num_classes, metadata.in_chans, pretrained_cfg=cfg, **changes)
        return cast(halonet.HaloNet, network)

    return build_checked(build, state, str(path)), without_nulls(information)


def data_config(prepared: AugmentationConfig) -> dict[str, Any]:
    """Say in timm's terms how images are prepared for evaluation."""
    return {
        "input_size": (prepared.in_chans, prepared.image_size, prepared.image_size),
        "mean": prepared.mean,
        "std": prepared.std,
        "crop_pct": prepared.crop_pct,
        "interpolation": prepared.interpolation,
    }


def _pretrained_cfg(metadata: ClassifierMetadata) -> dict[str, Any]:
    """Describe a classifier in timm's terms."""
    config, prepared = metadata.config, metadata.preprocessing
    if prepared is None:
        cfg = pretrained_cfg(config)
    else:
        cfg = pretrained_cfg(dataclasses.replace(config, image_size=prepared.image_size)) | data_config(prepared)
    return cfg | {"num_classes": metadata.num_classes, "label_names": metadata.class_names}
