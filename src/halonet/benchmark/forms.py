"""Forms of networks to time together: plain, for inference, compiled, accelerated, and without attention."""

import dataclasses

import torch
from torch import nn

from halonet.benchmark.networks import TIMM, create_network, has_halo_attention, native_image_size
from halonet.benchmark.settings import check_names
from halonet.errors import UserError
from halonet.models import HALONETS

DEFAULT_MODELS = ["h1", "timm/halonet_h1", "timm/resnet50", "timm/efficientnet_b0", "timm/efficientnet_b1"]
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


@dataclasses.dataclass(frozen=True)
class Form:
    """A network in one of its forms.

    Attributes:
        task: The only pass that it is for, or None for both.
        changes: Fields of `HaloNetConfig` that differ from the row.
        fused: Whether batch norms are folded.
        without_attention: Whether attention is replaced by its values.
        bound: Label of the form that is this one's bound.
        same_as: Label of the form whose logits this one must give.
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
    """Forms that are timed together; ratios are over the one labeled `baseline`; `image_size` is the default."""

    name: str
    baseline: str
    forms: list[Form]
    image_size: int = 256


def make_groups(models: list[str] | None, *, accelerate: bool, compare: str | None, compiled: bool) -> list[Group]:
    """List the groups of forms to time; raise a `UserError` if a name is unknown or does not fit the question.

    `accelerate` times each of timm's networks before and after `halonet.accelerate`, `compare`, a key of `COMPARISONS`,
    each of our rows with its other form, and `compiled` halo networks compiled too.
    """
    check_names("comparison", None if compare is None else [compare], COMPARISONS)
    if accelerate:
        return [
            Group(name, f"{name} accelerated", accelerated_forms(name), native_image_size(name))
            for name in models or ACCELERATED
        ]
    if compare is not None:
        return [Group(name, name, compared_forms(name, compare)) for name in models or ["h1"]]
    forms = [form for name in models or DEFAULT_MODELS for form in forms_of(name, compiled)]
    return [Group("networks", forms[0].label, forms)]


def forms_of(name: str, compiled: bool) -> list[Form]:
    """List the forms of one network: plain, for inference, compiled, and its bound."""
    halo = has_halo_attention(on_meta(name))
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


def on_meta(name: str) -> nn.Module:
    """Build a network without memory for its weights, to inspect its layers; raises if there is no such network."""
    with torch.device("meta"):
        return create_network(name)


def accelerated_forms(name: str) -> list[Form]:
    """List the forms of one of timm's networks before and after `accelerate`, in both memory formats, with bounds."""
    if not name.startswith(TIMM) or not has_halo_attention(on_meta(name)):
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
    check_names("model", [name], HALONETS)
    changes = tuple(COMPARISONS[compare].items())
    return [Form(name, name), Form(f"{name} with {changes[0][0]}={changes[0][1]!r}", name, changes=changes)]
