"""Batch norm folded into the layer before it: the form of a network for inference."""

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from halonet.layers.bottleneck import ACTIVATIONS, Bottleneck
from halonet.layers.global_pool import GlobalPool
from halonet.layers.halo_attention import HaloAttention
from halonet.layers.norm import BatchNormAct2d
from halonet.layers.projection import Projection, copy_weights
from halonet.layers.stage import Stage
from halonet.models.acceleration import AcceleratedHaloAttn
from halonet.models.halonet import HaloNet, PatchConv2d

Network = TypeVar("Network", bound=nn.Module)

KNOWN = (
    *(AcceleratedHaloAttn, BatchNormAct2d, Bottleneck, GlobalPool, HaloAttention, PatchConv2d, Projection, Stage),
    *(nn.AvgPool2d, nn.BatchNorm2d, nn.Conv2d, nn.Identity, nn.Linear, nn.Sequential, *ACTIVATIONS.values()),
)


def fuse_batch_norm(model: Network) -> Network:
    """Fold every batch norm of a HaloNet into the convolution or the attention before it.

    Attention weights of a masked border sum to 1, so a scale and a shift after attention are a scale and a shift of
    the values. With `border="zeros"` they do not, and the norm after such attention stays. So does a norm after a layer
    that computes more than its weights say: one with hooks, parametrizations, pruning, an adapter such as LoRA, or a
    class of its own.

    Args:
        model: A `HaloNet`, or any module that holds one; it is not changed.

    Returns:
        A copy in eval mode that computes the same from the same running statistics, with fewer passes over memory.
        Its state dictionary differs: the norms are gone, and layers have biases.

    Raises:
        ValueError: If there is no HaloNet in the model.
    """
    model = copy.deepcopy(model).eval()
    networks = [module for module in model.modules() if isinstance(module, HaloNet)]
    if not networks:
        raise ValueError(
            f"fuse_batch_norm takes a HaloNet, or a module that holds one; {type(model).__name__} has none"
        )
    for network in networks:
        _fuse_children(network.stem, "conv", "norm")
        if len(network.final):
            _fuse_children(network.final, "0", "1")
        for block in network.modules():
            if isinstance(block, Bottleneck):
                _fuse_children(block, "reduce", "reduce_norm")
                if is_plain(block.pool) and not getattr(block.pool, "divisor_override", None):  # it stands between
                    _fuse_children(block, "mixer", "mixer_norm")
                _fuse_children(block, "expand", "expand_norm")
                if len(block.shortcut):
                    _fuse_children(block.shortcut, "0", "1")
    return model


def is_plain(*modules: nn.Module) -> bool:
    """Whether modules compute what their classes, which are known here, and their weights say."""
    return all(
        type(module) in KNOWN  # parametrizations and adapters give a module another class
        and type(getattr(module, "weight", None)) in (nn.Parameter, type(None))
        and not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
        for module in modules
    )


def _fuse_children(parent: nn.Module, layer_name: str, norm_name: str) -> None:
    layer, norm = parent.get_submodule(layer_name), parent.get_submodule(norm_name)
    if not isinstance(norm, nn.BatchNorm2d) or not is_plain(norm):
        return
    if isinstance(layer, nn.Conv2d) and is_plain(layer):
        setattr(parent, layer_name, fuse_conv_bn_eval(layer, norm))
    elif isinstance(layer, HaloAttention) and layer.border == "mask" and is_plain(layer):
        name = "qkv" if layer.stride == (1, 1) else "key_value"
        projection = layer.get_submodule(name)
        if type(projection) is not Projection or not is_plain(projection):
            return
        setattr(layer, name, _fuse_values(projection, layer.value_channels, norm))
    else:
        return
    setattr(parent, norm_name, nn.Identity())


def _fuse_values(old: Projection, value_channels: int, norm: nn.BatchNorm2d) -> Projection:
    """Apply the norm to the values, which are the last outputs, instead of to their weighted averages."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    first_value = old.out_features - value_channels
    with torch.no_grad():
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        fused = copy_weights(old.weight, old.weight.new_zeros(old.out_features) if old.bias is None else old.bias)
        fused.weight[first_value:] *= scale[:, None]
        fused.bias[first_value:] = (fused.bias[first_value:] - norm.running_mean) * scale + norm.bias
    return fused.requires_grad_(old.weight.requires_grad)
