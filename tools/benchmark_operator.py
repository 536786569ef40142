"""Compare our backends with timm's HaloAttn and FlexAttention: time and memory of the bare operator.

All get the same queries, keys and values of H1's stages and are first checked to agree: ours with timm (its tables and
border rule on both sides), FlexAttention with ours. Then each runs in its own best form: timm as its layer is, the
others with the paper's tables and the masked border; FlexAttention compiled, and forward only, for it has no backward
on a CPU. Runs alternate; medians and quartiles. Memory is the peak of a fresh process above its inputs.

    python tools/benchmark_operator.py --output results/operator_cpu.json
"""

import argparse
import ctypes
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from timm.layers.halo_attn import HaloAttn
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import halonet

# H1 at 256 px (paper Table A2): map side, heads, channels of a head.
STAGES = {1: (64, 4, 16), 2: (32, 8, 16), 3: (16, 8, 32), 4: (8, 8, 64)}
BLOCK, HALO = 8, 3
MEASURED_IN_MEMORY = ("timm", "composite", "cpu")


class Given(nn.Module):
    """Stands in for a projection, so that timm's layer is the bare operator."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return the tensor."""
        return self.tensor


def make_operators(stage: int, batch: int, check: bool = False) -> tuple[dict[str, Callable[[], Tensor]], list[Tensor]]:
    """Build both operators of a stage on the same numbers, checked to agree if asked, and all that takes gradients."""
    side, heads, width = STAGES[stage]
    torch.manual_seed(stage)
    query, key, value = (torch.randn(batch, side, side, heads, width, requires_grad=True) for _ in range(3))
    layer = HaloAttn(heads * width, num_heads=heads, dim_head=width, block_size=BLOCK, halo_size=HALO)
    for table in (layer.pos_embed.height_rel, layer.pos_embed.width_rel):
        nn.init.normal_(table, std=0.5)
    if check:
        check_agreement(layer, query, key, value, heads, width)

    # timm wants channels first, keys and values interleaved by head.
    timm_query = query.detach().flatten(3).permute(0, 3, 1, 2).contiguous().requires_grad_()
    timm_key_value = torch.cat([key.detach(), value.detach()], -1).flatten(3).permute(0, 3, 1, 2).contiguous()
    layer.q, layer.kv = Given(timm_query), Given(timm_key_value.requires_grad_())
    image = torch.empty(batch, heads * width, side, side)
    rows, columns = (torch.randn(2 * (BLOCK + HALO) - 1, width // 2, requires_grad=True) for _ in range(2))

    def ours(backend: str) -> Tensor:
        return halonet.halo_attention(
            query, key, value, rows, columns, block_size=BLOCK, halo_size=HALO, backend=backend
        )

    operators = {
        "timm": lambda: layer(image),
        "composite": lambda: ours("composite"),
        "cpu": lambda: ours("cpu"),
    }
    leaves = [query, key, value, rows, columns, timm_query, timm_key_value, *layer.pos_embed.parameters()]
    return operators, leaves


def check_agreement(layer: HaloAttn, query: Tensor, key: Tensor, value: Tensor, heads: int, width: int) -> None:
    """Require that ours, given timm's tables and border rule, equals timm."""
    q = query.flatten(3).permute(0, 3, 1, 2)
    kv = torch.cat([key, value], -1).flatten(3).permute(0, 3, 1, 2)
    projections = layer.q, layer.kv
    layer.q, layer.kv = Given(q), Given(kv)
    tables = (table[2 * HALO :] * width**0.5 for table in (layer.pos_embed.height_rel, layer.pos_embed.width_rel))
    with torch.no_grad():
        ours = halonet.halo_attention(
            query, key, value, *tables, block_size=BLOCK, halo_size=HALO, border="zeros", backend="cpu"
        )
        torch.testing.assert_close(ours.flatten(3).permute(0, 3, 1, 2), layer(q), rtol=1e-4, atol=1e-5)
    layer.q, layer.kv = projections


def make_flex(query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor) -> Callable[[], Tensor]:
    """Build FlexAttention with the halo as its mask and relative logits as its change of scores."""
    side, width = query.shape[1], query.shape[-1]
    q, k, v = (each.detach().flatten(1, 2).transpose(1, 2).contiguous() for each in (query, key, value))
    middle = BLOCK + HALO - 1

    def may_see(_batch: Tensor, _head: Tensor, q_index: Tensor, k_index: Tensor) -> Tensor:
        # Distances from the block's first pixel lie in the window.
        row = k_index // side - q_index // side // BLOCK * BLOCK + HALO
        column = k_index % side - q_index % side // BLOCK * BLOCK + HALO
        window = BLOCK + 2 * HALO
        return (row >= 0) & (row < window) & (column >= 0) & (column < window)

    mask = create_block_mask(may_see, None, None, side * side, side * side, device="cpu")
    attend = torch.compile(flex_attention, dynamic=False)

    def run() -> Tensor:
        row_logits = q[..., : rows.shape[1]] @ rows.mT * width**-0.5
        column_logits = q[..., rows.shape[1] :] @ columns.mT * width**-0.5

        def add_positions(score: Tensor, b: Tensor, h: Tensor, q_index: Tensor, k_index: Tensor) -> Tensor:
            # Evaluated where the mask hides too, so the offset must be kept inside the table.
            row = (k_index // side - q_index // side + middle).clamp(0, 2 * middle)
            column = (k_index % side - q_index % side + middle).clamp(0, 2 * middle)
            return score + row_logits[b, h, q_index, row] + column_logits[b, h, q_index, column]

        return attend(q, k, v, score_mod=add_positions, block_mask=mask).transpose(1, 2).unflatten(1, (side, side))

    return run


def run_once(operator: Callable[[], Tensor], leaves: list[Tensor], training: bool) -> None:
    """Run the operator forward, or forward and backward with fresh gradients."""
    if not training:
        with torch.no_grad():
            operator()
        return
    for leaf in leaves:
        leaf.grad = None
    operator().sum().backward()


def time_stage(stage: int, batch: int, repeats: int) -> list[dict]:
    """Time all operators in alternation."""
    operators, leaves = make_operators(stage, batch, check=True)
    with torch.no_grad():
        flex = make_flex(*leaves[:5])
        torch.testing.assert_close(flex(), operators["cpu"](), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(operators["composite"](), operators["cpu"](), rtol=1e-3, atol=1e-4)
    results = []
    for training in (False, True):
        raced = operators if training else operators | {"flex_attention": flex}
        seconds: dict[str, list[float]] = {name: [] for name in raced}
        for repeat in range(repeats + 2):
            for name, operator in raced.items():
                start = time.perf_counter()
                run_once(operator, leaves, training)
                if repeat >= 2:
                    seconds[name].append(time.perf_counter() - start)
        quartiles = {name: [1e3 * q for q in statistics.quantiles(times, n=4)] for name, times in seconds.items()}
        results.append({"stage": stage, "training": training, "milliseconds": quartiles})
    return results


def peak_memory(stage: int, batch: int, name: str, training: bool) -> float:
    """MiB that a fresh process needs for one run above what its inputs take."""
    words = [__file__, "--measure", str(stage), str(batch), name, str(int(training))]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def measure_here(stage: int, batch: int, name: str, training: bool) -> float:
    """Peak resident memory of one run in this process, in MiB, above what was resident before (Linux, glibc)."""
    small, small_leaves = make_operators(4, 1)
    run_once(small[name], small_leaves, training)  # the libraries' own buffers
    operators, leaves = make_operators(stage, batch)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed must not hide what is taken
    Path("/proc/self/clear_refs").write_text("5")

    def status(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))

    before = status("VmRSS")
    run_once(operators[name], leaves, training)
    return (status("VmHWM") - before) / 1024


def provenance(threads: int, repeats: int, batch: int) -> dict:
    """Say where and with what the figures were taken."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    processor = platform.processor() or platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {
        "command": "python tools/benchmark_operator.py",
        "commit": commit.stdout.strip(),
        "processor": processor,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "batch": batch,
        "repeats": repeats,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "halonet": halonet.__version__,
    }


def main() -> None:
    """Measure all stages, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        stage, batch, name, training = options.measure
        print(measure_here(int(stage), int(batch), name, bool(int(training))))
        return
    record = {"provenance": provenance(options.threads, options.repeats, options.batch), "stages": []}
    print("stage  pass      operator        ms [quartiles]             times cpu's    MiB")
    for stage in STAGES:
        for row in time_stage(stage, options.batch, options.repeats):
            training = row["training"]
            row["mebibytes"] = {name: peak_memory(stage, options.batch, name, training) for name in MEASURED_IN_MEMORY}
            record["stages"].append(row)
            for name, (low, median, high) in row["milliseconds"].items():
                memory = row["mebibytes"].get(name)
                print(
                    f"{stage:5}  {'training' if training else 'forward':8}  {name:14}"
                    f"  {median:8.2f} [{low:7.2f}-{high:7.2f}]  {median / row['milliseconds']['cpu'][1]:10.2f}"
                    f"  {'' if memory is None else f'{memory:8.1f}'}",
                    flush=True,
                )
    if options.output:
        options.output.write_text(json.dumps(record, indent=2) + "\n")
        print(f"written to {options.output}")


if __name__ == "__main__":
    main()
