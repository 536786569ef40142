"""Labels image files with a checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from halonet.classification.checkpoint import load_checkpoint
from halonet.classification.evaluation import preprocessing
from halonet.data.classification.transforms import build_transform
from halonet.data.images import open_image
from halonet.engine.device import choose_device
from halonet.engine.files import check_output_folder, explain_full_disk, picture_name
from halonet.errors import UserError
from halonet.models import HaloNet
from halonet.rules import Count, check_arguments
from halonet.visual.attention import PixelAttention, check_index, record_attention
from halonet.visual.attention_figures import draw_heads, draw_pixel, input_picture, save_figure
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


class MapChoice(NamedTuple):
    """What a picture of attention shows; numbers count from 0.

    Attributes:
        layer: The attention layer, in the order of the network; None takes the last.
        head: None draws all heads and their mean.
        pixel: (row, column) of the network's input; None takes its center.
    """

    layer: int | None = None
    head: int | None = None
    pixel: tuple[int, int] | None = None

    def look(self, network: nn.Module, image: Tensor) -> PixelAttention:
        """Where the pixel looks; raises a `UserError` if there is no such layer, head or pixel."""
        layers = record_attention(network, image)
        if self.layer is not None:
            check_index("layer", self.layer, len(layers))
        look = layers[-1 if self.layer is None else self.layer].look(
            self.pixel or (image.shape[2] // 2, image.shape[3] // 2)
        )
        look.of_head(self.head)
        return look


def check_map_choice(checkpoint: str | Path, choice: MapChoice) -> None:
    """Raise a `UserError` if a checkpoint's network has no such layer, head or pixel."""
    network, information = load_checkpoint(checkpoint)
    config = preprocessing(information, str(checkpoint))
    choice.look(network, torch.zeros(1, config.in_chans, config.image_size, config.image_size))


def save_maps(
    checkpoint: str | Path, rows: Sequence[dict[str, Any]], folder: str | Path, choice: MapChoice | None = None
) -> list[Path]:
    """Draw the attention maps of a few pixels, one picture for each labeled image.

    Args:
        checkpoint: As for `predict`.
        rows: What `predict` returned for images that could be read.
        folder: Where to write the pictures, NUMBER_STEM.png; made if it does not exist.
        choice: The layer, the head and the pixel; None draws an overview, three pixels in the last layer of each stage.

    Returns:
        The pictures.

    Raises:
        UserError: As for `predict`, or the folder cannot be written to, the network has no attention or no such layer,
            head or pixel, or matplotlib is missing.
    """
    check_output_folder(folder)
    trained = load_classifier(checkpoint)
    network, config = trained.model, preprocessing(trained.information, str(checkpoint))
    paths = []
    for number, row in enumerate(rows):
        image = trained.transform(open_image(row["file"]))[None]
        picture = input_picture(image, config.mean, config.std)
        path = Path(folder) / picture_name(number, row["file"])
        title = f"{row['label']} {100 * row['probability']:.1f} %"
        with explain_full_disk(path):
            if choice is None:
                draw_attention(network, image, picture, path, title=title)
            else:
                look = choice.look(network, image)
                title = f"{title}, layer {look.layer}"
                if choice.head is None:
                    figure = draw_heads(look, picture, title=title)
                else:
                    figure = draw_pixel(look, picture, head=choice.head, title=title)
                save_figure(figure, path)
        paths.append(path)
    return paths
