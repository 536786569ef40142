"""The plain PyTorch backends are traced whole, for any height and width, by the compiler and by export."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._inductor import config
from torch._inductor.utils import fresh_cache
from torch.testing import assert_close

import halonet
from tests.ops.attention.backends import BACKENDS, Backend
from tests.ops.attention.sizes import BY_NAME, Size

# Whole and partial blocks. No side gives a single query: export takes a length of 1 for a constant.
SEVERAL_BLOCKS = [(9, 11), (12, 12), (10, 20), (16, 9)]
A_SINGLE_BLOCK_SOMEWHERE = [(7, 20), (5, 4), (16, 5), (4, 4), (8, 8), (6, 7)]
TRACED = [backend for backend in BACKENDS if backend.plain_pytorch]
VARIANTS = ["prime_sides", "stride_2", "zeros_partial", "large_block"]
PROBLEMS = BY_NAME | {"large_block": Size("large_block", "the usual block, larger than some images", (9, 11), 8, 3)}
traced = pytest.mark.parametrize("backend", TRACED, ids=lambda backend: backend.name)
variants = pytest.mark.parametrize("name", VARIANTS)
pytestmark = pytest.mark.usefixtures("untyped", "fresh_compiler")


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Layer(nn.Module):
    """What a model does around the operator: queries are a subsampled projection of the image."""

    def __init__(self, size: Size, backend: str) -> None:
        super().__init__()
        self.options, self.backend = size.options, backend
        self.strides = size.stride if isinstance(size.stride, tuple) else (size.stride, size.stride)
        self.heads = size.heads
        self.query, self.key = nn.Linear(8, size.heads * size.d_qk), nn.Linear(8, size.heads * size.d_qk)
        self.value = nn.Linear(8, size.heads * size.d_v)
        _, _, _, row_embedding, column_embedding = size.inputs(torch.float32)
        self.row_embedding, self.column_embedding = (
            None if table is None else nn.Parameter(table) for table in (row_embedding, column_embedding)
        )

    def forward(self, image: Tensor) -> Tensor:
        query = self.query(image)[:, :: self.strides[0], :: self.strides[1]]
        query, key, value = (
            projected.unflatten(-1, (self.heads, -1)) for projected in (query, self.key(image), self.value(image))
        )
        tables = (self.row_embedding, self.column_embedding)
        return halonet.halo_attention(query, key, value, *tables, **self.options, backend=self.backend)


@traced
@variants
def test_one_compiled_layer_serves_every_image_size(backend: Backend, name: str) -> None:
    layer = Layer(PROBLEMS[name], backend.name)
    counter = CompileCounter()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)

    def check(image: tuple[int, int]) -> None:
        pixels = torch.randn(2, *image, 8)
        outputs = [function(pixels) for function in (compiled, layer)]
        gradients = [torch.autograd.grad(output.square().sum(), list(layer.parameters())) for output in outputs]
        assert_close(outputs[0], outputs[1])
        assert_close(gradients[0], gradients[1])

    for image in SEVERAL_BLOCKS:
        check(image)
    assert counter.frame_count == 1, "compiled anew for another image size"
    for image in A_SINGLE_BLOCK_SOMEWHERE:
        check(image)
    # PyTorch treats a length of 1 as special: along either axis there may be one block or several
    assert counter.frame_count <= 4, "compiled anew for every image size"


@traced
def test_autocast_is_traced(backend: Backend) -> None:
    size = BY_NAME["prime_sides"]

    def attend(*tensors: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return backend.attend(*tensors, **size.options)

    inputs = size.inputs(torch.float32).tensors()
    output = torch.compile(attend, fullgraph=True, backend="aot_eager")(*inputs)
    assert output.dtype == torch.bfloat16
    assert_close(output, attend(*inputs))


def test_compiled_code_obeys_the_backend_in_use() -> None:
    pixels = torch.randn(1, 5, 5, 1, 2, dtype=torch.float64, requires_grad=True)

    def attend(pixels: Tensor) -> Tensor:
        return halonet.halo_attention(pixels, pixels, pixels, block_size=2, halo_size=1)

    compiled = torch.compile(attend, fullgraph=True, backend="eager")

    def is_differentiable_twice() -> bool:
        (first,) = torch.autograd.grad(compiled(pixels).square().sum(), pixels, create_graph=True)
        try:
            first.square().sum().backward()
        except (RuntimeError, NotImplementedError):
            return False
        return True

    with halonet.use_backend("composite"):
        assert not is_differentiable_twice()
    with halonet.use_backend("reference"):
        assert is_differentiable_twice()
    with halonet.use_backend("composite"):
        assert not is_differentiable_twice()


def test_composite_compiles_where_inductor_fuses_concatenations() -> None:
    """As Inductor does on CUDA by itself; it cannot compare indices that were clamped behind a concatenation."""
    layer = Layer(PROBLEMS["large_block"], "composite")
    pixels = torch.randn(1, 9, 11, 8)
    with torch.no_grad(), config.patch(force_pointwise_cat=True), fresh_cache():
        assert_close(torch.compile(layer, fullgraph=True)(pixels), layer(pixels))


FIRST_CALL = """
import torch, halonet
query, key, value = (torch.randn(2, 7, 9, 2, 4) for _ in range(3))
tables = torch.randn(7, 2), torch.randn(7, 2)
for backend in {backends}:
    options = dict(block_size=3, halo_size=1, backend=backend)
    attend = torch.compile(halonet.halo_attention, fullgraph=True, backend="aot_eager")
    compiled = attend(query, key, value, *tables, **options)
    torch.testing.assert_close(compiled, halonet.halo_attention(query, key, value, *tables, **options))
"""


def test_compilation_may_be_the_first_call_of_a_process() -> None:
    program = FIRST_CALL.format(backends=[backend.name for backend in reversed(TRACED)])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


EXPORTED = [*VARIANTS, "stride_3_block_4"]


@pytest.mark.parametrize(("backend", "name"), [*(("composite", name) for name in EXPORTED), ("auto", "prime_sides")])
def test_exported_program_runs_at_sizes_it_never_saw(backend: str, name: str) -> None:
    layer = Layer(PROBLEMS[name], backend).eval()
    dynamic = {"image": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(layer, (torch.randn(2, 9, 11, 8),), dynamic_shapes=dynamic).module()
    for rows, columns in SEVERAL_BLOCKS + A_SINGLE_BLOCK_SOMEWHERE:
        image = torch.randn(1 + rows % 3, rows, columns, 8)
        assert_close(program(image), layer(image))
