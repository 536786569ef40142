"""Time the bare operator: our backends and the peers on the same inputs, after checking that they agree."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from halonet.benchmark import record
from halonet.benchmark.memory import can_measure, peak_mebibytes
from halonet.benchmark.peak import Peak, count_work, visible_pairs
from halonet.benchmark.peers import IMPLEMENTATIONS, OURS, Inputs, disagreement, make_inputs
from halonet.benchmark.record import Row
from halonet.benchmark.settings import Settings, check_names
from halonet.benchmark.sizes import SIZES, Size
from halonet.benchmark.timing import make_step, time_in_turns

TASKS = ("forward", "training")
# Variants of ours, the first of which ratios are over, and the default sizes.
COMPARISONS = {
    "centered": (["relaxed", "centered"], ["h1/stage1", "h1/stage2", "h1/stage3", "h1/stage4"]),
    "strided": (["strided", "pooled"], ["h1/stage2-strided", "h1/stage3-strided", "h1/stage4-strided"]),
}
SCALINGS = ("image", "window")
SCALED = ["composite", "timm"]  # beside our fused backend
LARGEST_SIDE = 2048


@dataclasses.dataclass(frozen=True)
class Case:
    """A size with its batch; `facts` are more numbers of it for the record."""

    name: str
    size: Size
    batch: int
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def scaling_cases(scaling: str, batch: int) -> list[Case]:
    """List cases that show how time grows with the "image" or with the "window".

    They are H1's first stage for images of 128 to 2048 px, in batches with as many pixels as one image of 2048 px; or
    its map at 256 px, in the given batch, with b of 4 to 32 and h of 1 to 4.
    """
    check_names("scaling", [scaling], SCALINGS)
    stage = SIZES["h1/stage1"]
    if scaling == "image":
        return [
            Case(
                f"image of {side} px",
                dataclasses.replace(stage, rows=side // 4, columns=side // 4),
                (LARGEST_SIDE // side) ** 2,
                {"image_side": side, "unit": "pixel", "units": (LARGEST_SIDE // 4) ** 2},
            )
            for side in (128, 256, 512, 1024, LARGEST_SIDE)
        ]
    sizes = [dataclasses.replace(stage, block=block, halo=halo) for block in (4, 8, 16, 32) for halo in (1, 2, 3, 4)]
    return [
        Case(
            f"b = {size.block}, h = {size.halo}",
            size,
            batch,
            {"unit": "pair", "units": batch * size.heads * visible_pairs(size)},
        )
        for size in sizes
    ]


def make_record(settings: Settings, *, compare: str | None = None, scaling: str | None = None) -> dict[str, Any]:
    """Begin the record of a question about the operator."""
    return record.make_record("operator", {"compare": compare, "scaling": scaling}, settings)


def measure(
    cases: Iterable[Case], names: list[str], tasks: list[str], settings: Settings, peak: Peak, *, memory: bool
) -> Iterator[Row]:
    """Time implementations, ours first; yield a row for each case and pass, even if nothing can run it.

    The batch of a case replaces that of the settings. `memory` measures peak memory too, in a process for each figure.
    """
    for case in cases:
        for task in tasks:
            yield _measure_row(case, task, names, dataclasses.replace(settings, batch=case.batch), peak, memory)


def _measure_row(case: Case, task: str, names: list[str], settings: Settings, peak: Peak, memory: bool) -> Row:
    training = task == "training"
    inputs = make_inputs(case.size, settings)
    torch.compiler.reset()  # otherwise graphs of earlier sizes count against the compiler's limit
    steps, absent = {}, {}
    for name in names:
        prepared = prepare_checked(name, inputs, settings, training)
        if isinstance(prepared, str):
            absent[name] = prepared
        else:
            steps[name] = prepared
    sizes = {name: IMPLEMENTATIONS[name].computes(case.size) for name in steps}
    work = {name: count_work(size, case.batch, training, settings.torch_dtype) for name, size in sizes.items()}
    return Row(
        case=case.name,
        task=task,
        baseline=next((name for name in OURS if name in steps), names[0]),
        facts=dataclasses.asdict(case.size) | {"batch": case.batch} | case.facts,
        milliseconds=time_in_turns(steps, settings, device_time=True),
        bounds={name: peak.milliseconds(each) for name, each in work.items()},
        mebibytes={
            name: peak_mebibytes(f"{__name__}:prepare", settings, size=vars(case.size), name=name, training=training)
            for name in steps
            if memory and can_measure(settings.device) and not IMPLEMENTATIONS[name].compiles
        },
        absent=absent,
    )


def prepare_checked(name: str, inputs: Inputs, settings: Settings, training: bool) -> Callable[[], None] | str:
    """Prepare an implementation, check that it agrees with ours, and run it once; or say why it is left out."""
    implementation = IMPLEMENTATIONS[name]
    reason = implementation.unsupported_reason(inputs.size, settings, training)
    if reason:
        return reason
    try:
        prepared = implementation.prepare(inputs)
        with torch.no_grad():
            wrong = disagreement(*prepared.compare())
        if wrong:
            return wrong
        step = make_step(prepared.run, prepared.leaves, training)
        step()
    except Exception as error:  # whatever a peer fails with is the reason to print
        return record.reason_of(error)
    if training and any(leaf.grad is None for leaf in prepared.leaves):
        return "its backward pass does not give all gradients"
    return step


def prepare(settings: Settings, *, size: dict[str, Any], name: str, training: bool) -> Callable[[], None]:
    """Prepare a pass for the process that measures memory."""
    prepared = IMPLEMENTATIONS[name].prepare(make_inputs(Size(**size), settings))
    return make_step(prepared.run, prepared.leaves, training)
