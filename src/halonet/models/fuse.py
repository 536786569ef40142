"""Batch norm folded into the layer before it: the form of a network for inference."""

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from halonet.layers.bottleneck import Bottleneck
from halonet.layers.halo_attention import HaloAttention
from halonet.layers.projection import Projection
from halonet.models.halonet import HaloNet

Network = TypeVar("Network", bound=nn.Module)


def fuse_batch_norm(model: Network) -> Network:
    """Fold every batch norm of a HaloNet into the convolution or the attention before it.

    Attention weights of a masked border sum to 1, so a scale and a shift after attention are a scale and a shift of
    the values. With `border="zeros"` they do not, and the norm after such attention stays.

    Args:
        model: A `HaloNet`, or any module that holds one. It is left as it is.

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
                _fuse_children(block, "mixer", "mixer_norm")
                _fuse_children(block, "expand", "expand_norm")
                if len(block.shortcut):
                    _fuse_children(block.shortcut, "0", "1")
    return model


def _fuse_children(parent: nn.Module, layer_name: str, norm_name: str) -> None:
    layer, norm = parent.get_submodule(layer_name), parent.get_submodule(norm_name)
    if not isinstance(norm, nn.BatchNorm2d):  # fused before
        return
    if isinstance(layer, nn.Conv2d):
        setattr(parent, layer_name, fuse_conv_bn_eval(layer, norm))
    elif isinstance(layer, HaloAttention) and layer.border == "mask":
        layer.qkv = _fuse_values(layer, norm)
    else:
        return
    setattr(parent, norm_name, nn.Identity())


def _fuse_values(attention: HaloAttention, norm: nn.BatchNorm2d) -> Projection:
    """Scale and shift the values as the norm would scale and shift their averages."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    old = attention.qkv
    fused = Projection(old.in_features, old.out_features, device=old.weight.device, dtype=old.weight.dtype)
    with torch.no_grad():
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        first_value = old.out_features - attention.value_channels
        fused.weight.copy_(old.weight)
        fused.weight[first_value:] *= scale[:, None]
        fused.bias.zero_()
        fused.bias[first_value:] = norm.bias - norm.running_mean * scale
    fused.requires_grad_(old.weight.requires_grad)
    return fused
