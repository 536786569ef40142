"""Short answers to the questions that benchmarks are asked, on their page and in the README."""

from pathlib import Path

from benchmark_details import cell
from benchmark_records import DEVICES, Device, Medians, best_ratio, read_medians
from draw_benchmarks import OURS
from pages import markdown_table, wrap

STAGES = ("stage1", "stage2", "stage3", "stage4")
TASKS = ("forward", "training")
PEERS = {
    "timm": "timm",
    "composite": "plain PyTorch",
    "flex_attention": "FlexAttention",
    "halonet-pytorch": "halonet-pytorch",
}
NETWORKS = ("timm/halonet_h1", "timm/resnet50", "timm/efficientnet_b1")
SIDES = (128, 256, 512, 1024, 2048)
BATCH = {"CPU": "batch 4", "H100": "batch 256"}  # of the networks that are shown

SPEED = (
    "time of the operator at H1's stage 1, forward",
    "the same, forward and backward",
    "time of timm's `halonet_h1` over H1's, inference",
    "the same, a training step",
    "memory of that step",
)

FASTER = """\
## How much faster is it?

![Time of others over ours, at the four stages of H1, on a CPU and on an H100](images/benchmarks/faster.svg)

Time of the operator over that of our fused kernel, at the stages of H1 for images of 256 px. `training` is forward and
backward. "Plain PyTorch" is our own backend `composite`.
"""
NETWORK = """\
Time of a whole network over that of our H1, each in the memory format in which it is faster. timm's `halonet_h1` is the
nearest relative; the others are not attention networks.
"""
GROWTH = """\
## How does it grow?

![Time for each pixel by the size of the image, and for each pair by the size of the
window](images/benchmarks/growth.svg)

Time for each pixel of our kernel, relative to images of 128 px; there are as many pixels in every batch. At 1.00 time
is linear in the number of pixels.
"""
BOUND = """\
## How near is it to its bound?

![Percent of the bound that our kernels reach, at the four stages of H1](images/benchmarks/bound.svg)

The least time that the machine's measured rates allow, in percent of our kernel's time. H1's bound is the same network
with attention that takes no time.
"""
MEMORY = """\
## How much memory does it take?

![Memory of the operator and of a network's training step](images/benchmarks/memory.svg)

Peak above weights and inputs, in MiB, of a training step with images of 256 px.
"""


def make_answers(results: Path) -> str:
    """Write a chart and a short table for each question to which there are records."""
    stages = {device.name: read_medians(results, device.stages) for device in DEVICES}
    networks = {device.name: read_medians(results, device.networks) for device in DEVICES}
    parts = []
    if any(stages.values()):
        parts.append(f"{devices_in_words()}\n\n{FASTER}\n{faster_table(stages)}")
    if any(networks.values()):
        parts.append(f"{NETWORK}\n{network_table(networks)}")
    growth = {device.name: read_medians(results, device.growth) for device in DEVICES}
    if any(growth.values()):
        parts.append(f"{GROWTH}\n{growth_table(growth)}")
    if any(stages.values()):
        parts.append(f"{BOUND}\n{bound_table(stages, networks)}")
    memory = {device.name: read_medians(results, device.memory) for device in DEVICES}
    if any(memory.values()):
        parts.append(f"{MEMORY}\n{memory_table(memory)}")
    return "\n".join(parts)


def devices_in_words() -> str:
    return wrap("; ".join(f"{device.name}: {device.details}" for device in DEVICES) + ".")


def faster_table(stages: dict[str, Medians]) -> str:
    shown = [
        (device, peer)
        for device, medians in stages.items()
        for peer in PEERS
        if any(name == peer and "ratio" in figures for (_, _, name), figures in medians.items())
    ]
    lines = [
        [_stage(stage), task, *(_figure(stages[device], f"h1/{stage}", task, peer) for device, peer in shown)]
        for stage in STAGES
        for task in TASKS
    ]
    return markdown_table(["size", "pass", *(f"{device}: {PEERS[peer]}" for device, peer in shown)], lines, words=2)


