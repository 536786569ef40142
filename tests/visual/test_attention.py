import numpy as np
import pytest
import timm
import torch
from torch import nn

import halonet
from halonet import HaloAttention, accelerate, create_model
from halonet.errors import UserError
from halonet.visual.attention import record_attention, rollout
from tests.models.timm_networks import small_layer


def softmax_over_window(query, key, row_table, column_table, window, standing, scale, size, border):
    """The specification for one query of one head, key by key."""
    half = query.shape[0] - column_table.shape[1]
    logits = {}
    for row in range(window[0], window[2]):
        for column in range(window[1], window[3]):
            inside = 0 <= row < size[0] and 0 <= column < size[1]
            if not inside and border == "mask":
                continue
            content = float(query @ key[row, column]) if inside else 0.0
            down = row - standing[0] + len(row_table) // 2
            right = column - standing[1] + len(column_table) // 2
            position = float(query[: row_table.shape[1]] @ row_table[down] + query[half:] @ column_table[right])
            logits[row, column] = scale * (content + position)
    total = sum(np.exp(logit) for logit in logits.values())
    return {place: np.exp(logit) / total for place, logit in logits.items()}


def expected_maps(layer, x, query_pixel):
    """Each head's probabilities of the query at a pixel of the map, and what lies outside; for unit stride."""
    heads, (rows, columns) = layer.num_heads, x.shape[2:]
    (block, _), (halo, _) = layer.block_size, layer.halo_size
    query, key, _ = layer.qkv(x.permute(0, 2, 3, 1))[0].split(
        [layer.query_key_channels, layer.query_key_channels, layer.value_channels], -1
    )
    query, key = (each.detach().unflatten(-1, (heads, -1)).numpy() for each in (query, key))
    row_table, column_table = (table.detach().numpy() for table in (layer.row_embedding, layer.column_embedding))
    top, left = (at // block * block - halo for at in query_pixel)
    window = (top, left, top + block + 2 * halo, left + block + 2 * halo)
    maps, outside = np.zeros((heads, rows, columns)), np.zeros(heads)
    for head in range(heads):
        parts = softmax_over_window(
            query[query_pixel][head], key[:, :, head], row_table, column_table, window, query_pixel,
            query.shape[-1] ** -0.5, (rows, columns), layer.border,
        )  # fmt: skip
        for (row, column), probability in parts.items():
            if 0 <= row < rows and 0 <= column < columns:
                maps[head, row, column] = probability
            else:
                outside[head] += probability
    return maps, outside


@pytest.fixture
def network():
    return create_model("tiny28", num_classes=3, in_chans=1).eval()


def one_layer(**options):
    layer = HaloAttention(**({"channels": 8, "num_heads": 2, "block_size": 4, "halo_size": 2} | options))
    return nn.Sequential(layer).double().eval()


@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize("pixel", [(0, 0), (5, 8), (9, 4)])
def test_probabilities_are_those_of_the_specification(border, pixel):
    network, image = one_layer(border=border), torch.randn(1, 8, 10, 9, dtype=torch.float64)
    (recorded,) = record_attention(network, image)
    look = recorded.look(pixel)
    maps, outside = expected_maps(network[0], image, pixel)
    np.testing.assert_allclose(look.probabilities.numpy(), maps, atol=1e-12)
    np.testing.assert_allclose(look.outside.numpy(), outside, atol=1e-12)
    assert (outside > 0).all() == (border == "zeros")


def output_with_one_hot_values(layer, x, place):
    """What the operator gives where the value of one pixel is 1 in every head, and all others are 0."""
    seen = []

    def keep(*arguments, **options):
        value = torch.zeros_like(arguments[2])
        value[:, place[0], place[1]] = 1
        seen.append(halonet.halo_attention(*arguments[:2], value, *arguments[3:], **options))
        return seen[0]

    from halonet.models import acceleration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acceleration, "halo_attention", keep)
        layer(x)
    return seen[0][0, :, :, :, 0]


