"""What the Triton kernels promise on a GPU beyond the suite that every backend passes."""

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import halonet
from halonet.benchmark.sizes import SIZES, Size
from halonet.ops.attention import describe_backends

if not torch.cuda.is_available():
    pytest.skip("these need a GPU", allow_module_level=True)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("untyped"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),  # the compiler's advice
]
OPTIONS = {"block_size": 8, "halo_size": 3}


def tensors(size: Size, dtype: torch.dtype, batch: int = 2) -> list[Tensor]:
    """Query, key, value and fp32 tables on the GPU, all leaves."""
    geometry = size.geometry
    grid = (batch, size.rows, size.columns, size.heads)
    queries = (batch, geometry.rows.num_queries, geometry.columns.num_queries, size.heads)
    shapes = [(*queries, size.query_channels), (*grid, size.query_channels), (*grid, size.value_channels)]
    tables = list(zip((geometry.rows.table_length, geometry.columns.table_length), size.table_widths, strict=True))
    drawn = [torch.randn(shape, device="cuda", dtype=dtype) for shape in shapes]
    return [each.requires_grad_() for each in [*drawn, *(torch.randn(shape, device="cuda") for shape in tables)]]


def outputs_and_gradients(attend: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    output = attend(*inputs)
    generator = torch.Generator("cuda").manual_seed(1)
    gradient = torch.randn(output.shape, device="cuda", generator=generator).to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, inputs, gradient)]


# Kernels do not know the image's size: of layers that differ by nothing else, the smallest stands for all. Exact
# products of fp32 take the compiler long, and up to most of a minute with blocks of 32.
DISTINCT = {
    (size.heads, size.query_channels, size.value_channels, size.block, size.halo, size.stride): name
    for name, size in sorted(SIZES.items(), key=lambda item: -item[1].rows * item[1].columns)
}
CASES = [
    *itertools.product(DISTINCT.values(), [torch.bfloat16, torch.float16]),
    *((name, torch.float32) for name in DISTINCT.values() if name.startswith(("h1/", "h4/", "awkward/timm"))),
]


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=str)
def test_layers_of_the_family_agree_with_composite_in_fp32(name: str, dtype: torch.dtype) -> None:
    size = SIZES[name]
    inputs = tensors(size, dtype, batch=1)
    attend = partial(halonet.halo_attention, **size.options)
    found = outputs_and_gradients(partial(attend, backend="triton"), inputs)
    in_fp32 = [each.detach().float().requires_grad_() for each in inputs]
    exact = outputs_and_gradients(partial(attend, backend="composite"), in_fp32)
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}[dtype]
    for ours, truth in zip(found, exact, strict=True):
        assert ((ours.float() - truth).norm() / truth.norm()).item() < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_two_runs_at_full_size_give_the_same_bits(dtype: torch.dtype) -> None:
    for name in ("h1/stage1", "h1/stage3-strided", "awkward/partial-blocks"):
        size = SIZES[name]
        inputs = tensors(size, dtype, batch=8)
        attend = partial(halonet.halo_attention, **size.options)
        runs = [outputs_and_gradients(attend, inputs) for _ in range(2)]
        for first, second in zip(*runs, strict=True):
            assert torch.equal(first, second)


def test_auto_takes_the_kernels() -> None:
    described = {row["backend"]: row["auto_devices"] for row in describe_backends()}
    assert "cuda" in described["triton"]


def test_addresses_beyond_32_bits_are_right() -> None:
    # 2^31 numbers and more in one image: the last rows lie beyond what 32 bits can count.
    image = torch.zeros(1, 16 * 1024 + 8, 2048, 4, 16, device="cuda", dtype=torch.bfloat16)
    image[:, -16:] = torch.randn_like(image[:, -16:])
    assert image.numel() > 2**31
    far = halonet.halo_attention(image, image, image, **OPTIONS, backend="triton")[:, -8:]
    near = image[:, -24:]
    expected = halonet.halo_attention(near, near, near, **OPTIONS, backend="triton")[:, -8:]
    torch.testing.assert_close(far, expected)


def test_a_cuda_graph_replays_the_same() -> None:
    size = SIZES["h1/stage2"]
    inputs = [each.detach() for each in tensors(size, torch.bfloat16)]
    expected = halonet.halo_attention(*inputs, **size.options, backend="triton")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = halonet.halo_attention(*inputs, **size.options, backend="triton")
    graph.replay()
    assert torch.equal(output, expected)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_compiled_layer_trains_like_an_eager_one(autocast: bool) -> None:
    layer = halonet.HaloAttention(64, num_heads=4, stride=2, **OPTIONS).cuda()
    image = torch.randn(2, 64, 30, 33, device="cuda").contiguous(memory_format=torch.channels_last)

    def gradients(run: Callable[[Tensor], Tensor]) -> list[Tensor]:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            output = run(image)
        return list(torch.autograd.grad(output.float().square().sum(), list(layer.parameters())))

    compiled = gradients(torch.compile(layer, fullgraph=True))
    for ours, expected in zip(compiled, gradients(layer), strict=True):
        torch.testing.assert_close(ours, expected, rtol=2e-2, atol=2e-2 * expected.abs().max().item())


def test_checkpointed_activations_give_the_same_bits() -> None:
    size = SIZES["h1/stage1"]
    inputs = tensors(size, torch.bfloat16)
    attend = partial(halonet.halo_attention, **size.options, backend="triton")
    kept = outputs_and_gradients(attend, inputs)
    recomputed = outputs_and_gradients(lambda *given: checkpoint(attend, *given, use_reentrant=False), inputs)
    for first, second in zip(kept, recomputed, strict=True):
        assert torch.equal(first, second)


WATCHED = """
import torch
import halonet

image = torch.randn(1, 13, 21, 2, 16, device="cuda", dtype=torch.bfloat16, requires_grad=True)
tables = [torch.randn(21, 8, device="cuda", requires_grad=True) for _ in range(2)]
halonet.halo_attention(image, image, image, *tables, block_size=8, halo_size=3, backend="triton").sum().backward()
torch.cuda.synchronize()
"""


@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="compute-sanitizer is not installed")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool: str) -> None:
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "1", sys.executable, "-c", WATCHED]
    # PyTorch's own allocator would hide what lies beyond a tensor.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