def network_table(networks: dict[str, Medians]) -> str:
    shown = [
        (device, task)
        for device, medians in networks.items()
        for task in ("inference", "training")
        if any(each == task for _, each, _ in medians)
    ]
    lines = [
        [f"`{name}`", *(_cell(best_ratio(networks[device], name, BATCH[device], task)) for device, task in shown)]
        for name in NETWORKS
    ]
    return markdown_table(
        ["network", *(f"{device}: {task}, {BATCH[device]}" for device, task in shown)], lines, words=1
    )


def growth_table(growth: dict[str, Medians]) -> str:
    lines = [
        [
            device,
            task,
            *(_ours(medians, f"image of {side} px", task, "growth") for side in SIDES),
        ]
        for device, medians in growth.items()
        if medians
        for task in TASKS
    ]
    return markdown_table(["device", "pass", *(f"{side} px" for side in SIDES)], lines, words=2)


def bound_table(stages: dict[str, Medians], networks: dict[str, Medians]) -> str:
    shown = [(device, task) for device, medians in stages.items() if medians for task in TASKS]
    lines = [
        [
            _stage(stage),
            *(_ours(stages[device], f"h1/{stage}", task, "bound_percent") for device, task in shown),
        ]
        for stage in STAGES
    ]
    whole = [
        _ours(networks[device], f"networks, {BATCH[device]}", task.replace("forward", "inference"), "bound_percent")
        for device, task in shown
    ]
    return markdown_table(["size", *(f"{device}: {task}" for device, task in shown)], [*lines, ["H1", *whole]], words=1)


def memory_table(memory: dict[str, Medians]) -> str:
    lines = []
    for device, medians in memory.items():
        for (case, _, name), figures in medians.items():
            columns = (cell([figures[column]], column) for column in ("mebibytes", "memory_ratio"))
            lines.append([device, case.rpartition(", ")[2], f"`{name}`", *columns])
    return markdown_table(["device", "batch", "network", "MiB", "MiB, times ours"], lines, words=3)


def make_speed(results: Path) -> str:
    """Write the README's part: time and memory of others over ours."""
    head = ["times ours", *(f"{device.name}: {peer}" for device in DEVICES for peer in ("timm", "plain PyTorch"))]
    columns = [column for device in DEVICES for column in _speed_of(results, device)]
    lines = [[what, *figures] for what, *figures in zip(SPEED, *columns, strict=True)]
    text = wrap(
        f"{devices_in_words()} Plain PyTorch is our backend `composite`. [Benchmarks](docs/benchmarks.md) has charts, "
        "all figures, and how they were measured."
    )
    return f"{markdown_table(head, lines, words=1)}\n{text}"


def _speed_of(results: Path, device: Device) -> tuple[list[str], list[str]]:
    """Give a column for timm and one for plain PyTorch, whose lines are those of `SPEED`."""
    stages, networks = read_medians(results, device.stages), read_medians(results, device.networks)
    timm, plain = ([_figure(stages, "h1/stage1", task, peer) for task in TASKS] for peer in ("timm", "composite"))
    for task in ("inference", "training"):
        timm.append(_cell(best_ratio(networks, "timm/halonet_h1", BATCH[device.name], task)))
    memory = read_medians(results, device.memory)
    timm.append(_cell(next((memory[key]["memory_ratio"] for key in memory if key[2] == "timm/halonet_h1"), None)))
    return timm, plain + ["-"] * 3


def _figure(medians: Medians, case: str, task: str, name: str) -> str:
    return _cell(medians.get((case, task, name), {}).get("ratio"))


def _ours(medians: Medians, case: str, task: str, column: str) -> str:
    for name in OURS:
        if column in medians.get((case, task, name), {}):
            return cell([medians[case, task, name][column]], column)
    return "-"


def _cell(ratio: float | None) -> str:
    return cell(None if ratio is None else [ratio], "ratio")


def _stage(stage: str) -> str:
    return stage.replace("stage", "stage ")
