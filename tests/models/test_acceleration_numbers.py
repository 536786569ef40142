"""timm is the oracle: the same weights, the same image, before and after `accelerate`."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers.bottleneck_attn import BottleneckAttn
from timm.layers.halo_attn import HaloAttn
from torch import Tensor, nn

import halonet
from halonet.models import acceleration
from tests.models.timm_networks import ANY_SIZE, WITH_BOTNET_LAYERS, small_layer

# The smallest images that timm takes: in the last stage of each model the map is one block.
SMALLEST = {"haloregnetz_b": 224}


def model_whose_attention_matters(name: str) -> tuple[nn.Module, Tensor]:
    """Make a model of timm in fp64 with an image.

    As timm initializes it, a block adds nothing to its input and even uniform attention would pass: so no weight of
    a batch norm is zero, its statistics are those of the image, and tables are large.
    """
    size = SMALLEST.get(name, 256)
    image = torch.randn(1, 3, size, size, dtype=torch.float64)
    model = timm.create_model(name).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.momentum = 1.0
        elif isinstance(module, (HaloAttn, BottleneckAttn)):
            nn.init.normal_(module.pos_embed.height_rel, std=0.5)
            nn.init.normal_(module.pos_embed.width_rel, std=0.5)
    with torch.no_grad():
        model.train()(image)
    return model.eval(), image


def output_and_gradients(model: nn.Module, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Run forward and backward; gradients by the name of the parameter, that of the image as "image"."""
    image = image.clone().requires_grad_()
    output = model(image)
    inputs = {"image": image} | dict(model.named_parameters())
    cotangent = torch.randn(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(1))
    return output.detach(), dict(
        zip(inputs, torch.autograd.grad(output, list(inputs.values()), cotangent), strict=True)
    )


def deviation(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value."""
    assert ours.shape == theirs.shape
    assert theirs.abs().max() > 0
    return float((ours - theirs).abs().max() / theirs.abs().max())


def deviations(model: nn.Module, image: Tensor) -> tuple[float, float]:
    """Largest deviations of output and gradients when the model is accelerated."""
    expected, expected_gradients = output_and_gradients(model, image)
    output, gradients = output_and_gradients(halonet.accelerate(model), image)
    worst = max(deviation(gradients[name], theirs) for name, theirs in expected_gradients.items())
    return deviation(output, expected), worst


@pytest.mark.parametrize("name", ANY_SIZE + WITH_BOTNET_LAYERS)
def test_timms_models_keep_their_outputs_and_gradients(name: str) -> None:
    model, image = model_whose_attention_matters(name)
    of_output, of_gradients = deviations(model, image)
    assert halonet.accelerated_layers(model)
    assert of_output < 1e-6
    assert of_gradients < 1e-5


def unscaled_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = lambda layer, table: table[2 * layer.halo_size :]  # noqa: E731
    monkeypatch.setattr(acceleration.AcceleratedHaloAttn, "_operator_table", cut)


def swapped_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor, **options: Any) -> Tensor:
        return halonet.halo_attention(query, key, value, columns, rows, **options)

    monkeypatch.setattr(acceleration, "halo_attention", swapped)


def option(name: str, value: Any) -> Any:
    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        def changed(*tensors: Tensor, **options: Any) -> Tensor:
            return halonet.halo_attention(*tensors, **(options | {name: value}))

        monkeypatch.setattr(acceleration, "halo_attention", changed)

    return plant


@pytest.mark.parametrize(
    "plant",
    [unscaled_tables, swapped_tables, option("offset_stride", None), option("border", "mask")],
    ids=["unscaled_tables", "swapped_tables", "offsets_in_pixels", "masked_border"],
)
def test_the_comparison_of_models_sees_a_planted_fault(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = model_whose_attention_matters("halonet26t")
    plant(monkeypatch)
    of_output, of_gradients = deviations(model, image)
    assert of_output > 1e-3
    assert of_gradients > 1e-3


LAYERS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "wider_output": {"dim_out": 24},
    "narrow_queries": {"qk_ratio": 0.5},
    "given_head_width": {"dim_head": 3, "num_heads": 4},
    "biases": {"qkv_bias": True},
    "scaled_positions": {"scale_pos_embed": True},
    "no_halo": {"halo_size": 0},
    "wide_halo": {"block_size": 2, "halo_size": 3},
    "stride": {"stride": 2},
    "stride_and_all_else": {
        "stride": 2,
        "dim_out": 24,
        "qk_ratio": 2.0,
        "qkv_bias": True,
        "scale_pos_embed": True,
        "halo_size": 2,
    },
    "pooled": {"stride": 2, "avg_down": True, "qkv_bias": True},
    "pooled_as_the_block_is_odd": {"stride": 2, "block_size": 3},
}


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("blocks", [(2, 3), (1, 1), (3, 1)], ids=str)
def test_layers_of_every_option_keep_their_outputs_and_gradients(
    options: dict[str, Any], blocks: tuple[int, int]
) -> None:
    layer = small_layer(**options)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    image = torch.randn(2, 16, *(count * layer.block_size for count in blocks), dtype=torch.float64)
    of_output, of_gradients = deviations(layer, image)
    assert of_output < 1e-12
    assert of_gradients < 1e-12


@pytest.mark.parametrize("options", [{}, {"stride": 2}], ids=["stride_1", "stride_2"])
@pytest.mark.parametrize("size", [(5, 11), (3, 2), (9, 8)], ids=str)
def test_sizes_that_timm_refuses_equal_timm_on_the_zero_padded_map(
    options: dict[str, Any], size: tuple[int, int]
) -> None:
    layer = small_layer(**options)
    image = torch.randn(2, 16, *size, dtype=torch.float64)
    with pytest.raises(AssertionError):
        layer(image)
    completed = layer(F.pad(image, (0, -size[1] % 4, 0, -size[0] % 4)))
    output = halonet.accelerate(layer)(image)
    stride = layer.block_stride
    assert output.shape == (2, 16, -(-size[0] // stride), -(-size[1] // stride))
    torch.testing.assert_close(output, completed[:, :, : output.shape[2], : output.shape[3]])
