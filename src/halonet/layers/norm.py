"""Batch norm and what follows it, as one step where there is a kernel for that."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from halonet.ops import batch_norm

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.Identity: "none", nn.SiLU: "silu", nn.ReLU: "relu"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def norm_act(
    norm: nn.Module,
    act: nn.Module,
    x: Float[Tensor, "batch channels rows columns"],
    residual: Float[Tensor, "batch channels rows columns"] | None = None,
) -> Float[Tensor, "batch channels rows columns"]:
    """Compute act(norm(x) + residual).

    On a CPU one kernel does it, for maps that `batch_norm.refusal` does not refuse, if the modules are exactly
    PyTorch's and no hook watches them. Otherwise the modules run one by one.

    Args:
        norm: Batch norm, or `nn.Identity` where it was folded away.
        act: The activation; it may work in place, also on `x` if there is neither norm nor residual.
        x: The feature map.
        residual: Added before the activation, or None.
    """
    if _is_plain(norm, act, x.dtype) and _fits(x, residual):
        return _run_kernel(norm, _ACTIVATIONS[type(act)], x, residual)
    x = norm(x)
    return act(x if residual is None else x + residual)


def _is_plain(norm: nn.Module, act: nn.Module, dtype: torch.dtype) -> bool:
    """Whether the kernel computes what these modules compute."""
    if type(act) not in _ACTIVATIONS or any(getattr(module, name) for module in (norm, act) for name in _HOOKS):
        return False
    if type(norm) is nn.Identity:
        return type(act) is not nn.Identity
    return (
        type(norm) is nn.BatchNorm2d
        and norm.momentum is not None
        and all(each is None or each.dtype == dtype for each in (norm.weight, norm.running_mean))
    )


def _fits(x: Tensor, residual: Tensor | None) -> bool:
    if batch_norm.refusal(x) is not None:
        return False
    return residual is None or (
        residual.shape == x.shape
        and residual.dtype == x.dtype
        and residual.is_contiguous(memory_format=torch.channels_last)
    )


def _run_kernel(norm: nn.Module, activation: str, x: Tensor, residual: Tensor | None) -> Tensor:
    if not isinstance(norm, nn.BatchNorm2d):
        return batch_norm.batch_norm(x, residual, activation=activation)
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    return batch_norm.batch_norm(
        x,
        residual,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        training=norm.training or norm.running_mean is None,
        momentum=norm.momentum or 0.0,
        epsilon=norm.eps,
        activation=activation,
    )
