"""What the demo page asks of a checkpoint: what it knows, and what it makes of a picture."""

import dataclasses
import html
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from halonet.classification.evaluation import preprocessing
from halonet.classification.prediction import load_classifier
from halonet.console import printable
from halonet.data import build_transform
from halonet.data.detection.coco_file import distinct_labels
from halonet.data.detection.dataset import build_detection_transform
from halonet.data.images import GRAY_MODES, decode_header, decode_image
from halonet.demo.familiarity import SHARE, Familiarity, read_familiarity
from halonet.detection.checkpoint import DETECTORS, load_detector
from halonet.detection.mask_rcnn import FasterRCNN
from halonet.detection.results import Masks, to_results
from halonet.engine.metadata import saved_from
from halonet.engine.run import read_result
from halonet.engine.weights import read_weights
from halonet.errors import UserError
from halonet.models.pretrained import FOLDER
from halonet.rules import Text, hints_of
from halonet.schemas import check, record
from halonet.visual.attention import LayerAttention, record_attention
from halonet.visual.attention_figures import input_picture
from halonet.visual.instances import draw_instances

CIFAR10 = FOLDER / "mini32.cifar10.safetensors"
PIXELS = 25_000_000  # of a picture that is taken
MEGABYTES = 20  # likewise, of its file
UNSURE = 0.5  # a best guess under this is told as doubtful
MIN_SCORE = 0.5  # of a detection that is drawn
SHRINKS = 20  # a picture that is scaled down by more is told to have lost its detail
SHARP = 512  # pixels of a side of the picture under the attention
MOST_NAMES = 12


@record
class Figures:
    """What a checkpoint, or the result of a run, says of its accuracy."""

    top1: float | None = None
    box_ap: float | None = None
    mask_ap: float | None = None
    images: int | None = None
    split: Text | None = None
    data: Text | None = None


class Answer(NamedTuple):
    """What a network makes of a picture.

    Attributes:
        probabilities: By label, of a classifier; empty for a detector.
        instances: The picture with the instances drawn on it, of a detector.
        summary: One line.
        doubts: Ways in which the picture is unlike what the network learned from.
        seen: The part of the picture that the network is given, sharper than it is given it.
        layers: The attention layers, for this picture.
    """

    probabilities: dict[str, float]
    instances: Image.Image | None
    summary: str
    doubts: list[str]
    seen: Image.Image
    layers: list[LayerAttention]


class Model:
    """A classifier of a checkpoint; `open_model` makes it, or a `Detector`.

    Attributes:
        name: Of the checkpoint, for people.
        knows: What the network learned, as HTML: a few sentences.
        finds_instances: Whether it is a detector.
        heads: Of each attention layer.
    """

    finds_instances = False

    def __init__(self, name: str, source: Path, familiarity: Familiarity | None = None) -> None:
        self.name = name
        self.familiarity = familiarity
        self._lock = threading.Lock()  # `record_attention` hangs hooks on the network, which all visitors share
        self._load(source)
        self.knows = self._describe(source)
        # A network without attention is refused now; and a first call is slow.
        self.heads: list[int] = [layer.num_heads for layer in self._answer(Image.new("RGB", (64, 64))).layers]

    def _load(self, source: Path) -> None:
        trained = load_classifier(source)
        self.network, self.information, self.transform = trained.model, trained.information, trained.transform
        self.config = preprocessing(self.information, str(source))
        self.in_color = self.config.in_chans == 3
        times = max(1, SHARP // self.config.image_size)
        sharper = dataclasses.replace(self.config, image_size=times * self.config.image_size)
        self.sharp_transform = build_transform(sharper, train=False)
        self.labels = distinct_labels(trained.labels, [{"id": index} for index in range(len(trained.labels))])

    def _describe(self, source: Path) -> str:
        names = [printable(label) for label in self.labels]
        listed = ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if names[MOST_NAMES:] else "")
        kind = "color" if self.in_color else "gray"
        figures = self._figures(source)
        data = figures.data or self.information.get("data") or "a data set that its file does not name"
        learned = f"It learned them from {kind} pictures of {printable(data)}{self._accuracy(figures)}."
        return (
            f"It knows {len(names)} label{'s' * (len(names) != 1)}: <b>{html.escape(listed)}</b>. "
            f"{html.escape(learned)} {self._habit()}"
        )

    def _figures(self, source: Path) -> Figures:
        figures, where = self.information.get("figures"), f"the figures in {source}"
        if figures is None and (source / "result.json").is_file():
            figures, where = read_result(source) | {"data": None}, f"{source / 'result.json'}"
        known = check(dict[str, Any], figures or {}, where)
        return check(Figures, {name: known[name] for name in hints_of(Figures) if name in known}, where)

    def _habit(self) -> str:
        size = self.config.image_size
        return (
            f"It sees {size} x {size} pixels. Whatever a picture shows, the answer is one of these labels: for "
            "anything else it is wrong."
        )

    def _accuracy(self, figures: Figures) -> str:
        if figures.top1 is None or figures.images is None:
            return "; how accurate it is, its file does not say"
        split = f"{printable(figures.split)} " if figures.split else ""
        return f", and labels {figures.top1:.1f} % of {figures.images:,} {split}pictures correctly"

    def answer(self, path: str) -> Answer:
        """What the network makes of an image file.

        Raises:
            UserError: The file is no picture that can be read, or it is too large.
        """
        picture = open_limited(Path(path))
        with self._lock:
            return self._answer(picture)

    @torch.inference_mode()
    def _answer(self, picture: Image.Image) -> Answer:
        image = self.transform(picture)[None]
        features = self.network.forward_head(self.network.forward_features(image), pre_logits=True)
        probabilities = self.network.classifier(features).softmax(1)[0].tolist()
        by_label = dict(zip(self.labels, probabilities, strict=True))
        best = max(self.labels, key=lambda label: by_label[label])
        doubts = self._doubts_about(picture, self.config.image_size)
        if self.familiarity is not None and self.familiarity.is_strange(features):
            doubts.insert(
                0,
                f"To the network it resembles its labels less than {100 - 100 * SHARE:.0f} % of the validation "
                "pictures do.",
            )
        if by_label[best] < UNSURE:
            doubts.insert(
                0, f"The best guess gets only {100 * by_label[best]:.0f} %, and this page doubts guesses under 50 %."
            )
        sharp = self.sharp_transform(picture)[None]
        seen = input_picture(sharp, self.config.mean, self.config.std)
        summary = f"{printable(best)}, {100 * by_label[best]:.1f} %"
        return Answer(by_label, None, summary, doubts, seen, record_attention(self.network, image))

    def _doubts_about(self, picture: Image.Image, shorter_side: int) -> list[str]:
        doubts = []
        is_gray = picture.mode in GRAY_MODES or _has_no_color(picture)
        if is_gray == self.in_color:
            doubts.append(
                f"The picture is {'gray' if is_gray else 'in color'}, and the network learned from "
                f"{'color' if self.in_color else 'gray'} pictures."
            )
        size = f"{picture.width} x {picture.height} pixels"
        if min(picture.size) * 2 < shorter_side:
            doubts.append(f"The picture has only {size}, and is scaled up.")
        if min(picture.size) > SHRINKS * shorter_side:
            doubts.append(f"The picture has {size}, and is scaled down by more than {SHRINKS} times.")
        return doubts


