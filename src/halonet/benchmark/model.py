"""Whole networks: ours, timm's, and what they would take without attention; checked to agree, then raced."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

import halonet
from halonet.benchmark.contestants import disagreement, relative_error
from halonet.benchmark.contestants.entry import TOLERANCES
from halonet.benchmark.memory import peak_mebibytes
from halonet.benchmark.networks import (
    TIMM,
    attention_replaced_by_values,
    create_network,
    has_halo_attention,
    own_image_size,
)
from halonet.benchmark.race import make_step, race
from halonet.benchmark.record import Row
from halonet.benchmark.settings import Settings
from halonet.errors import UserError, unknown_name
from halonet.models import HALONETS

TASKS = ("inference", "training")
DEFAULT_MODELS = ["h1", "timm/halonet_h1", "timm/resnet50", "timm/efficientnet_b0", "timm/efficientnet_b1"]
IN_MEMORY = ["h1", "timm/halonet_h1"]
# timm's networks with halo attention.
ACCELERATED = [
    "timm/halonet_h1",
    "timm/halonet26t",
    "timm/sehalonet33ts",
    "timm/halonet50ts",
    "timm/eca_halonext26ts",
    "timm/haloregnetz_b",
    "timm/lamhalobotnet50ts_256",
    "timm/halo2botnet50ts_256",
]
COMPARISONS = {"centered": {"centered": True}, "strided": {"downsampling": "pool"}}
LOUDNESS = 5  # of the images: attention must show in logits beside the shifts of all the norms
# Forms that must give the same logits are equal if they are this near, relative to the norm, ...
NEAR = 1e-4
# ... or apart by no more than so many times what rounding does to the plain form: its distance from its own logits in
# float64. Under autocast that is 5e-3 for H1 in bfloat16, and 3e-2 for a network whose attention is sharper, so no one
# number would fit both; forms were up to 1.4 times as far apart, and H1 without attention is 6 times as far.
ROUNDINGS = 3
ROUNDED = 8  # images that this is measured on; timm's lambda network turns rounding in one image of four into 7e-3


@dataclasses.dataclass(frozen=True)
class Form:
    """A network in one of its forms.

    Attributes:
        label: As printed; the network's name, and the form.
        model: The network's name.
        task: The only pass that it is for, or None.
        changes: Fields of `HaloNetConfig` that differ from the row.
        channels_last: Whether weights and images lie in channels_last memory.
        accelerated: Whether `halonet.accelerate` was called.
        fused: Whether batch norms are folded.
        compiled: Whether it is compiled.
        without_attention: Whether attention is replaced by its values: the bound.
        bound: Label of the form that is this one's bound, or None.
        same_as: Label of the form whose numbers this one must give, or None.
    """

    label: str
    model: str
    task: str | None = None
    changes: tuple[tuple[str, object], ...] = ()
    channels_last: bool = False
    accelerated: bool = False
    fused: bool = False
    compiled: bool = False
    without_attention: bool = False
    bound: str | None = None
    same_as: str | None = None


@dataclasses.dataclass(frozen=True)
class Group:
    """What is raced together.

    Attributes:
        name: As printed.
        baseline: Label of the form that ratios are over.
        forms: Who takes part.
        image_size: Side of the images in pixels, where none is asked for.
    """

    name: str
    baseline: str
    forms: list[Form]
    image_size: int = 256


def make_groups(models: list[str] | None, *, accelerate: bool, compare: str | None, compiled: bool) -> list[Group]:
    """Say what is raced with what.

    Args:
        models: Names; None takes those of the question.
        accelerate: Race each of timm's networks before and after `halonet.accelerate`.
        compare: A key of `COMPARISONS`: race each of our rows with its other form.
        compiled: Race halo networks compiled too.

    Raises:
        UserError: If a name is unknown, or no network to ask about.
    """
    if compare is not None and compare not in COMPARISONS:
        raise UserError(unknown_name("comparison", compare, COMPARISONS))
    if accelerate:
        return [
            Group(name, f"{name} accelerated", accelerated_forms(name), own_image_size(name))
            for name in models or ACCELERATED
        ]
    if compare is not None:
        return [Group(name, name, compared_forms(name, compare)) for name in models or ["h1"]]
    forms = [form for name in models or DEFAULT_MODELS for form in forms_of(name, compiled)]
    return [Group("networks", forms[0].label, forms)]


def forms_of(name: str, compiled: bool) -> list[Form]:
    """List the forms of one network: plain, for inference, compiled, and its bound."""
    halo = has_halo_attention(_sketch(name))
    if name.startswith(TIMM):
        forms = [Form(name, name), Form(last := f"{name} channels_last", name, channels_last=True, same_as=name)]
        if halo:
            forms.append(Form(f"{name} bound", name, channels_last=True, accelerated=True, without_attention=True))
            forms = [dataclasses.replace(form, bound=f"{name} bound") for form in forms[:2]] + forms[2:]
    else:
        bound = f"{name} bound" if halo else None
        last, fused = name, f"{name} fused"
        forms = [
            Form(name, name, bound=bound),
            Form(fused, name, task="inference", fused=True, same_as=name, bound=f"{fused} bound" if halo else None),
        ]
        if halo:
            forms.append(Form(f"{name} bound", name, without_attention=True))
            forms.append(Form(f"{fused} bound", name, task="inference", fused=True, without_attention=True))
    if compiled and halo:
        forms.append(Form(f"{name} compiled", name, channels_last=last != name, compiled=True, same_as=name))
    return forms


def _sketch(name: str) -> nn.Module:
    """A network without memory for its weights, to see what it consists of, or that there is no such network."""
    with torch.device("meta"):
        return create_network(name)


def accelerated_forms(name: str) -> list[Form]:
    """List one of timm's networks before and after `accelerate`, in both memory formats, with its bounds."""
    if not name.startswith(TIMM) or not has_halo_attention(_sketch(name)):
        raise UserError(f"--accelerate takes timm's networks with halo attention, such as {ACCELERATED[0]}, not {name}")
    forms = []
    for suffix, last in (("", False), (" channels_last", True)):
        bound = f"{name} bound{suffix}"
        forms += [
            Form(name + suffix, name, channels_last=last, bound=bound),
            Form(f"{name} accelerated{suffix}", name, channels_last=last, accelerated=True, bound=bound, same_as=name),
            Form(bound, name, channels_last=last, accelerated=True, without_attention=True),
        ]
    return forms


