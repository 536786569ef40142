import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

from halonet import HaloAttention, halo_attention
from halonet.layers import fit_state, resize_table
from halonet.layers.projection import Projection
from halonet.ops import cpu_library


def layer(**changes):
    arguments = {"channels": 8, "num_heads": 2, "block_size": 4, "halo_size": 1} | changes
    torch.manual_seed(1)
    return HaloAttention(arguments.pop("channels"), **arguments)


def with_convolutions(attention, x, sizes):
    """The layer spelled with 1x1 convolutions in NCHW, a strided one for the queries."""
    names = ("qkv",) if attention.stride == (1, 1) else ("query", "key_value")
    weights = torch.cat([attention.get_submodule(name).weight for name in names])[:, :, None, None].split(sizes)
    query = F.conv2d(x, weights[0], stride=attention.stride)
    key, value = F.conv2d(x, weights[1]), F.conv2d(x, weights[2])
    query, key, value = (
        each.unflatten(1, (attention.num_heads, -1)).permute(0, 3, 4, 1, 2) for each in (query, key, value)
    )
    result = halo_attention(
        query, key, value, attention.row_embedding, attention.column_embedding,
        block_size=attention.block_size, halo_size=attention.halo_size, stride=attention.stride, backend="reference",
    )  # fmt: skip
    return result.permute(0, 3, 4, 1, 2).flatten(1, 2)


@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
@pytest.mark.parametrize("embedding", ["split", "full"])
def test_the_layer_is_projections_and_the_operator(stride, embedding):
    attention = layer(stride=stride, embedding=embedding, query_key_channels=12, value_channels=6)
    x = torch.randn(2, 8, 9, 7)
    torch.testing.assert_close(attention(x), with_convolutions(attention, x, [12, 12, 6]))


@pytest.mark.parametrize(
    ("stride", "matrices"),
    [(1, {"qkv.weight": (32, 8)}), (2, {"query.weight": (8, 8), "key_value.weight": (24, 8)})],
)
def test_parameters_are_the_projections_and_two_tables(stride, matrices):
    attention = layer(value_channels=16, halo_size=(1, 2), stride=stride)
    shapes = {name: tuple(value.shape) for name, value in attention.state_dict().items()}
    assert shapes == {**matrices, "row_embedding": (9, 2), "column_embedding": (11, 2)}


@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
def test_a_seed_gives_the_numbers_of_one_matrix_at_every_stride(stride):
    torch.manual_seed(1)
    matrix = nn.Linear(8, 24, bias=False).weight
    nn.init.normal_(matrix, std=8**-0.5)
    table = torch.randn(9, 2)
    attention = layer(stride=stride)
    parts = [attention.get_submodule(name).weight for name in projections(attention)]
    assert torch.equal(torch.cat(parts), matrix)
    assert torch.equal(attention.row_embedding, table)
    assert all(part.requires_grad and part.is_leaf for part in parts)


class Adapter(nn.Module):
    """LoRA as adapters do it: the layer it stands for, and a product of two narrow matrices."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


def projections(attention: HaloAttention) -> list[str]:
    return [name for name, module in attention.named_children() if isinstance(module, nn.Linear | Adapter)]


@pytest.mark.parametrize("stride", [1, 2])
def test_an_adapter_acts_and_learns_at_every_stride(stride):
    attention, x = layer(stride=stride), torch.randn(2, 8, 6, 6)
    before = attention(x)
    for name in projections(attention):
        setattr(attention, name, Adapter(attention.get_submodule(name)))
    merged = layer(stride=stride)
    for name in projections(merged):
        adapter = attention.get_submodule(name)
        merged.get_submodule(name).weight.data += adapter.up.weight @ adapter.down.weight
    found = attention(x)
    assert not torch.allclose(found, before, atol=1e-3)
    torch.testing.assert_close(found, merged(x))
    found.square().sum().backward()
    learning = {name for name, value in attention.named_parameters() if value.grad is not None and value.grad.any()}
    for name in projections(attention):
        assert {f"{name}.down.weight", f"{name}.up.weight"} <= learning
        assert f"{name}.base.weight" not in learning


@pytest.mark.parametrize("stride", [1, 2])
def test_hooks_see_every_projection_and_can_change_it(stride):
    attention, x = layer(stride=stride), torch.randn(1, 8, 6, 6)
    seen = []
    for name in projections(attention):
        attention.get_submodule(name).register_forward_hook(
            lambda module, inputs, output: (seen.append(tuple(inputs[0].shape)), torch.zeros_like(output))[1]
        )
    assert attention(x).abs().max() == 0
    assert seen == ([(1, 6, 6, 8)] if stride == 1 else [(1, 3, 3, 8), (1, 6, 6, 8)])


@pytest.mark.parametrize("stride", [1, 2])
def test_spectral_norm_acts_at_every_stride(stride):
    attention, x = layer(stride=stride).eval(), torch.randn(1, 8, 6, 6)
    scaled = layer(stride=stride).eval()
    for name in projections(attention):
        parametrizations.spectral_norm(attention.get_submodule(name).eval(), n_power_iterations=50)
        weight = scaled.get_submodule(name).weight
        weight.data /= torch.linalg.matrix_norm(weight.data, 2)
    torch.testing.assert_close(attention(x), scaled(x), rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize("stride", [1, 2])
def test_pruning_acts_at_every_stride(stride):
    attention, x = layer(stride=stride), torch.randn(1, 8, 6, 6)
    pruned = layer(stride=stride)
    for name in projections(attention):
        prune.l1_unstructured(attention.get_submodule(name), "weight", 0.5)
        weight = pruned.get_submodule(name).weight
        weight.data[weight.abs() <= weight.abs().flatten().median()] = 0
    torch.testing.assert_close(attention(x), pruned(x))
    attention(x).square().sum().backward()
    assert all(attention.get_submodule(name).weight_orig.grad.any() for name in projections(attention))


def joined_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state dictionary of a network as versions had it in which every layer had one matrix."""
    state = dict(network.state_dict())
    for name in [name for name in state if name.endswith(".query.weight") or name == "query.weight"]:
        prefix = name.removesuffix("query.weight")
        state[f"{prefix}qkv.weight"] = torch.cat([state.pop(name), state.pop(f"{prefix}key_value.weight")])
    return state


