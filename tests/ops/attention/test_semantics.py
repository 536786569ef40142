"""Every backend computes what the contract says, forward and backward, in fp64."""

from contextlib import suppress
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from halonet.errors import UserError
from tests.ops.attention import oracle
from tests.ops.attention.backends import Backend
from tests.ops.attention.oracle import assert_agree
from tests.ops.attention.sizes import BY_NAME, SIZES, Inputs, Size

TINY = [
    Size("split", "", (2, 3), 2, 1, d_qk=2, d_v=1),
    Size("full", "", (3, 1), 2, 0, d_qk=1, d_v=2, tables="full", centered=True),
    Size("zeros", "", (3, 2), 2, 1, stride=2, d_qk=2, d_v=1, border="zeros"),
]
every_size = pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)


@cache
def truth(name: str) -> tuple[Tensor, list[Tensor]]:
    """The oracle's output and gradients for a named size."""
    size = BY_NAME[name]
    inputs = size.inputs().requiring_grad()
    output = oracle.halo_attention(*inputs, **size.options).output
    gradients = torch.autograd.grad(output, inputs.tensors(), size.output_gradient())
    return output.detach(), list(gradients)


@pytest.mark.many_calls
@every_size
def test_output_equals_brute_force(backend: Backend, size: Size) -> None:
    output = backend.attend(*size.inputs(), **size.options)
    assert output.dtype == torch.float64
    assert_agree(output, truth(size.name)[0])


@every_size
def test_output_and_gradients_equal_those_of_brute_force(backend: Backend, size: Size) -> None:
    inputs = size.inputs().requiring_grad()
    output = backend.attend(*inputs, **size.options)
    assert_agree(output, truth(size.name)[0])
    output.backward(size.output_gradient())
    for name, tensor, expected in zip(inputs.names(), inputs.tensors(), truth(size.name)[1], strict=True):
        assert tensor.grad is not None, name
        assert_agree(tensor.grad, expected, msg=lambda text, name=name: f"gradient of {name}: {text}")


@pytest.mark.many_calls
@pytest.mark.usefixtures("untyped")  # thousands of calls
@pytest.mark.parametrize("size", TINY, ids=lambda size: size.name)
def test_gradients_equal_finite_differences(backend: Backend, size: Size) -> None:
    inputs = size.inputs().requiring_grad()

    def attend(*tensors: Tensor) -> Tensor:
        return backend.attend(*tensors, **size.options)

    assert torch.autograd.gradcheck(attend, tuple(inputs.tensors()))


@pytest.mark.many_calls
@pytest.mark.parametrize("name", ["prime_sides", "stride_over_block", "zeros_partial"])
@pytest.mark.parametrize("wanted", range(5), ids=Inputs._fields)
def test_one_gradient_alone_is_the_same(backend: Backend, name: str, wanted: int) -> None:
    size = BY_NAME[name]
    inputs = size.inputs()
    tensor = inputs[wanted]
    assert tensor is not None
    tensor.requires_grad_()
    backend.attend(*inputs, **size.options).backward(size.output_gradient())
    assert_agree(tensor.grad, truth(name)[1][wanted])
    assert all(other.grad is None for other in inputs.tensors() if other is not tensor)


@pytest.mark.many_calls
@every_size
def test_values_of_one_give_the_weight_on_real_pixels(backend: Backend, size: Size) -> None:
    query, key, value, *tables = size.inputs()
    output = backend.attend(query, key, torch.ones_like(value), *tables, **size.options)
    if size.border == "mask":
        assert_agree(output, torch.ones_like(output))
    else:
        inside = 1 - oracle.halo_attention(query, key, value, *tables, **size.options).outside
        assert inside.min() < 0.99
        assert_agree(output, inside[..., None].expand_as(output))


def test_padding_takes_exactly_its_share_of_a_uniform_window(backend: Backend) -> None:
    key = torch.randn(1, 5, 4, 1, 2, dtype=torch.float64)
    query, value = torch.zeros_like(key), torch.ones_like(key)
    output = backend.attend(query, key, value, block_size=3, halo_size=1, border="zeros")
    rows = torch.tensor([4, 4, 4, 3, 3], dtype=torch.float64) / 5
    columns = torch.tensor([4, 4, 4, 2], dtype=torch.float64) / 5
    assert_agree(output[0, :, :, 0, 0], rows[:, None] * columns)


