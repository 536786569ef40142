"""Dtypes are kept, and rounding is no worse than plain PyTorch's, judged against fp64."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from triton.runtime.interpreter import InterpreterBuilder

from tests.ops.attention import oracle
from tests.ops.attention.backends import Backend
from tests.ops.attention.eager import assert_no_worse_than_eager, eager_attention, with_gradients
from tests.ops.attention.oracle import assert_agree
from tests.ops.attention.sizes import BY_NAME, SIZES, Size

LOW = [torch.float32, torch.bfloat16, torch.float16]
REALISTIC = [
    Size("h1_stage_1", "16 channels per head, partial blocks", (19, 21), 8, 3, batch=2, heads=2, d_qk=16, d_v=16),
    Size("wide_head", "H1's last stages", (10, 9), 8, 3, d_qk=64, d_v=64, tables="full"),
    Size("timm", "zeros take weight", (16, 16), 8, 3, heads=2, d_qk=16, d_v=32, tables="full", border="zeros"),
    Size("strided", "a stage's first layer", (17, 12), 8, 3, stride=2, heads=2, d_qk=32, d_v=32),
    Size("sasa", "the centered comparator", (14, 15), 8, 3, heads=2, d_qk=16, d_v=16, centered=True),
    Size("negative_scale", "logits turned over", (11, 13), 4, 2, heads=2, d_qk=16, d_v=16, scale=-0.3),
    Size("small_scale", "a mask must not be scaled away", (11, 13), 4, 2, d_qk=16, d_v=16, scale=1e-5),
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
def test_the_ruler_itself_is_right_in_fp64(size: Size) -> None:
    output = eager_attention(*size.inputs(), **size.options)
    assert_agree(output, oracle.halo_attention(*size.inputs(), **size.options).output)


@pytest.mark.many_calls
@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("size", REALISTIC, ids=lambda size: size.name)
def test_rounding_is_no_worse_than_plain_pytorch(backend: Backend, size: Size, dtype: torch.dtype) -> None:
    inputs = size.inputs(dtype)
    exact = with_gradients(eager_attention, inputs.map(Tensor.double), size, dtype)
    eager = with_gradients(eager_attention, inputs, size, dtype)
    actual = with_gradients(backend.attend, inputs, size, dtype)
    names = ["output", *[f"gradient of {name}" for name in inputs.names()]]
    for name, ours, plain, truth in zip(names, actual, eager, exact, strict=True):
        queries = size.batch * size.heads * math.prod(size.query_grid)
        assert_no_worse_than_eager(ours, plain, truth, name, queries if "embedding" in name else 1)


@pytest.mark.many_calls
@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_low_precision_weights_still_sum_to_one(backend: Backend, dtype: torch.dtype) -> None:
    # each weight and the result are rounded once to the dtype, and up to 196 weights are added in fp32
    tolerance = 1.5 * torch.finfo(dtype).eps + 196 / 2 * torch.finfo(torch.float32).eps
    for size in REALISTIC:
        if size.border == "mask":
            query, key, value, *tables = size.inputs(dtype)
            output = backend.attend(query, key, torch.ones_like(value), *tables, **size.options)
            assert_close(output.double(), torch.ones_like(output).double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, *LOW], ids=str)
@pytest.mark.parametrize("centered", [False, True])
def test_a_key_outside_the_window_takes_nothing_however_large_its_logit(
    backend: Backend, dtype: torch.dtype, centered: bool
) -> None:
    query = torch.full((1, 6, 6, 1, 16), 24, dtype=dtype)
    key, value = torch.full_like(query, 64), torch.ones_like(query)  # logits of 24576: fp16 holds them
    key[:, :3, :3] = value[:, :3, :3] = 0  # the window of the first block, and of its first query with halo 2
    output = backend.attend(query, key, value, block_size=2, halo_size=2 if centered else 1, centered=centered)
    inside = output[:, :1, :1] if centered else output[:, :2, :2]
    assert torch.equal(inside, torch.zeros_like(inside))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_large_logits_do_not_overflow(backend: Backend, dtype: torch.dtype) -> None:
    size = BY_NAME["prime_sides"]
    query, key, value, *tables = size.inputs(dtype)
    output = backend.attend(query * 64, key * 64, value, *tables, **size.options)
    assert output.isfinite().all()


@pytest.mark.many_calls
@pytest.mark.parametrize("dtype", [torch.float64, *LOW], ids=str)
@pytest.mark.parametrize("table_dtype", [None, torch.float32], ids=["same tables", "fp32 tables"])
def test_output_has_the_inputs_dtype_and_each_gradient_its_tensors(
    backend: Backend, dtype: torch.dtype, table_dtype: torch.dtype | None
) -> None:
    for name in ("prime_sides", "zeros_partial"):
        size = BY_NAME[name]
        inputs = size.inputs(dtype, table_dtype).requiring_grad()
        output = backend.attend(*inputs, **size.options)
        assert output.dtype == dtype
        output.backward(size.output_gradient(dtype))
        for tensor in inputs.tensors():
            assert tensor.grad is not None
            assert tensor.grad.dtype == tensor.dtype


@pytest.mark.many_calls
def test_fp32_tables_beside_bf16_inputs_round_no_worse_than_plain_pytorch(backend: Backend) -> None:
    size = Size("tables", "", (9, 7), 4, 2, heads=2, d_qk=16, d_v=16)
    query, key, value, *tables = size.inputs(torch.bfloat16, torch.float32)
    exact = eager_attention(*[x.double() for x in (query, key, value, *tables) if x is not None], **size.options)
    kept = backend.attend(query, key, value, *tables, **size.options)
    eager = eager_attention(query, key, value, *tables, **size.options)
    assert_no_worse_than_eager(kept, eager, exact, "output")


@pytest.mark.many_calls
def test_fp32_tables_are_not_rounded_before_they_are_multiplied(backend: Backend) -> None:
    size = Size("tables", "", (9, 7), 4, 2, d_qk=4, d_v=3)
    query, key, value, *tables = size.inputs(torch.bfloat16, torch.float32)
    # The query takes differences of large entries: rounded to bf16, which counts in twos here, nothing would be left.
    query = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.bfloat16).expand_as(query)
    key = torch.zeros_like(key)
    tables = [256 + table for table in tables if table is not None]
    exact = eager_attention(*[each.double() for each in (query, key, value, *tables)], **size.options)
    kept = backend.attend(query, key, value, *tables, **size.options)
    assert_close(kept.double(), exact, rtol=0.02, atol=0.02)


@pytest.mark.many_calls
def test_fp64_is_not_computed_in_less(backend: Backend) -> None:
    size = REALISTIC[0]
    inputs = size.inputs()
    actual = with_gradients(backend.attend, inputs, size, torch.float64)
    expected = with_gradients(eager_attention, inputs, size, torch.float64)
    assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.many_calls
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_casts_query_key_and_value_and_leaves_the_tables(backend: Backend, dtype: torch.dtype) -> None:
    size = REALISTIC[0]
    inputs = size.inputs(torch.float32).requiring_grad()
    with torch.autocast(backend.device, dtype=dtype):
        output = backend.attend(*inputs, **size.options)
    assert output.dtype == dtype
    gradients = torch.autograd.grad(output, inputs.tensors(), size.output_gradient(dtype))
    assert {gradient.dtype for gradient in gradients} == {torch.float32}

    by_hand = inputs.requiring_grad()
    query, key, value, *tables = by_hand
    expected = backend.attend(query.to(dtype), key.to(dtype), value.to(dtype), *tables, **size.options)
    expected_gradients = torch.autograd.grad(expected, by_hand.tensors(), size.output_gradient(dtype))
    assert torch.equal(output, expected)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert torch.equal(gradient, expected_gradient)


def test_autocast_unites_different_dtypes(backend: Backend) -> None:
    if backend.name == "triton" and backend.device == "cpu" and not hasattr(InterpreterBuilder, "get_bf16"):
        pytest.skip("the interpreter of Triton 3.6 has no constants in bf16")
    size = BY_NAME["prime_sides"]
    query, key, value, *tables = size.inputs(torch.float32)
    with torch.autocast(backend.device, dtype=torch.bfloat16):
        mixed = backend.attend(query.bfloat16(), key, value.half(), *tables, **size.options)
    united = backend.attend(query.bfloat16(), key.bfloat16(), value.half().bfloat16(), *tables, **size.options)
    assert mixed.dtype == torch.bfloat16
    assert torch.equal(mixed, united)


@pytest.mark.many_calls
def test_autocast_leaves_fp64_alone(backend: Backend) -> None:
    size = BY_NAME["prime_sides"]
    with torch.autocast(backend.device, dtype=torch.bfloat16):
        output = backend.attend(*size.inputs(), **size.options)
    assert output.dtype == torch.float64
    assert torch.equal(output, backend.attend(*size.inputs(), **size.options))


@pytest.mark.many_calls
def test_autocast_switched_off_inside_autocast_casts_nothing(backend: Backend) -> None:
    size = BY_NAME["prime_sides"]
    inputs = size.inputs(torch.float32)
    with torch.autocast(backend.device, dtype=torch.bfloat16), torch.autocast(backend.device, enabled=False):
        output = backend.attend(*inputs, **size.options)
    assert output.dtype == torch.float32
    assert torch.equal(output, backend.attend(*inputs, **size.options))