class Detector(Model):
    """A detector of a checkpoint, with masks or with boxes alone."""

    finds_instances = True

    def _load(self, source: Path) -> None:
        self.detector: FasterRCNN
        self.detector, self.information = load_detector(source)
        self.config = self.detector.augmentation
        self.in_color = self.information["in_chans"] == 3
        self.transform = build_detection_transform(self.config, train=False)
        ids = self.information["category_ids"]
        self.labels = distinct_labels(self.information["class_names"], [{"id": number} for number in ids])

    def _habit(self) -> str:
        kind = "boxes and masks" if self.detector.has_masks else "boxes"
        return (
            f"It draws {kind} with a score of at least {100 * MIN_SCORE:.0f} %, and misses whatever has no label here."
        )

    def _accuracy(self, figures: Figures) -> str:
        precisions = {"box": figures.box_ap, "mask": figures.mask_ap}
        kinds = [f"{kind} AP {precision:.1f} %" for kind, precision in precisions.items() if precision is not None]
        return f" ({', '.join(kinds)} on its {printable(figures.split or 'test')} split)" if kinds else ""

    @torch.inference_mode()
    def _answer(self, picture: Image.Image) -> Answer:
        pixels, _ = self.transform(picture, {})
        (detection,) = self.detector.detect([pixels])
        kept = detection["scores"] >= MIN_SCORE
        detection = {name: each[kept] for name, each in detection.items()}
        labels = [self.labels[label - 1] for label in detection["labels"].tolist()]
        drawn = self._draw(picture, detection, labels, pixels)
        counts = {label: labels.count(label) for label in labels}
        summary = ", ".join(f"{count} {printable(label)}" for label, count in counts.items()) or "nothing found"
        doubts = self._doubts_about(picture, self.config.min_size)
        if not labels:
            doubts.insert(0, f"The network found nothing with a score of at least {100 * MIN_SCORE:.0f} %.")
        batch, _ = self.detector.transform([pixels])
        image = batch.tensors
        seen = input_picture(image, self.detector.transform.image_mean, self.detector.transform.image_std)
        return Answer({}, drawn, summary, doubts, seen, record_attention(self.detector.pyramid, image))

    def _draw(
        self, picture: Image.Image, detection: dict[str, Tensor], labels: list[str], pixels: Tensor
    ) -> Image.Image:
        results = to_results(detection, 1, self.information["category_ids"], size=pixels.shape[-2:])
        masks = Masks(results) if self.detector.has_masks else None
        boxes, scores = detection["boxes"].numpy(), detection["scores"].numpy()
        return draw_instances(picture, boxes, labels, scores, masks, min_score=MIN_SCORE)


def open_model(source: str | Path) -> Model:
    """Load the classifier or the detector of a checkpoint.

    Raises:
        UserError: As `load_checkpoint`, `load_detector` and `read_familiarity`.
    """
    path = Path(source)
    weights = read_weights(path)
    name = path.name.removesuffix(".safetensors").removesuffix(".ckpt")
    if saved_from(weights.information) in DETECTORS:
        return Detector(name, path)
    return Model(name, path, read_familiarity(weights))


def open_limited(path: Path) -> Image.Image:
    """Read an image file of at most `PIXELS` pixels; messages name the file without its folder.

    Raises:
        UserError: It is larger, or cannot be read; see `halonet.data.open_image`.
    """
    with path.open("rb") as file:
        width, height = decode_header(file, path.name).size
        if width * height > PIXELS:
            raise UserError(
                f"image {path.name} is refused: it has {width * height:,} pixels, the limit is {PIXELS:,}. "
                "Scale it down first."
            )
        return decode_image(file, path.name)


def _has_no_color(picture: Image.Image) -> bool:
    """Whether a picture in a color format is gray."""
    pixels: Any = np.asarray(picture.convert("RGB").resize((64, 64)), np.int16)
    return bool((pixels.max(2) - pixels.min(2)).max() <= 8)