@pytest.mark.parametrize("options", [{}, {"stride": 2, "avg_down": True}, {"stride": 2}, {"scale_pos_embed": True}])
def test_layers_of_timm_look_where_their_operator_takes_values_from(options):
    network = accelerate(nn.Sequential(small_layer(**options))).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    image = torch.randn(1, 16, 8, 8, dtype=torch.float64)
    (recorded,) = record_attention(network, image)
    step = 8 // recorded.query_grid[0]
    for place in [(0, 0), (3, 4), (7, 5)]:
        output = output_with_one_hot_values(network[0], image, place).detach()
        for query in [(0, 0), (4, 2), (7, 7)]:
            look = recorded.look(query)
            expected = output[query[0] // step, query[1] // step]
            torch.testing.assert_close(look.probabilities[:, place[0], place[1]], expected)
            torch.testing.assert_close(look.probabilities.sum((1, 2)) + look.outside, torch.ones(2).double())


def test_block_and_window_are_those_of_the_query():
    (recorded,) = record_attention(one_layer(), torch.randn(1, 8, 10, 9, dtype=torch.float64))
    look = recorded.look((5, 8))
    assert look.query == (5, 8)
    assert look.block == (4, 8, 8, 12)
    assert look.window == (2, 6, 10, 14)
    assert look.cell == (1, 1)


def test_a_centered_window_surrounds_the_query():
    (recorded,) = record_attention(one_layer(centered=True), torch.randn(1, 8, 10, 9, dtype=torch.float64))
    look = recorded.look((5, 8))
    assert look.block == (4, 8, 8, 12)
    assert look.window == (3, 6, 8, 11)


def test_a_pixel_of_the_image_finds_its_query(network):
    first, *_, last = record_attention(network, torch.randn(1, 1, 28, 28))
    assert (first.map_size, first.query_grid, last.query_grid) == ((14, 14), (14, 14), (7, 7))
    assert first.look((27, 2)).query == (13, 1)
    assert first.look((27, 2)).cell == (2, 2)
    assert last.query_of((27, 2)) == (6, 0)


def test_layers_come_in_the_order_of_the_network(network):
    names = [layer.name for layer in record_attention(network, torch.randn(1, 1, 28, 28))]
    assert names == [name for name, module in network.named_modules() if isinstance(module, HaloAttention)]
    assert len(names) > 1


@pytest.mark.parametrize("name", ["halonet26t", "haloregnetz_b"])
def test_networks_of_timm_are_recorded_after_accelerate(name):
    network = timm.create_model(name, num_classes=2).eval()
    image = torch.randn(1, 3, 64, 64)
    with pytest.raises(UserError, match=r"halonet\.accelerate"):
        record_attention(network, image)
    accelerate(network)
    layers = record_attention(network, image)
    assert [layer.name for layer in layers] == halonet.accelerated_layers(network)
    for layer in layers:
        look = layer.look((63, 0))
        torch.testing.assert_close(look.probabilities.sum((1, 2)) + look.outside, torch.ones(layer.num_heads))


def test_distances_are_the_mean_over_queries_and_probabilities():
    network, image = one_layer(border="zeros"), torch.randn(1, 8, 5, 6, dtype=torch.float64)
    (recorded,) = record_attention(network, image)
    expected = np.zeros(2)
    for row in range(5):
        for column in range(6):
            maps, _ = expected_maps(network[0], image, (row, column))
            distances = np.array([[np.hypot(y - row, x - column) for x in range(6)] for y in range(5)])
            expected += (maps * distances).sum((1, 2)) / maps.sum((1, 2)) / 30
    np.testing.assert_allclose(recorded.mean_distances().numpy(), expected, rtol=1e-5)


def test_distances_count_in_pixels_of_the_image(network):
    first = record_attention(network, torch.randn(1, 1, 28, 28))[0]
    inside, _ = first.weights([(row, column) for row in range(14) for column in range(14)])
    places = torch.cartesian_prod(torch.arange(14.0), torch.arange(14.0)) * 2
    expected = (inside.flatten(2) * torch.cdist(places, places)[:, None]).sum(2).mean(0)
    torch.testing.assert_close(first.mean_distances(), expected)


def test_rollout_multiplies_the_matrices_of_the_layers():
    network = nn.Sequential(one_layer(stride=2)[0], nn.AvgPool2d(2), one_layer(border="zeros")[0]).eval()
    layers = record_attention(network, torch.randn(1, 8, 12, 12, dtype=torch.float64))
    first, second = layers
    assert (first.query_grid, second.map_size) == ((6, 6), (3, 3))
    matrices = []
    for layer in layers:
        rows, columns = layer.query_grid
        inside, _ = layer.weights([(row, column) for row in range(rows) for column in range(columns)])
        attention = inside.mean(1).flatten(1).numpy()
        step = layer.map_size[0] // rows
        stays = np.zeros_like(attention)
        for row in range(rows):
            for column in range(columns):
                stays[row * columns + column, row * step * layer.map_size[1] + column * step] = 1
        matrices.append((attention + stays) / 2)
    pooling = np.zeros((9, 36))
    for row in range(6):
        for column in range(6):
            pooling[row // 2 * 3 + column // 2, row * 6 + column] = 1 / 4
    expected = (matrices[1] @ pooling @ matrices[0])[1 * 3 + 2]
    result = rollout(layers, (5, 11))
    np.testing.assert_allclose(result.flatten().numpy(), expected / expected.sum(), atol=1e-6)


def test_rollout_spreads_weight_by_area():
    network = nn.Sequential(one_layer()[0], nn.AdaptiveAvgPool2d((2, 2)), one_layer()[0]).eval()
    for parameter in network.parameters():
        nn.init.zeros_(parameter)  # every pixel looks at all pixels alike
    result = rollout(record_attention(network, torch.randn(1, 8, 3, 3).double()), (0, 0))
    second = np.array([[0.5 + 0.125, 0.125], [0.125, 0.125]])
    areas = np.array([[2 / 3, 0], [1 / 3, 1 / 3], [0, 2 / 3]])
    np.testing.assert_allclose(result.numpy(), 0.5 * areas @ second @ areas.T + 0.5 / 9, atol=1e-6)


def test_rollout_needs_a_layer():
    with pytest.raises(UserError, match="layers is empty"):
        rollout([], (0, 0))


def test_a_network_may_change_what_a_layer_was_given():
    class Adding(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = one_layer()[0]

        def forward(self, x):
            x = x.clone()
            x += self.layer(x)
            return x

    network, image = Adding().eval(), torch.randn(1, 8, 10, 9, dtype=torch.float64)
    (recorded,) = record_attention(network, image)
    expected, _ = expected_maps(network.layer, image, (5, 8))
    np.testing.assert_allclose(recorded.look((5, 8)).probabilities.numpy(), expected, atol=1e-12)


def test_hooks_are_removed_even_after_an_error(network):
    with pytest.raises(ValueError, match="shape"):
        record_attention(network, torch.randn(1, 7, 28, 28))
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("pixel", "head", "message"),
    [
        ((28, 0), None, r"pixel is \(28, 0\), but must be a row from 0 to 27 and a column from 0 to 27 of the"),
        ((0, -1), None, r"pixel is \(0, -1\), but must be a row from 0 to 27"),
        ((0, 0), 9, "head is 9, but must be 0, the only one"),
        ((0, 0), -1, "head is -1, but must be 0, the only one"),
    ],
)
def test_what_is_not_there_is_refused_with_the_range(network, pixel, head, message):
    (first, *_) = record_attention(network, torch.randn(1, 1, 28, 28))
    with pytest.raises(UserError, match=message):
        first.look(pixel).of_head(head)


def test_a_network_in_training_mode_is_refused(network):
    with pytest.raises(UserError, match=r"training mode.*eval"):
        record_attention(network.train(), torch.randn(1, 1, 28, 28))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (1, 28, 28)])
def test_one_image_is_taken_at_a_time(network, shape):
    with pytest.raises(UserError, match=r"image has shape \[.*, but must be \[1, channels, height, width\]"):
        record_attention(network, torch.randn(shape))
