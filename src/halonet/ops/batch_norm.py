"""Batch norm, a residual and an activation together, in the C++ library.

PyTorch runs them one after another and keeps the input of each. Here only the norm's input and the residual are kept,
and the backward recomputes the rest. Sums are taken in an order that does not depend on the number of threads.

It is a plain `autograd.Function`, not a registered operator, because on the maps of small networks the dispatcher would
cost more than the work. Tracers cannot see into it and get PyTorch's own operators: see `unsupported_reason`.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from halonet.ops import cpu_library
from halonet.ops.attention.backends import backend_of_context
from halonet.ops.transforms import is_transformed

ACTIVATIONS = ("none", "silu", "relu")  # numbered as in csrc/call.h
CHANNELS_PER_VECTOR = 16


def unsupported_reason(x: Tensor) -> str | None:
    """Why the library cannot take a feature map, or None."""
    if (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack()
    ):
        return "a tracer must see PyTorch's own operators"
    if is_transformed():
        return "it has no rules for the transforms of torch.func"
    if type(x) not in (Tensor, nn.Parameter):
        return f"it takes plain tensors, not {type(x).__name__}"
    if x.device.type != "cpu":
        return f"it runs on the CPU, and the feature map is on {x.device}"
    if x.dtype not in (torch.float32, torch.float64):
        return f"it takes fp32 and fp64, not {x.dtype}"
    if x.shape[1] % CHANNELS_PER_VECTOR or not x.is_contiguous(memory_format=torch.channels_last):
        return f"it takes channels_last maps whose channels are a multiple of {CHANNELS_PER_VECTOR}"
    if x.numel() <= x.shape[1]:
        return "a batch of one pixel has no variance"
    if backend_of_context() not in ("auto", "cpu"):
        return f"this context asks for backend {backend_of_context()!r}"
    return cpu_library.MISSING


def batch_norm(
    x: Float[Tensor, "batch channels rows columns"],
    residual: Float[Tensor, "batch channels rows columns"] | None = None,
    weight: Float[Tensor, " channels"] | None = None,
    bias: Float[Tensor, " channels"] | None = None,
    mean: Float[Tensor, " channels"] | None = None,
    variance: Float[Tensor, " channels"] | None = None,
    *,
    training: bool = False,
    momentum: float = 0.0,
    epsilon: float = 0.0,
    activation: str,
) -> Float[Tensor, "batch channels rows columns"]:
    """Compute activation((x - mean) / sqrt(variance + epsilon) * weight + bias + residual).

    The feature map `x` must be one without an `unsupported_reason`; all else has its dtype, and the residual its memory
    format. Where weight, bias, mean or variance is None, it is that of the identity. The running mean and variance are
    contiguous, and both or neither given. In training the mean and biased variance of the batch take their place, and
    the running ones move toward those by the share `momentum`, with the unbiased variance, as in PyTorch. `activation`
    is one of `ACTIVATIONS`. The result has first derivatives only.
    """
    numbers = (training, momentum, epsilon, ACTIVATIONS.index(activation))
    return FusedBatchNormAct.apply(x, residual, weight, bias, mean, variance, *numbers)  # pyright: ignore[reportReturnType]


class FusedBatchNormAct(torch.autograd.Function):
    """The kernel with its gradient; profilers show this name."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor | None,
        variance: Tensor | None,
        training: bool,
        momentum: float,
        epsilon: float,
        activation: int,
    ) -> Tensor:
        """Run the kernel, and keep what its gradient needs."""
        output = torch.empty_like(x)
        running = (mean, variance)
        if training:
            mean, variance = x.new_empty((2, x.shape[1]))
        ctx.numbers = (training, epsilon, activation)
        ctx.save_for_backward(x, residual, weight, bias, mean, variance)
        call = _call((x, residual, weight, bias, mean, variance), *ctx.numbers)
        call.output = output.data_ptr()
        if training:
            call.running_mean, call.running_variance = map(_address, running)
            call.momentum = momentum
        cpu_library.run("halonet_norm", call, x.dtype, backward=False)
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of the tensors."""
        differentiate = _Gradients.apply if torch.is_grad_enabled() else _gradients
        grads = differentiate(ctx.numbers, *grad_outputs, *ctx.saved_tensors)
        return *grads, *(6 * [None])  # pyright: ignore[reportReturnType]


class _Gradients(torch.autograd.Function):
    """The backward under double backward, which is not supported: it raises instead of returning wrong values."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor | None, ...]:
        return _gradients(*given)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> None:
        raise NotImplementedError(
            "the CPU kernel of batch norm has first derivatives only; under "
            "`with halonet.use_backend('reference'):` networks can be differentiated twice"
        )


def _gradients(
    numbers: tuple[bool, float, int], grad_output: Tensor, *saved: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Differentiate by x, residual, weight and bias."""
    x, residual, weight, bias = saved[:4]
    assert x is not None
    grad_output = grad_output.contiguous(memory_format=torch.channels_last)
    grad_input = torch.empty_like(x)
    grad_residual = None if residual is None else torch.empty_like(x)
    grad_weight, grad_bias = x.new_empty((2, x.shape[1])).unbind()
    call = _call(saved, *numbers)
    call.grad_output = grad_output.data_ptr()
    call.grad_input, call.grad_residual = grad_input.data_ptr(), _address(grad_residual)
    call.grad_weight, call.grad_bias = grad_weight.data_ptr(), grad_bias.data_ptr()
    cpu_library.run("halonet_norm", call, x.dtype, backward=True)
    tables = (None if weight is None else grad_weight, None if bias is None else grad_bias)
    return grad_input, grad_residual, *tables


def _call(tensors: tuple[Tensor | None, ...], training: bool, epsilon: float, activation: int) -> cpu_library.NormCall:
    x, residual, weight, bias, mean, variance = tensors
    assert x is not None
    return cpu_library.NormCall(
        pixels=x.numel() // x.shape[1],
        channels=x.shape[1],
        activation=activation,
        training=training,
        threads=torch.get_num_threads(),
        epsilon=epsilon,
        input=x.data_ptr(),
        residual=_address(residual),
        weight=_address(weight),
        bias=_address(bias),
        mean=_address(mean),
        variance=_address(variance),
    )


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