@pytest.mark.parametrize(
    "wrap", [lambda attention: attention, lambda attention: nn.Sequential(nn.Sequential(attention))]
)
def test_a_state_dictionary_of_one_matrix_fits_a_strided_layer(wrap):
    old, x = wrap(layer(stride=2)), torch.randn(1, 8, 6, 6)
    state = joined_state(old)
    assert any("qkv" in name for name in state)
    torch.manual_seed(7)
    new = wrap(HaloAttention(8, num_heads=2, block_size=4, halo_size=1, stride=2))
    given = dict(state)
    assert not any(new.load_state_dict(state, strict=True))
    assert state.keys() == given.keys(), "the caller's dictionary is not changed"
    torch.testing.assert_close(new(x), old(x))
    assert not any(new.load_state_dict(old.state_dict(), strict=True))


def test_assigned_parts_share_no_memory():
    attention = layer(stride=2)
    attention.load_state_dict(joined_state(attention), assign=True)
    pointers = {attention.get_submodule(name).weight.untyped_storage().data_ptr() for name in projections(attention)}
    assert len(pointers) == 2


def test_weights_of_a_strided_layer_fit_one_without_stride():
    strided, plain = layer(stride=2), layer()
    plain.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in plain.state_dict().items()})
    plain.load_state_dict(strided.state_dict(), strict=True)
    assert torch.equal(plain.qkv.weight, torch.cat([strided.query.weight, strided.key_value.weight]))


def test_a_bias_of_folded_norms_fits_too():
    attention = layer(stride=2)
    attention.key_value = Projection(8, 16)
    state = joined_state(attention)
    state["qkv.bias"] = torch.cat([torch.zeros(8), state.pop("key_value.bias")])
    attention.load_state_dict(state, strict=True)
    state["qkv.bias"][3] = 1.0
    with pytest.raises(RuntimeError, match="(?s)Unexpected key.*query.bias"):
        attention.load_state_dict(state, strict=True)


def test_a_matrix_of_another_size_is_named():
    with pytest.raises(RuntimeError, match="(?s)Missing key.*query.weight.*Unexpected key.*qkv.weight"):
        layer(stride=2).load_state_dict(layer(value_channels=16).state_dict())


def test_fit_state_returns_a_fitted_copy():
    network = nn.Sequential(layer(), layer(stride=2))
    state = joined_state(network)
    fitted = fit_state(network, state)
    assert fitted.keys() == network.state_dict().keys()
    assert "1.qkv.weight" in state


def test_a_channels_last_map_stays_channels_last():
    x = torch.randn(2, 8, 8, 12).contiguous(memory_format=torch.channels_last)
    assert layer()(x).is_contiguous(memory_format=torch.channels_last)


def test_memory_format_does_not_change_the_numbers():
    attention, x = layer(), torch.randn(2, 8, 8, 12)
    torch.testing.assert_close(attention(x), attention(x.contiguous(memory_format=torch.channels_last)))


def test_absolute_positions_are_added_to_the_input():
    attention = layer(position="absolute", feature_size=(3, 5))
    plain = layer(position="none")
    plain.qkv = attention.qkv
    encodings = attention.row_position[:, None] + attention.column_position
    x = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(attention(x), plain(x + encodings.permute(2, 0, 1)))


