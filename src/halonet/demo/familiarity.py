"""Whether a picture is like those that a classifier learned from, by its features."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from halonet.classification.checkpoint import load_checkpoint
from halonet.classification.evaluation import preprocessing
from halonet.data import ImageSource, KeyedDataset, build_transform, derive_seed, load_source
from halonet.data.classification.image_source import labels_of
from halonet.data.classification.sources import is_remote
from halonet.data.classification.subsets import Subset
from halonet.engine.checksums import checksum
from halonet.engine.files import check_output_file, write_atomically
from halonet.engine.weights import Weights, read_weights
from halonet.errors import UserError
from halonet.schemas import check, record

SHARE = 0.1  # of the validation pictures, which are called strange
PER_CLASS = 200  # pictures of a split that are looked at
DIGITS = 4  # of the numbers in the file


class Familiarity(NamedTuple):
    """What a classifier knows.

    Attributes:
        means: The mean features of each class.
        least: The similarity to one of them that all but `SHARE` of the validation pictures reach.
    """

    means: Float[Tensor, "classes num_features"]
    least: float

    def is_strange(self, features: Float[Tensor, "1 num_features"]) -> bool:
        """Whether a picture is farther from every class than all but `SHARE` of the validation pictures."""
        return similarity(features, self.means).item() < self.least


@record
class _File:
    weights: str  # their checksum
    means: tuple[tuple[float, ...], ...]
    least: float


def similarity(
    features: Float[Tensor, "images num_features"], means: Float[Tensor, "classes num_features"]
) -> Float[Tensor, " images"]:
    """The largest cosine between features and the mean features of a class, both seen from the mean of all classes."""
    center = means.mean(0)
    return (F.normalize(features - center, dim=1) @ F.normalize(means - center, dim=1).T).amax(1)


def calibrate(checkpoint: str | Path, root: str | Path | None = None) -> Path:
    """Measure how near to its classes a classifier sees the pictures that it knows, for the doubts of the demo page.

    Args:
        checkpoint: A run folder, a `model.safetensors` or a `.ckpt`.
        root: The folder of a named data set; by default that of the training.

    Returns:
        The file that was written, beside the weights.

    Raises:
        UserError: The checkpoint or its data cannot be read, the data would have to be downloaded, or the file cannot
            be written.
    """
    weights = read_weights(checkpoint)
    path = _path_beside(weights.path)
    check_output_file(path)
    network, information = load_checkpoint(weights.path)
    data = information.get("data")
    if data is None or is_remote(data):
        where = "does not say what data" if data is None else f"names {data}, which is not on this machine, as the data"
        raise UserError(f"{checkpoint} {where} it was trained on: calibrate a checkpoint whose data are here")
    root = information.get("root") if root is None else root
    hold_out = {name: information[name] for name in ("hold_out", "seed") if name in information}
    transform = build_transform(preprocessing(information, str(checkpoint)), train=False)

    @torch.inference_mode()
    def features_of(split: str) -> tuple[Tensor, Tensor]:
        source = load_source(data, split, root=None if root is None else Path(root), **hold_out)
        loader = DataLoader(KeyedDataset(_some_of_each_class(source), transform, seed=0, train=False), batch_size=64)
        parts = [
            (network.forward_head(network.forward_features(images), pre_logits=True), labels)
            for images, labels in loader
        ]
        features, labels = (torch.cat(each) for each in zip(*parts, strict=True))
        return features, labels

    features, labels = features_of("train")
    means = torch.stack([features[labels == label].mean(0) for label in labels.unique()])
    least = similarity(features_of("validation")[0], means).quantile(SHARE).item()
    content = {
        "weights": checksum(weights.state, {}),
        "means": [[round(number, DIGITS) for number in mean] for mean in means.tolist()],
        "least": round(least, DIGITS),
    }
    write_atomically(path, lambda file: file.write(json.dumps(content).encode() + b"\n"))
    return path


def read_familiarity(weights: Weights) -> Familiarity | None:
    """Read what `calibrate` wrote beside weights, or None if it did not.

    Raises:
        UserError: The file is damaged, or belongs to other weights.
    """
    path = _path_beside(weights.path)
    if not path.is_file():
        return None
    remedy = "remove it, or call halonet.demo.familiarity.calibrate again"
    try:
        content = json.loads(path.read_bytes())
        known = check(_File, content, str(path))
        means = torch.tensor(known.means)
    except ValueError as error:  # also a UserError, and rows of different lengths
        raise UserError(f"{path} is damaged ({error}): {remedy}") from error
    if known.weights != checksum(weights.state, {}):
        raise UserError(f"{path} belongs to other weights than {weights.path.name}: {remedy}")
    return Familiarity(means, known.least)


def _path_beside(weights: Path) -> Path:
    return weights.with_suffix(".familiarity.json")


def _some_of_each_class(source: ImageSource) -> Subset:
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels_of(source)):
        by_class.setdefault(label, []).append(index)
    kept = [index for indices in by_class.values() for index in sorted(indices, key=derive_seed)[:PER_CLASS]]
    return Subset(source, sorted(kept))
