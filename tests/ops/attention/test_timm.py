"""timm's HaloAttn is one setting of the operator: zeros border, full tables, offsets in subsampled queries."""

from typing import Any

import pytest
import torch
from timm.layers.halo_attn import HaloAttn
from torch import Tensor

from tests.ops.attention.backends import Backend
from tests.ops.attention.oracle import assert_agree


def attend_like(layer: HaloAttn, image: Tensor, backend: Backend, **options: Any) -> Tensor:
    """Run our operator on timm's projections and tables.

    timm's tables count offsets from -(block + 2 * halo - 1), of which the first 2 * halo never occur, and it scales
    the content logits alone unless `scale_pos_embed` is set.
    """
    heads = layer.num_heads
    query = layer.q(image).unflatten(1, (heads, -1)).permute(0, 3, 4, 1, 2)
    both = layer.kv(image).unflatten(1, (heads, -1)).permute(0, 3, 4, 1, 2)
    key, value = both.split([layer.dim_head_qk, layer.dim_head_v], dim=-1)
    unscaled = 1.0 if layer.scale_pos_embed else layer.scale
    tables = [
        table[2 * layer.halo_size :] / unscaled for table in (layer.pos_embed.height_rel, layer.pos_embed.width_rel)
    ]
    output = backend.attend(
        query, key, value, *tables, block_size=layer.block_size, halo_size=layer.halo_size, **options
    )
    return output.permute(0, 3, 4, 1, 2).flatten(1, 2)


@pytest.mark.many_calls
@pytest.mark.parametrize("scale_pos_embed", [False, True])
@pytest.mark.parametrize(
    ("layer_options", "options"),
    [
        ({"block_size": 4, "halo_size": 1}, {}),
        ({"block_size": 2, "halo_size": 3, "qkv_bias": False, "dim_head": 6}, {}),
        ({"block_size": 4, "halo_size": 2, "stride": 2}, {"stride": 2, "offset_stride": 1}),
    ],
    ids=["stride_1", "wide_halo", "stride_2"],
)
def test_equals_timm_with_the_same_weights(
    backend: Backend, layer_options: dict[str, Any], options: dict[str, Any], scale_pos_embed: bool
) -> None:
    layer = HaloAttn(8, dim_out=12, num_heads=2, scale_pos_embed=scale_pos_embed, **layer_options).double()
    image = torch.randn(2, 8, 8, 12, dtype=torch.float64)
    expected = layer(image)
    output = attend_like(layer, image, backend, border="zeros", **options)
    assert_agree(output, expected)

    parameters = list(layer.parameters())
    cotangent = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, parameters, cotangent)
    gradients = torch.autograd.grad(output, parameters, cotangent)
    assert_agree(list(gradients), list(expected_gradients))


@pytest.mark.many_calls
def test_pixel_offsets_differ_from_timms_in_a_strided_layer(backend: Backend) -> None:
    layer = HaloAttn(8, num_heads=2, block_size=4, halo_size=1, stride=2).double()
    image = torch.randn(1, 8, 8, 8, dtype=torch.float64)
    ours = attend_like(layer, image, backend, border="zeros", stride=2)
    assert (ours - layer(image)).abs().max() > 1e-3