def compared_forms(name: str, compare: str) -> list[Form]:
    """List a row of ours and its other form."""
    if name not in HALONETS:
        raise UserError(unknown_name("model", name, HALONETS))
    changes = tuple(COMPARISONS[compare].items())
    return [Form(name, name), Form(f"{name} with {changes[0][0]}={changes[0][1]!r}", name, changes=changes)]


def build(form: Form, settings: Settings) -> nn.Module:
    """Build a form on its device, in eval mode; all forms of one network have the same weights.

    They are fp32, for autocast where the dtype is lower, or fp64.
    """
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
    """The dtype of weights and images."""
    return torch.float64 if settings.dtype == "float64" else torch.float32


def _autocast(settings: Settings) -> contextlib.AbstractContextManager[object]:
    if settings.torch_dtype == _stored(settings):
        return contextlib.nullcontext()
    return torch.autocast(torch.device(settings.device).type, settings.torch_dtype)


def draw_images(settings: Settings, image_size: int) -> Tensor:
    """Draw the images [batch, 3, image_size, image_size] on their device, always the same ones."""
    generator = torch.Generator(settings.device).manual_seed(0)
    shape = (settings.batch, 3, image_size, image_size)
    return LOUDNESS * torch.randn(shape, generator=generator, device=settings.device)


def prepare_form(form: Form, settings: Settings, image_size: int, training: bool) -> tuple[Tensor, Callable[[], None]]:
    """Make a form ready.

    Returns:
        Its logits [batch, 1000] in eval mode, where batch norm does not magnify rounding, and its timed pass.
    """
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
    def replaced() -> None:
        with attention_replaced_by_values():
            step()

    return replaced


