"""The fused norm against PyTorch's modules, one after another."""

import ctypes

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import halonet
from halonet.ops import batch_norm, cpu_library

pytestmark = pytest.mark.skipif(cpu_library.MISSING is not None, reason="this installation has no kernel")
AFTER = {"none": lambda x: x, "silu": F.silu, "relu": F.relu}
# Batch, channels, rows, columns: one task and several, pixels that do and do not fill groups of four.
SHAPES = [(2, 16, 5, 7), (1, 32, 1, 2), (3, 48, 1, 1), (4, 16, 19, 13), (1, 2064, 9, 8)]


def feature_map(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, mean: float = 0.7) -> Tensor:
    return (2 * torch.randn(shape, dtype=dtype) + mean).contiguous(memory_format=torch.channels_last)


def parameters(channels: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Weight, bias, running mean and running variance."""
    return [
        torch.rand(channels, dtype=dtype) + 0.5,
        torch.randn(channels, dtype=dtype),
        torch.randn(channels, dtype=dtype),
        torch.rand(channels, dtype=dtype) + 0.5,
    ]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", AFTER)
@pytest.mark.parametrize("has_residual", [False, True])
def test_results_gradients_and_running_statistics_are_those_of_pytorch(
    shape: tuple[int, ...], training: bool, activation: str, has_residual: bool
) -> None:
    leaves = [feature_map(shape), *parameters(shape[1])[:2], *([feature_map(shape)] if has_residual else [])]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    x, weight, bias, residual = [*leaves, None][:4]
    assert x is not None
    running = parameters(shape[1])[2:]
    expected_running = [each.clone() for each in running]
    grad = torch.randn(shape, dtype=torch.float64)

    found = batch_norm.batch_norm(
        x, residual, weight, bias, *running, training=training, momentum=0.3, epsilon=1e-3, activation=activation
    )
    expected = F.batch_norm(x, *expected_running, weight, bias, training, 0.3, 1e-3)
    expected = AFTER[activation](expected if residual is None else expected + residual)

    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(running, expected_running, rtol=1e-12, atol=1e-12)
    for a, b in zip(torch.autograd.grad(found, leaves, grad), torch.autograd.grad(expected, leaves, grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mean", [0.7, 300.0])
def test_single_precision_is_at_most_twice_as_far_off_as_pytorch(mean: float) -> None:
    exact = feature_map((4, 32, 24, 24), mean=mean).requires_grad_()
    weight, bias = parameters(32)[:2]
    grad = torch.randn(exact.shape, dtype=torch.float64)

    def run(dtype: torch.dtype, fused: bool) -> list[Tensor]:
        x, w, b = (each.detach().to(dtype).requires_grad_() for each in (exact, weight, bias))
        if fused:
            result = batch_norm.batch_norm(x, None, w, b, training=True, epsilon=1e-5, activation="silu")
        else:
            result = F.silu(F.batch_norm(x, None, None, w, b, True, 0.1, 1e-5))
        return [each.double() for each in (result, *torch.autograd.grad(result, (x, w, b), grad.to(dtype)))]

    for found, plain, truth in zip(
        run(torch.float32, True), run(torch.float32, False), run(torch.float64, False), strict=True
    ):
        assert (found - truth).norm() <= 2 * (plain - truth).norm() + 1e-7 * truth.norm()


def test_missing_tensors_are_the_identity() -> None:
    x, other = feature_map((2, 16, 3, 3)), feature_map((2, 16, 3, 3))
    torch.testing.assert_close(batch_norm.batch_norm(x, activation="silu"), F.silu(x))
    torch.testing.assert_close(batch_norm.batch_norm(x, other, activation="relu"), F.relu(x + other))
    x.requires_grad_()
    (found,) = torch.autograd.grad(batch_norm.batch_norm(x, activation="silu").sum(), x)
    (expected,) = torch.autograd.grad(F.silu(x).sum(), x)
    torch.testing.assert_close(found, expected)


def test_every_number_of_threads_gives_the_same_bits() -> None:
    x = feature_map((5, 48, 23, 31), torch.float32).requires_grad_()
    weight, bias = (each.requires_grad_() for each in parameters(48, torch.float32)[:2])

    def run() -> list[Tensor]:
        result = batch_norm.batch_norm(x, x, weight, bias, training=True, epsilon=1e-5, activation="silu")
        return [result, *torch.autograd.grad(result.square().sum(), (x, weight, bias))]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = run()
        for count in (2, 3, 7):
            torch.set_num_threads(count)
            assert all(torch.equal(a, b) for a, b in zip(run(), expected, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["avx2", "baseline"])
def test_lesser_instruction_sets_compute_the_same(name: str) -> None:
    if cpu_library.library().halonet_choose(name.encode()) == 0:
        pytest.skip(f"this processor, or this build, has no {name}")
    try:
        for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
            x = feature_map((2, 32, 9, 7), dtype).requires_grad_()
            found = batch_norm.batch_norm(x, training=True, epsilon=1e-5, activation="silu")
            expected = F.silu(F.batch_norm(x, None, None, None, None, True, 0.1, 1e-5))
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
            grad = torch.randn_like(found)
            slopes = [torch.autograd.grad(each, x, grad)[0] for each in (found, expected)]
            torch.testing.assert_close(*slopes, rtol=tolerance, atol=tolerance)
    finally:
        cpu_library.library().halonet_choose(None)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_stay_in_their_channel(value: float) -> None:
    x = feature_map((2, 16, 4, 4), torch.float32)
    x[1, 3, 2, 1] = value
    result = batch_norm.batch_norm(x, training=True, epsilon=1e-5, activation="relu")
    assert result[1, 3, 2, 1].isnan()
    assert result[:, :3].isfinite().all()
    assert result[:, 4:].isfinite().all()


def test_large_inputs_do_not_overflow_in_the_sigmoid() -> None:
    x = torch.tensor([-1e30, -200.0, -90.0, 0.0, 90.0, 200.0, 1e30, 3.0] * 2)[None, :, None, None]
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    found, expected = batch_norm.batch_norm(x, activation="silu"), F.silu(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-6)
    slopes = [torch.autograd.grad(each.sum(), x)[0] for each in (found, expected)]
    torch.testing.assert_close(*slopes, atol=1e-5, rtol=1e-6)


def test_a_gradient_in_another_memory_format_is_taken() -> None:
    x = feature_map((2, 16, 3, 5)).requires_grad_()
    result = batch_norm.batch_norm(x, activation="silu")
    (found,) = torch.autograd.grad(result, x, torch.ones((), dtype=x.dtype).expand(2, 16, 3, 5))
    (expected,) = torch.autograd.grad(F.silu(x).sum(), x)
    torch.testing.assert_close(found, expected)


def test_a_second_derivative_is_refused() -> None:
    x = feature_map((1, 16, 2, 2)).requires_grad_()
    (slope,) = torch.autograd.grad(batch_norm.batch_norm(x, activation="silu").sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="first derivatives only.*'reference'"):
        slope.sum().backward()


def test_refusals_name_the_reason() -> None:
    good = feature_map((2, 16, 3, 3))
    assert batch_norm.unsupported_reason(good) is None
    assert "fp32 and fp64" in str(batch_norm.unsupported_reason(good.bfloat16()))
    assert "multiple of 16" in str(batch_norm.unsupported_reason(feature_map((2, 12, 3, 3))))
    assert "channels_last" in str(batch_norm.unsupported_reason(good.contiguous()))
    assert "no variance" in str(batch_norm.unsupported_reason(feature_map((1, 16, 1, 1))))
    assert "runs on the CPU" in str(batch_norm.unsupported_reason(good.to("meta")))
    with halonet.use_backend("composite"):
        assert "'composite'" in str(batch_norm.unsupported_reason(good))


def a_norm_call() -> tuple[cpu_library.NormCall, list[Tensor]]:
    """A training forward that the library accepts, and all it reads and writes."""
    x = feature_map((2, 16, 5, 7), torch.float32)
    tensors = [x, torch.zeros_like(x), *torch.zeros(2, 16).unbind()]
    call = batch_norm._call((x, None, None, None, *tensors[2:]), True, 1e-5, 1)
    call.output = tensors[1].data_ptr()
    return call, tensors


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *(("pixels", each) for each in (-1, 0)),
        *(("channels", each) for each in (-16, 0, 8, 17)),
        *(("activation", each) for each in (-1, 3)),
        *(("threads", each) for each in (-1, 0, 2**40)),
        ("training", 2),
        *((name, None) for name in ("input", "output", "mean", "variance")),
        ("running_mean", 16),
    ],
)
def test_the_library_refuses_a_norm_that_contradicts_itself(name: str, number: int | None) -> None:
    call, tensors = a_norm_call()
    before = [each.clone() for each in tensors]
    setattr(call, name, number)
    assert cpu_library.library().halonet_norm(ctypes.byref(call), 0, 0) == 2
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_the_library_refuses_a_norm_that_64_bits_cannot_count() -> None:
    call, tensors = a_norm_call()
    call.pixels = 2**60
    assert cpu_library.library().halonet_norm(ctypes.byref(call), 0, 0) == 3
    call, tensors = a_norm_call()
    assert cpu_library.library().halonet_norm(ctypes.byref(call), 0, 0) == 0
    assert tensors[1].abs().sum() > 0