def test_absolute_positions_fit_other_sizes():
    assert layer(position="absolute", feature_size=(3, 5))(torch.randn(1, 8, 7, 2)).shape == (1, 8, 7, 2)


def test_attention_weights_reproduce_the_output():
    attention = layer()
    x = torch.randn(2, 8, 6, 5)
    weights, outside = attention.attention_weights(x, torch.tensor([[5, 4], [0, 2]]))
    value = F.conv2d(x, attention.qkv.weight[16:, :, None, None]).unflatten(1, (2, 4))
    expected = torch.einsum("bpnyx,bndyx->bpnd", weights, value).flatten(2)
    torch.testing.assert_close(attention(x)[:, :, [5, 0], [4, 2]].mT, expected)
    assert outside.abs().max() == 0


def test_the_layer_obeys_its_backend():
    attention, x = layer(backend="reference"), torch.randn(1, 8, 8, 8)
    expected = attention(x)
    attention.backend = "composite"
    torch.testing.assert_close(attention(x), expected)
    attention.backend = "compsite"
    with pytest.raises(ValueError, match="'compsite'.*'composite'"):
        attention(x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 3}, "query_key_channels is 8 and num_heads is 3"),
        ({"value_channels": 7}, "value_channels is 7 and num_heads is 2"),
        ({"block_size": 0}, "block_size is 0.*at least 1"),
        ({"halo_size": -1}, "halo_size is -1.*at least 0"),
        ({"position": "rotary"}, "position is 'rotary'.*relative"),
        ({"embedding": "half"}, "embedding is 'half'.*split"),
        ({"position": "absolute"}, "needs feature_size"),
        ({"channels": 8.0}, "channels is 8.0, but must be a whole number"),
        ({"channels": 0}, "channels is 0, but must be at least 1"),
        ({"num_heads": True}, "num_heads is True, but must be a whole number"),
        ({"query_key_channels": "8"}, "query_key_channels is '8', but must be a whole number"),
        ({"stride": 2.0}, "stride is 2.0, but must be a whole number or a pair"),
        ({"feature_size": (3, 0)}, r"feature_size\[1\] is 0, but must be at least 1"),
        ({"scale": float("nan")}, "scale is nan, but must be a finite number"),
        ({"border": "zero"}, "border is 'zero', but must be mask or zeros. Did you mean 'zeros'"),
        ({"centered": "no"}, "centered is 'no', but must be true or false"),
        ({"offset_stride": 2}, "offset_stride 2 puts the last query"),
        ({"backend": "gpu"}, "backend is 'gpu', but must be auto, cpu"),
        ({"halo_size": 10**9}, "2000000007 entries; a layer takes at most 1048576"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_wrong_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        layer(**changes)


@pytest.mark.usefixtures("untyped")
def test_sizes_may_be_integers_of_numpy():
    attention = layer(channels=np.int64(8), num_heads=np.int32(2), block_size=(np.int64(4), 4), stride=np.uint8(2))
    assert [type(each) for each in (attention.channels, *attention.block_size, *attention.stride)] == [int] * 5


def test_a_halo_that_a_checkpoint_makes_enormous_is_the_whole_map():
    attention, small = (layer(position="none", halo_size=halo) for halo in (10**9, 8))
    x = torch.randn(1, 8, 6, 7)
    assert torch.equal(attention(x), small(x))


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"\[1, 4, 8, 8\].*\[batch, 8, rows, columns\]"):
        layer()(torch.randn(1, 4, 8, 8))


def test_resizing_a_table_keeps_offset_zero_and_the_ends():
    table = torch.arange(-5.0, 6.0)[:, None].expand(-1, 2)
    resized = resize_table(table, 21)
    torch.testing.assert_close(resized, torch.linspace(-5, 5, 21)[:, None].expand(-1, 2))
    assert resized[10].abs().max() == 0
    assert resize_table(table, 11) is table


@pytest.mark.usefixtures("untyped")
@pytest.mark.skipif(cpu_library.MISSING is not None, reason=str(cpu_library.MISSING))
def test_compiled_backward_copies_no_gradient():
    from torch._inductor.utils import fresh_cache, run_fw_bw_and_get_code

    compiled = torch.compile(layer(backend="cpu"), fullgraph=True)
    image = torch.randn(1, 8, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
    with fresh_cache():  # what was compiled before knows nothing of our derivatives
        _, (_, backward) = run_fw_bw_and_get_code(lambda: compiled(image))
    assert "cpu_packed_attention_backward" in backward
    assert "cpp_fused" not in backward, "what is fused is a copy: all else are matrix products"