def measure(
    groups: Iterable[Group], tasks: Iterable[str], every: Iterable[Settings], image_size: int | None
) -> Iterator[Row]:
    """Race the forms of each group, at each pass and with each settings' batch, at that size or at the group's own.

    Yields:
        One row for each.

    Raises:
        UserError: If the image size is below 1, or the group's baseline cannot run.
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
    steps, absent, agreement = {}, {}, Agreement(settings, image_size)
    for form in group.forms:
        if form.task not in (None, task):
            continue
        try:
            steps[form.label] = enter(form, settings, image_size, training, agreement)
        except Exception as error:  # whatever a network fails with is the reason that is printed
            absent[form.label] = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
    if group.baseline not in steps:
        raise UserError(f"{group.baseline} cannot run at {image_size} px: {absent[group.baseline]}")
    milliseconds = race(steps, settings)
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


class Agreement:
    """Whether the forms of one race give the logits that they must."""

    def __init__(self, settings: Settings, image_size: int) -> None:
        self._settings, self._image_size = settings, image_size
        self._known: dict[str, tuple[Form, Tensor]] = {}
        self._roundings: dict[str, float] = {}

    def check(self, form: Form, logits: Tensor) -> None:
        """Compare a form's logits with those of the form that it must equal, and remember them.

        Raises:
            ValueError: If it computes something else, or that form could not be run.
        """
        self._known[form.label] = form, logits
        if form.same_as is None:
            return
        if form.same_as not in self._known:
            raise ValueError(f"{form.same_as}, whose logits it must give, took no part")
        plain, expected = self._known[form.same_as]
        near = min(NEAR, TOLERANCES[self._settings.torch_dtype])
        if disagreement(logits, expected, near) is not None:
            wrong = disagreement(logits, expected, ROUNDINGS * self._rounding(plain, expected))
            if wrong:
                raise ValueError(wrong)

    def _rounding(self, form: Form, logits: Tensor) -> float:
        """Distance of some images' logits from those in float64, which some accelerators have not."""
        if form.label not in self._roundings:
            exact = "float32" if torch.device(self._settings.device).type == "mps" else "float64"
            settings = dataclasses.replace(self._settings, dtype=exact)
            images = draw_images(self._settings, self._image_size)[:ROUNDED].to(_stored(settings))
            with torch.no_grad():
                self._roundings[form.label] = relative_error(logits[:ROUNDED], build(form, settings)(images))
        return self._roundings[form.label]


def enter(form: Form, settings: Settings, image_size: int, training: bool, agreement: Agreement) -> Callable[[], None]:
    """Make a form ready, check its numbers against those of the form it must equal, and run it once.

    Args:
        form: The form.
        settings: How it is run.
        image_size: Side of the images in pixels.
        training: Whether it is run backward too.
        agreement: Knows the logits of the forms before it.

    Returns:
        Its pass.

    Raises:
        ValueError: If it computes something else.
    """
    logits, step = prepare_form(form, settings, image_size, training)
    agreement.check(form, logits)
    step()
    return step


def measure_memory(models: list[str] | None, task: str, settings: Settings, image_size: int) -> Row:
    """Measure the peak memory of one step of each network, each in a fresh process.

    Args:
        models: Names; None takes H1 and timm's.
        task: One of `TASKS`.
        settings: How it is run.
        image_size: Side of the images in pixels.

    Raises:
        UserError: If a name is unknown, or the system does not tell.
    """
    names = models or IN_MEMORY
    for name in names:
        _sketch(name)
    arguments = {"image_size": image_size, "training": task == "training"}
    figures = {name: peak_mebibytes(f"{__name__}:prepare", settings, name=name, **arguments) for name in names}
    facts = {"image_size": image_size, "batch": settings.batch}
    return Row(f"{image_size} px, batch {settings.batch}", task, names[0], facts, mebibytes=figures)


def prepare(settings: Settings, *, name: str, image_size: int, training: bool) -> Callable[[], None]:
    """Prepare a network's pass for the process that measures memory; its gradients do not exist yet."""
    return prepare_form(Form(name, name), settings, image_size, training)[1]