@pytest.mark.many_calls
@pytest.mark.parametrize(("block", "halo"), [(2, 5), (3, 4), (6, 0), ((2, 5), (4, 0)), (1, 4)])
@pytest.mark.parametrize("tables", ["none", "split", "full"])
def test_a_halo_over_the_whole_image_is_global_attention(
    backend: Backend, block: int | tuple[int, int], halo: int | tuple[int, int], tables: str
) -> None:
    size = Size("global", "", (5, 4), block, halo, batch=2, heads=3, d_qk=6, tables=tables)  # pyright: ignore
    query, key, value, *both = size.inputs()
    output = backend.attend(query, key, value, *both, **size.options)
    flat = [tensor.flatten(1, 2).transpose(1, 2) for tensor in (query, key, value)]  # [batch, heads, pixels, width]
    bias = None
    row_embedding, column_embedding = both
    if row_embedding is not None and column_embedding is not None:
        row = torch.arange(5).repeat_interleave(4)
        column = torch.arange(4).repeat(5)
        by_row = row_embedding[row - row[:, None] + len(row_embedding) // 2]  # [query pixels, key pixels, width]
        by_column = column_embedding[column - column[:, None] + len(column_embedding) // 2]
        position = by_row + by_column if tables == "full" else torch.cat([by_row, by_column], dim=-1)
        bias = torch.einsum("bnqd,qkd->bnqk", flat[0], position) * 6**-0.5
    expected = F.scaled_dot_product_attention(*flat, attn_mask=bias)
    assert_agree(output.flatten(1, 2).transpose(1, 2), expected)


@pytest.mark.many_calls
@pytest.mark.parametrize("stride", [2, 3, (2, 3)])
@pytest.mark.parametrize("block", [2, 3, 4])
@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize("centered", [False, True])
def test_strided_result_is_the_subsampled_result(
    backend: Backend, stride: int | tuple[int, int], block: int, border: str, centered: bool
) -> None:
    size = Size("whole", "", (8, 7), block, 1, heads=2, border=border, centered=centered)
    row_stride, column_stride = oracle.pair(stride)
    query, key, value, *tables = size.inputs()
    whole = backend.attend(query, key, value, *tables, **size.options)
    query = query[:, ::row_stride, ::column_stride]
    strided = backend.attend(query, key, value, *tables, **size.options, stride=stride)
    assert_agree(strided, whole[:, ::row_stride, ::column_stride])


@pytest.mark.many_calls
@pytest.mark.parametrize("block", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_a_centered_window_does_not_depend_on_the_block(backend: Backend, block: tuple[int, int], border: str) -> None:
    query, key, value, *_ = Size("centered", "", (7, 5), 1, (2, 1), tables="none").inputs()
    options = {"halo_size": (2, 1), "centered": True, "border": border}
    per_pixel = backend.attend(query, key, value, block_size=1, **options)
    assert_agree(backend.attend(query, key, value, block_size=block, **options), per_pixel)


def test_an_empty_batch_gives_an_empty_result_and_zero_gradients(backend: Backend) -> None:
    for size in (BY_NAME["prime_sides"], BY_NAME["zeros_stride_2"], BY_NAME["no_tables"]):
        query, key, value, *tables = size.inputs()
        inputs = Inputs(query[:0], key[:0], value[:0], *tables).requiring_grad()
        output = backend.attend(*inputs, **size.options)
        assert output.shape == (0, *size.query_grid, size.heads, size.d_v)
        output.sum().backward()
        for name, tensor in zip(inputs.names(), inputs.tensors(), strict=True):
            assert tensor.grad is not None, name
            assert_close(tensor.grad, torch.zeros_like(tensor), rtol=0, atol=0)


@pytest.mark.usefixtures("untyped")  # thousands of calls
def test_derivatives_beyond_the_first_are_right_or_refused(backend: Backend) -> None:
    size = Size("small", "", (2, 3), 2, 1, d_qk=2, d_v=1)
    inputs = tuple(size.inputs().requiring_grad().tensors())

    def attend(*tensors: Tensor) -> Tensor:
        return backend.attend(*tensors, **size.options)

    if backend.differentiable_twice:
        assert torch.autograd.gradgradcheck(attend, inputs, fast_mode=True)
    else:
        (first,) = torch.autograd.grad(attend(*inputs).square().sum(), inputs[0], create_graph=True)
        with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)derivative|double|differentiable|second"):
            first.square().sum().backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # raised by torch.func.jvp's own imports
def test_forward_mode_is_right_or_refused(backend: Backend) -> None:
    size = BY_NAME["prime_sides"]
    point = size.inputs().tensors()
    direction = replace(size, name="direction").inputs().tensors()

    def attend(*tensors: Tensor) -> Tensor:
        return backend.attend(*tensors, **size.options)

    refusal = () if backend.differentiable_twice else (RuntimeError, NotImplementedError, UserError)
    with suppress(*refusal):
        output, slope = torch.func.jvp(attend, tuple(point), tuple(direction))[:2]
        ahead, behind = (
            attend(*[x + step * d for x, d in zip(point, direction, strict=True)]) for step in (1e-6, -1e-6)
        )
        assert_agree(output, truth(size.name)[0])
        assert_close(slope, (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-6)


@pytest.mark.many_calls
@pytest.mark.filterwarnings("ignore:.*batching rule:UserWarning")  # slow is not wrong
def test_vmap_is_right_or_refused(backend: Backend) -> None:
    size = BY_NAME["prime_sides"]
    one, other = size.inputs().tensors(), replace(size, name="other").inputs().tensors()

    def attend(*tensors: Tensor) -> Tensor:
        return backend.attend(*tensors, **size.options)

    refusal = () if backend.differentiable_twice else (RuntimeError, NotImplementedError, UserError)
    with suppress(*refusal):
        together = torch.func.vmap(attend)(*[torch.stack(both) for both in zip(one, other, strict=True)])
        assert_agree(together, torch.stack([attend(*one), attend(*other)]))
