"""timm's `HaloAttn` layers on our operator, in any model: same parameters, same numbers, any size.

Only the class of a layer changes: `AcceleratedHaloAttn` is timm's layer with another `forward`. Hooks, optimizers,
checkpoints, mode and device therefore stay as they are.
"""

import logging
from typing import Any

from jaxtyping import Float, Int
from timm.layers.bottleneck_attn import BottleneckAttn
from timm.layers.halo_attn import HaloAttn
from timm.layers.lambda_layer import LambdaLayer
from timm.models import register_notrace_module
from torch import Tensor, nn

from halonet.ops import attention_weights, halo_attention
from halonet.ops.attention.geometry import Geometry, make_geometry
from halonet.ops.transforms import channels_last

_logger = logging.getLogger("halonet")


@register_notrace_module  # timm's FX must not trace the layer: the operator reads concrete shapes
class AcceleratedHaloAttn(HaloAttn):
    """timm's `HaloAttn`, computed by `halonet.halo_attention`; made by `accelerate`, never constructed.

    timm's rule is one setting of the operator. Keys outside the image are zeros that take weight
    (`border="zeros"`), a strided layer counts its offsets in subsampled queries (`offset_stride=1`), both tables read
    the whole head, and the tables stand outside the scale unless `scale_pos_embed` is set.

    A feature map in channels_last memory passes through without a copy; a contiguous NCHW map is copied once. A
    strided layer gives ceil(size / stride) rows and columns; one with `avg_down` pools as timm does, which drops the
    last row of an odd map.
    """

    def forward(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch value_channels query_rows query_columns"]:
        """Attend within a feature map of any size."""
        query, key, value = self._project(x)
        result = halo_attention(query, key, value, *self._tables(), **self._options())
        return self.pool(result.flatten(3).permute(0, 3, 1, 2))

    def attention_weights(
        self, x: Float[Tensor, "batch channels rows columns"], positions: Int[Tensor, "points 2"]
    ) -> tuple[Float[Tensor, "batch points heads rows columns"], Float[Tensor, "batch points heads"]]:
        """Where the queries at `positions` of the query grid look; see `halonet.attention_weights`."""
        query, key, _ = self._project(x)
        return attention_weights(query, key, *self._tables(), positions=positions, **self._options())

    def geometry(self, rows: int, columns: int) -> Geometry:
        """Blocks, windows and queries of a feature map."""
        options = self._options()
        del options["scale"]
        return make_geometry(rows, columns, **options)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = channels_last(x)
        query = self.q(x).permute(0, 2, 3, 1).unflatten(-1, (self.num_heads, self.dim_head_qk))
        # timm keeps keys and values of a head side by side, not all keys before all values.
        both = self.kv(x).permute(0, 2, 3, 1).unflatten(-1, (self.num_heads, self.dim_head_qk + self.dim_head_v))
        return query, *both.split([self.dim_head_qk, self.dim_head_v], -1)

    def _options(self) -> dict[str, Any]:
        return {
            "block_size": self.block_size,
            "halo_size": self.halo_size,
            "stride": self.block_stride,
            "scale": self.scale,
            "border": "zeros",
            "offset_stride": 1,
        }

    def _tables(self) -> tuple[Tensor, Tensor]:
        return self._operator_table(self.pos_embed.height_rel), self._operator_table(self.pos_embed.width_rel)

    def _operator_table(self, table: Float[Tensor, "timm_offsets d_qk"]) -> Float[Tensor, "offsets d_qk"]:
        """Cut and scale one of timm's tables for the operator.

        timm's entries begin at the offset -(block + 2 * halo - 1), of which the first 2 * halo never occur. The
        operator scales position logits together with content logits; where timm does not, dividing undoes it.
        """
        table = table[2 * self.halo_size :]
        return table if self.scale_pos_embed else table / self.scale


def accelerate(model: nn.Module) -> nn.Module:
    """Run every `HaloAttn` layer of timm in a model on `halonet.halo_attention`, in place.

    Outputs and gradients stay those of timm, to rounding; sizes that timm refuses work. Parameters, `state_dict`
    keys, hooks, mode, device and optimizers stay as they are, so it does not matter whether weights are loaded or an
    optimizer is made before or after. Call it before FSDP and `torch.compile`. Layers that are accelerated already
    stay so; subclasses of `HaloAttn` are left alone, because they may compute something else.

    Hooks of `pos_embed` inside a layer are not called: the operator reads the tables themselves.

    One line to the logger "halonet" says which layers were replaced, and which others keep the model at one image
    size (timm's `BottleneckAttn`, and `LambdaLayer` without a radius); it is a warning if there was nothing to do.

    Args:
        model: Any module, for instance a model of timm, or a `HaloAttn` itself.

    Returns:
        The same object.

    Raises:
        TypeError: If `model` is not a module.
    """
    _check(model)
    kind = type(model).__name__
    found = [name for name, layer in model.named_modules() if type(layer) is HaloAttn]
    for name in found:
        model.get_submodule(name).__class__ = AcceleratedHaloAttn

    total = len(accelerated_layers(model))
    if found:
        level, report = logging.INFO, f"{kind}: accelerated {len(found)} of {total} HaloAttn layers: {_listed(found)}"
    elif total:
        level, report = logging.INFO, f"{kind}: nothing new to accelerate, {total} of {total} HaloAttn layers are"
    else:
        level, report = logging.WARNING, f"{kind}: nothing to accelerate, it has no HaloAttn layer of timm"
    remarks = {"left alone, as subclasses": _subclasses(model), "still of fixed size": _layers_of_fixed_size(model)}
    _logger.log(level, "; ".join([report, *(f"{what}: {_listed(names)}" for what, names in remarks.items() if names)]))
    return model


def restore(model: nn.Module) -> nn.Module:
    """Undo `accelerate`: make the layers timm's own again, in place.

    A model that was not accelerated stays as it is.

    Returns:
        The same object.

    Raises:
        TypeError: If `model` is not a module.
        ValueError: If something, such as FSDP, has given an accelerated layer a class of its own.
    """
    _check(model)
    layers = {name: model.get_submodule(name) for name in accelerated_layers(model)}
    for name, layer in layers.items():
        if type(layer) is not AcceleratedHaloAttn:
            raise ValueError(
                f"layer {name!r} is a {type(layer).__name__}, made from an accelerated layer by something else; "
                "restore the model before it is wrapped"
            )
    for layer in layers.values():
        layer.__class__ = HaloAttn
    return model


def accelerated_layers(model: nn.Module) -> list[str]:
    """List the accelerated layers of a model by their names in `named_modules`; "" is the model itself.

    Raises:
        TypeError: If `model` is not a module.
    """
    _check(model)
    return [name for name, layer in model.named_modules() if isinstance(layer, AcceleratedHaloAttn)]


def _check(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is of type {type(model).__name__}, but must be a torch.nn.Module, such as timm.create_model gives"
        )


def _subclasses(model: nn.Module) -> list[str]:
    """Names of layers whose class is someone else's subclass of timm's, each with that class."""
    return [
        f"{name} ({type(layer).__name__})".lstrip()
        for name, layer in model.named_modules()
        if isinstance(layer, HaloAttn) and type(layer) not in (HaloAttn, AcceleratedHaloAttn)
    ]


def _layers_of_fixed_size(model: nn.Module) -> list[str]:
    """Names of timm's layers that take feature maps of one size only, each with its class and that size."""
    described = []
    for name, layer in model.named_modules():
        if isinstance(layer, BottleneckAttn):
            size = (layer.pos_embed.height, layer.pos_embed.width)
        elif isinstance(layer, LambdaLayer) and layer.pos_emb is not None:
            # timm 1.0.19 does not keep the size, but the table has 2 * size - 1 entries along an axis.
            size = tuple((length + 1) // 2 for length in layer.pos_emb.shape[:2])
        else:
            continue
        described.append(f"{name} ({type(layer).__name__}, {size[0]} x {size[1]})".lstrip())
    return described


def _listed(names: list[str]) -> str:
    return ", ".join(name or "the module itself" for name in names)
