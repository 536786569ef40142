"""Time whole networks: ours, timm's, and both without attention, after checking that their forms agree."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

import halonet
from halonet.benchmark import record
from halonet.benchmark.forms import Form, Group, on_meta
from halonet.benchmark.memory import peak_mebibytes
from halonet.benchmark.networks import attention_replaced_by_values, create_network
from halonet.benchmark.peers import disagreement, relative_error
from halonet.benchmark.peers.implementation import TOLERANCES
from halonet.benchmark.record import Row
from halonet.benchmark.settings import Settings
from halonet.benchmark.timing import make_step, time_in_turns
from halonet.errors import UserError

TASKS = ("inference", "training")
MEMORY_MODELS = ["h1", "timm/halonet_h1"]
IMAGE_SCALE = 5  # attention must show in the logits beside the shifts of all the norms
# Two forms agree if the error of the logits, relative to the norm, is at most this, ...
LOGIT_TOLERANCE = 1e-4
# ... or at most this multiple of the plain form's own rounding error, its distance from its logits in float64. Under
# autocast that is 5e-3 for H1 in bfloat16, and 3e-2 for a network whose attention is sharper, so no one number fits
# both. Forms differed by up to 1.4 times the rounding error; H1 without attention differs by 6 times.
ROUNDING_FACTOR = 3
ROUNDED_IMAGES = 8  # images that rounding is measured on; in timm's lambda network one of four can have 7e-3


def build(form: Form, settings: Settings) -> nn.Module:
    """Build a form on its device, in eval mode, with the same weights as all forms of the network, in fp32 or fp64."""
    with torch.device(settings.device):
        network = create_network(form.model, **dict(form.changes)).eval()
    network = network.to(settings.device, _stored(settings))
    if form.accelerated:
        halonet.accelerate(network)
    if form.fused:
        network = halonet.fuse_batch_norm(network)
    if form.channels_last:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return cast(nn.Module, torch.compile(network, dynamic=False)) if form.compiled else network


def _stored(settings: Settings) -> torch.dtype:
    """Dtype of weights and images; lower ones are left to autocast."""
    return torch.float64 if settings.dtype == "float64" else torch.float32


def _autocast(settings: Settings) -> contextlib.AbstractContextManager[object]:
    if settings.torch_dtype == _stored(settings):
        return contextlib.nullcontext()
    return torch.autocast(torch.device(settings.device).type, settings.torch_dtype)


def draw_images(settings: Settings, image_size: int) -> Tensor:
    """Draw images [batch, 3, image_size, image_size] on the device of the settings, always the same ones."""
    generator = torch.Generator(settings.device).manual_seed(0)
    shape = (settings.batch, 3, image_size, image_size)
    return IMAGE_SCALE * torch.randn(shape, generator=generator, device=settings.device)


def prepare_form(form: Form, settings: Settings, image_size: int, training: bool) -> tuple[Tensor, Callable[[], None]]:
    """Build a form; return its logits [batch, 1000] in eval mode, where norms do not magnify rounding, and its pass."""
    network = build(form, settings)
    images = draw_images(settings, image_size).to(_stored(settings))
    if form.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)

    def run() -> Tensor:
        with _autocast(settings):
            return network(images)

    with torch.no_grad():
        logits = run()
    network.train(training)
    step = make_step(run, list(network.parameters()), training)
    return logits, _without_attention(step) if form.without_attention else step


def _without_attention(step: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with attention_replaced_by_values():
            step()

    return run


def make_record(
    settings: Settings, image_size: int | None, *, accelerate: bool = False, compare: str | None = None
) -> dict[str, Any]:
    """Begin the record of a question about networks; there may be several batch sizes, and each row states its own."""
    question = {"image_size": image_size, "accelerate": accelerate, "compare": compare}
    begun = record.make_record("model", question, settings)
    del begun["settings"]["batch"]
    return begun


def measure(
    groups: Iterable[Group], tasks: Iterable[str], every: Iterable[Settings], image_size: int | None
) -> Iterator[Row]:
    """Time the forms of each group with each settings and at each pass; yield a row for each.

    Raises a `UserError` if the image size is below 1, or the group's baseline cannot run.
    """
    if image_size is not None and image_size < 1:
        raise UserError(f"--image-size is {image_size}, but must be at least 1 pixel")
    for group in groups:
        for settings in every:
            for task in tasks:
                yield _measure_row(group, task, settings, image_size or group.image_size)


def _measure_row(group: Group, task: str, settings: Settings, image_size: int) -> Row:
    training = task == "training"
    torch.compiler.reset()
    steps, absent, checks = {}, {}, LogitChecks(settings, image_size)
    for form in group.forms:
        if form.task not in (None, task):
            continue
        try:
            steps[form.label] = prepare_checked(form, settings, image_size, training, checks)
        except Exception as error:  # whatever a network fails with is the reason to print
            absent[form.label] = record.reason_of(error)
    if group.baseline not in steps:
        raise UserError(f"{group.baseline} cannot run at {image_size} px: {absent[group.baseline]}")
    milliseconds = time_in_turns(steps, settings)
    return Row(
        case=f"{group.name}, batch {settings.batch}",
        task=task,
        baseline=group.baseline,
        facts={"image_size": image_size, "batch": settings.batch},
        milliseconds=milliseconds,
        bounds={
            form.label: milliseconds[form.bound][1]
            for form in group.forms
            if form.label in milliseconds and form.bound is not None and form.bound in milliseconds
        },
        absent=absent,
    )


class LogitChecks:
    """Checks that forms that are timed together give the logits that they must."""

    def __init__(self, settings: Settings, image_size: int) -> None:
        self._settings, self._image_size = settings, image_size
        self._known: dict[str, tuple[Form, Tensor]] = {}
        self._roundings: dict[str, float] = {}

    def check(self, form: Form, logits: Tensor) -> None:
        """Compare a form's logits with those of `same_as`, and keep them; raise a `ValueError` if they differ."""
        self._known[form.label] = form, logits
        if form.same_as is None:
            return
        if form.same_as not in self._known:
            raise ValueError(f"{form.same_as}, whose logits it must give, was left out")
        plain, expected = self._known[form.same_as]
        tolerance = min(LOGIT_TOLERANCE, TOLERANCES[self._settings.torch_dtype])
        if disagreement(logits, expected, tolerance) is not None:
            wrong = disagreement(logits, expected, ROUNDING_FACTOR * self._rounding(plain, expected))
            if wrong:
                raise ValueError(wrong)

    def _rounding(self, form: Form, logits: Tensor) -> float:
        """Error of some images' logits relative to float64, or to float32 on devices without it."""
        if form.label not in self._roundings:
            exact = "float32" if torch.device(self._settings.device).type == "mps" else "float64"
            settings = dataclasses.replace(self._settings, dtype=exact)
            images = draw_images(self._settings, self._image_size)[:ROUNDED_IMAGES].to(_stored(settings))
            with torch.no_grad():
                self._roundings[form.label] = relative_error(logits[:ROUNDED_IMAGES], build(form, settings)(images))
        return self._roundings[form.label]


def prepare_checked(
    form: Form, settings: Settings, image_size: int, training: bool, checks: LogitChecks
) -> Callable[[], None]:
    """Build a form, check its logits, and run its pass once; raise a `ValueError` if the logits differ."""
    logits, step = prepare_form(form, settings, image_size, training)
    checks.check(form, logits)
    step()
    return step


def measure_memory(models: list[str] | None, task: str, settings: Settings, image_size: int) -> Iterator[Row]:
    """Measure the peak memory of one step of each network (None: H1 and timm's), each in a process of its own."""
    names = models or MEMORY_MODELS
    for name in names:
        on_meta(name)
    arguments = {"image_size": image_size, "training": task == "training"}
    figures = {name: peak_mebibytes(f"{__name__}:prepare", settings, name=name, **arguments) for name in names}
    facts = {"image_size": image_size, "batch": settings.batch}
    yield Row(f"{image_size} px, batch {settings.batch}", task, names[0], facts, mebibytes=figures)


def prepare(settings: Settings, *, name: str, image_size: int, training: bool) -> Callable[[], None]:
    """Prepare a pass for the process that measures memory; there are no gradients yet."""
    return prepare_form(Form(name, name), settings, image_size, training)[1]
