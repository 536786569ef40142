import pytest
import torch

import halonet
from halonet.benchmark.peers import make_inputs
from halonet.benchmark.sizes import AWKWARD, DEFAULT_SIZES, SIZES, find_sizes
from halonet.errors import UserError
from halonet.layers import HaloAttention
from halonet.ops.attention.packed import unpack
from tests.benchmark.tiny import SETTINGS


def layers_of(name):
    """Each attention layer of a model as its forward sees it: name, query, key, value, block, halo, stride."""
    config = halonet.HALONETS[name]
    with torch.device("meta"):
        model = halonet.create_model(name)
    seen = {}

    def look(layer, inputs, _):
        stage, index = (int(part) for part in names[layer].split(".")[1:3])
        strided = "-strided" if layer.stride == (2, 2) else ""
        query, key, value = unpack(layer._project(inputs[0]))
        shapes = (query.shape[1:], key.shape[1:], value.shape[1:], layer.block_size[0], layer.halo_size[0])
        found = seen.setdefault(f"{name}/stage{stage + 1}{strided}", shapes)
        assert found == shapes, f"block {index} of a stage differs from the others"

    names = {layer: path for path, layer in model.named_modules() if isinstance(layer, HaloAttention)}
    for layer in names:
        layer.forward = lambda x, layer=layer: x.new_empty(
            len(x),
            layer.value_channels,
            *(-(-side // step) for side, step in zip(x.shape[2:], layer.stride, strict=True)),
        )
        layer.register_forward_hook(look)
    model(torch.empty(1, 3, config.image_size, config.image_size, device="meta"))
    return seen


@pytest.mark.parametrize("name", ["h0", "h1", "h5", "h6", "h7"])
def test_the_sizes_of_a_model_are_those_of_its_layers(name):
    seen = layers_of(name)
    assert set(seen) == {size for size in SIZES if size.startswith(f"{name}/")}
    for label, (query, key, value, block, halo) in seen.items():
        size = SIZES[label]
        geometry = size.geometry
        assert key == (size.rows, size.columns, size.heads, size.query_channels), label
        assert value == (size.rows, size.columns, size.heads, size.value_channels), label
        assert query[:2] == (geometry.rows.num_queries, geometry.columns.num_queries), label
        assert (block, halo) == (size.block, size.halo), label


@pytest.mark.parametrize("name", SIZES)
def test_the_operator_takes_every_size(name):
    size = SIZES[name]
    assert sum(size.table_widths) == size.query_channels
    if size.rows * size.columns > 1100:  # the numbers of larger maps take time, not thought
        return
    inputs = make_inputs(size, SETTINGS)
    output = halonet.halo_attention(
        inputs.query, inputs.key, inputs.value, *inputs.tables,
        block_size=size.block, halo_size=size.halo, stride=size.stride,
    )  # fmt: skip
    assert output.shape == (*inputs.query.shape[:4], size.value_channels)


def test_no_names_mean_the_stages_of_h1():
    assert tuple(find_sizes(None)) == DEFAULT_SIZES
    assert list(find_sizes(["h7/stage4"])) == ["h7/stage4"]


def test_the_part_before_the_slash_means_all_of_its_sizes():
    assert find_sizes(["awkward", "awkward/block14"]) == AWKWARD
    assert len(find_sizes(["h0", "h1/stage1"])) == 7 + 1


def test_an_unknown_size_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="unknown size 'h1/stag1'. Did you mean 'h1/stage1'"):
        find_sizes(["h1/stag1"])
