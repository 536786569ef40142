"""Batch norm, addition and activation, in one step where a kernel supports it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.modules.module import _has_any_global_hook

from halonet.ops import batch_norm
from halonet.ops.transforms import channels_last

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.Identity: "none", nn.SiLU: "silu", nn.ReLU: "relu"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class BatchNormAct2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that can also add a residual and apply an activation, both passed in by the caller.

    Parameters, buffers and their names are those of `nn.BatchNorm2d`, and without residual and activation so is the
    result. On a CPU one kernel computes it all, for maps without a `batch_norm.unsupported_reason`. Hooks of this layer
    see the same input and output with the kernel and without; an activation with hooks is called, without the kernel.
    """

    def forward(
        self,
        input: Float[Tensor, "batch channels rows columns"],
        act: nn.Module | None = None,
        residual: Float[Tensor, "batch channels rows columns"] | None = None,
    ) -> Float[Tensor, "batch channels rows columns"]:
        """Compute act(batch_norm(input) + residual)."""
        if isinstance(input, Proxy):
            x = self._trace(input)
        elif act is not None and _fits(input, residual) and self._has_dtype(input.dtype) and _is_plain(act):
            return self._run_kernel(input, _ACTIVATIONS[type(act)], residual)
        else:
            x = super().forward(input)
        x = x if residual is None else x + residual
        return x if act is None else act(x)

    def _trace(self, x: Proxy) -> Tensor:
        """Record `F.batch_norm` for `torch.fx`, in the present mode."""
        tracks = not self.training or self.track_running_stats
        return F.batch_norm(
            x,  # pyright: ignore[reportArgumentType]
            self.running_mean if tracks else None,
            self.running_var if tracks else None,
            self.weight,
            self.bias,
            training=self.training or self.running_mean is None,
            momentum=self.momentum or 0.0,
            eps=self.eps,
        )

    def _has_dtype(self, dtype: torch.dtype) -> bool:
        return all(each is None or each.dtype == dtype for each in (self.weight, self.running_mean))

    def _run_kernel(self, x: Tensor, activation: str, residual: Tensor | None) -> Tensor:
        """Do what `nn.BatchNorm2d.forward` does, with the kernel."""
        momentum = self.momentum or 0.0
        tracks = not self.training or self.track_running_stats
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        return batch_norm.batch_norm(
            x,
            residual,
            self.weight,
            self.bias,
            self.running_mean if tracks else None,
            self.running_var if tracks else None,
            training=self.training or self.running_mean is None,
            momentum=momentum,
            epsilon=self.eps,
            activation=activation,
        )


class ConvNormAct(nn.Sequential):
    """A convolution, its batch norm and its activation."""

    def forward(
        self, input: Float[Tensor, "batch in_channels in_rows in_columns"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """Convolve, then normalize and activate in one step."""
        conv, norm, act = self
        # Images of one channel look the same in both formats, and convolutions leave them NCHW.
        return normalize(channels_last(conv(input)), norm, act)


def normalize(
    x: Float[Tensor, "batch channels rows columns"],
    norm: nn.Module,
    act: nn.Module,
    residual: Float[Tensor, "batch channels rows columns"] | None = None,
) -> Float[Tensor, "batch channels rows columns"]:
    """Compute act(norm(x) + residual), in one step if the norm is a `BatchNormAct2d`.

    If it was replaced, by `nn.SyncBatchNorm` or by the `nn.Identity` of a folded norm, the addition and the activation
    follow the replacement. An activation that works in place may overwrite `x` if there is neither norm nor residual.
    """
    if isinstance(norm, BatchNormAct2d):
        return norm(x, act, residual)
    x = norm(x)
    if not isinstance(x, Proxy) and _fits(x, residual) and type(act) is not nn.Identity and _is_plain(act):
        return batch_norm.batch_norm(x, residual, activation=_ACTIVATIONS[type(act)])
    return act(x if residual is None else x + residual)


def _is_plain(act: nn.Module) -> bool:
    """Whether the kernel computes this activation, and it has no hooks."""
    return type(act) in _ACTIVATIONS and not any(getattr(act, name) for name in _HOOKS) and not _has_any_global_hook()


def _fits(x: Tensor, residual: Tensor | None) -> bool:
    if batch_norm.unsupported_reason(x) is not None:
        return False
    return residual is None or (
        residual.shape == x.shape
        and residual.dtype == x.dtype
        and residual.is_contiguous(memory_format=torch.channels_last)
    )
