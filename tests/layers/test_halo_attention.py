import numpy as np
import pytest
import torch
import torch.nn.functional as F

from halonet import HaloAttention, halo_attention
from halonet.layers import resize_table
from halonet.ops import cpu_library


def layer(**changes):
    arguments = {"channels": 8, "num_heads": 2, "block_size": 4, "halo_size": 1} | changes
    torch.manual_seed(1)
    return HaloAttention(arguments.pop("channels"), **arguments)


def with_convolutions(attention, x, sizes):
    """The layer spelled with 1x1 convolutions in NCHW, a strided one for the queries."""
    weights = attention.qkv.weight[:, :, None, None].split(sizes)
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


def test_parameters_are_one_matrix_and_two_tables():
    shapes = {
        name: tuple(value.shape) for name, value in layer(value_channels=16, halo_size=(1, 2)).state_dict().items()
    }
    assert shapes == {"qkv.weight": (32, 8), "row_embedding": (9, 2), "column_embedding": (11, 2)}


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
        ({"channels": 8.0}, "channels is 8.0; it must be an int"),
        ({"channels": 0}, "channels is 0; it must be at least 1"),
        ({"num_heads": True}, "num_heads is True; it must be an int"),
        ({"query_key_channels": "8"}, "query_key_channels is '8'; it must be an int"),
        ({"stride": 2.0}, "stride is 2.0; it must be an int or a pair"),
        ({"feature_size": (3, 0)}, r"feature_size\[1\] is 0; it must be at least 1"),
        ({"scale": float("nan")}, "scale is nan; it must be finite"),
        ({"border": "zero"}, "border is 'zero'; .* Did you mean 'zeros'"),
        ({"centered": "no"}, "centered is 'no'; it must be True or False"),
        ({"offset_stride": 2}, "offset_stride 2 puts the last query"),
        ({"backend": "gpu"}, "backend is 'gpu'; it must be one of 'auto', 'cpu'"),
        ({"halo_size": 10**9}, "2000000007 entries; a layer takes at most 1048576"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_what_does_not_fit_is_refused(changes, message):
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
def test_compiled_code_copies_no_gradient_between_the_kernel_and_the_projection():
    from torch._inductor.utils import fresh_cache, run_fw_bw_and_get_code

    compiled = torch.compile(layer(backend="cpu"), fullgraph=True)
    image = torch.randn(1, 8, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
    with fresh_cache():  # what was compiled before knows nothing of our derivatives
        _, (_, backward) = run_fw_bw_and_get_code(lambda: compiled(image))
    assert "cpu_attention_backward" in backward
    assert "cpp_fused" not in backward, "what is fused is a copy: all else are matrix products"
