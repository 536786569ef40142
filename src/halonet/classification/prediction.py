"""Labels image files with a checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from halonet.classification.checkpoint import load_checkpoint
from halonet.classification.evaluation import preprocessing
from halonet.data.classification.transforms import build_transform
from halonet.data.images import open_image
from halonet.engine.device import choose_device
from halonet.engine.files import check_output_folder, explain_full_disk, picture_name
from halonet.errors import UserError
from halonet.models import HaloNet
from halonet.rules import Count, check_arguments
from halonet.visual.attention_map import draw_attention


@dataclass(frozen=True)
class TrainedClassifier:
    """A trained network, ready to use.

    Attributes:
        model: In evaluation mode, on the CPU.
        labels: Names of the classes, in the order of the outputs; numbers if the checkpoint has no names.
        transform: Turns a PIL image of any mode and size into a float32 tensor [in_chans, image_size, image_size], as
            evaluation does.
        information: What else the checkpoint says, such as `data`, `config` and `preprocessing`.
    """

    model: HaloNet
    labels: list[str]
    transform: Callable[[Image.Image], Tensor]
    information: dict[str, Any]


def load_classifier(checkpoint: str | Path) -> TrainedClassifier:
    """Load a checkpoint for use, see `halonet.load`."""
    network, information = load_checkpoint(checkpoint)
    transform = build_transform(preprocessing(information, str(checkpoint)), train=False)
    labels = information.get("class_names") or [str(label) for label in range(information["num_classes"])]
    return TrainedClassifier(network, list(labels), transform, information)


def predict(
    checkpoint: str | Path,
    images: Sequence[str | Path],
    top_k: int = 5,
    *,
    batch_size: int = 64,
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Label image files.

    Args:
        checkpoint: A run folder, a `model.safetensors` or a `.ckpt`.
        images: Image files; for folders see `halonet.data.images.find_images`.
        top_k: Number of guesses per image; at most all classes.
        batch_size: Images per batch.
        device: "cpu", "cuda", ...; "auto" takes an accelerator if there is one.

    Returns:
        For each image, in order: `file`, the best guess as `label` and `probability` (in [0, 1]), and `top`, a list of
        guesses, best first. Classes without names are numbers. An image that cannot be read has only its `file` and the
        reason as `error`.

    Raises:
        UserError: The checkpoint cannot be read, or `top_k` or `batch_size` is not positive.
    """
    check_arguments(top_k=(top_k, Count), batch_size=(batch_size, Count))
    trained = load_classifier(checkpoint)
    target = choose_device(device)
    network = trained.model.to(target)
    rows = []
    for start in range(0, len(images), batch_size):
        files = images[start : start + batch_size]
        read, errors = _read(files, trained.transform)
        probabilities = {}
        if read:
            with torch.inference_mode():
                batch = network(torch.stack(list(read.values())).to(target)).float().softmax(dim=1).cpu()
            probabilities = dict(zip(read, batch, strict=True))
        for index, file in enumerate(map(str, files)):
            if index in errors:
                rows.append({"file": file, "error": errors[index]})
            else:
                rows.append(_row(file, probabilities[index], trained.labels, top_k))
    return rows


def _read(
    files: Sequence[str | Path], transform: Callable[[Image.Image], Tensor]
) -> tuple[dict[int, Tensor], dict[int, str]]:
    """Read a batch: the images, and errors of those that cannot be read, by their index in it."""
    images, errors = {}, {}
    for index, file in enumerate(files):
        try:
            images[index] = transform(open_image(file))
        except UserError as error:
            errors[index] = str(error)
    return images, errors


def _row(file: str, probabilities: Tensor, class_names: list[str], top_k: int) -> dict[str, Any]:
    best = probabilities.topk(min(top_k, len(class_names)))
    top = [
        {"label": class_names[label], "probability": probability}
        for label, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return {"file": file, **top[0], "top": top}


def save_maps(checkpoint: str | Path, rows: Sequence[dict[str, Any]], folder: str | Path) -> list[Path]:
    """Draw where pixels look, one picture for each labeled image.

    Args:
        checkpoint: As for `predict`.
        rows: What `predict` returned for images that could be read.
        folder: Takes the pictures, NUMBER_STEM.png; made if it does not exist.

    Returns:
        The pictures.

    Raises:
        UserError: As for `predict`, or the folder cannot be written to, the network has no attention, or matplotlib is
            missing.
    """
    check_output_folder(folder)
    trained = load_classifier(checkpoint)
    paths = []
    for number, row in enumerate(rows):
        picture = open_image(row["file"])
        path = Path(folder) / picture_name(number, row["file"])
        title = f"{row['label']} {100 * row['probability']:.1f} %"
        with explain_full_disk(path):
            paths.append(draw_attention(trained.model, trained.transform(picture)[None], picture, path, title=title))
    return paths
