"""`attention_weights` shows what the operator does: the same weights, laid out over the image."""

import pytest
import torch
from torch import Tensor

import halonet
from tests.ops.attention import oracle
from tests.ops.attention.oracle import assert_agree
from tests.ops.attention.sizes import BY_NAME, SIZES, Size

every_size = pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)


def every_position(size: Size) -> Tensor:
    """[P, 2]: all query rows and columns, the last first, so that their order matters."""
    rows, columns = size.query_grid
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).flip(0)


def weights_of(size: Size, positions: Tensor) -> tuple[Tensor, Tensor]:
    query, key, _, row_embedding, column_embedding = size.inputs()
    return halonet.attention_weights(query, key, row_embedding, column_embedding, positions=positions, **size.options)


@every_size
def test_weights_and_outside_equal_brute_force(size: Size) -> None:
    positions = every_position(size)
    weights, outside = weights_of(size, positions)
    expected = oracle.halo_attention(*size.inputs(), **size.options)
    rows, columns = positions.unbind(-1)
    assert_agree(weights, expected.weights[:, rows, columns])
    assert_agree(outside, expected.outside[:, rows, columns])


@every_size
def test_weights_and_outside_sum_to_one(size: Size) -> None:
    weights, outside = weights_of(size, every_position(size))
    assert (weights >= 0).all()
    assert_agree(weights.sum(dim=(-2, -1)) + outside, torch.ones_like(outside))
    if size.border == "mask":
        assert torch.equal(outside, torch.zeros_like(outside))
    else:
        assert outside.max() > 0.01


@every_size
def test_weights_times_values_are_the_operators_output(size: Size) -> None:
    positions = every_position(size)
    weights, _ = weights_of(size, positions)
    inputs = size.inputs()
    rows, columns = positions.unbind(-1)
    output = halonet.halo_attention(*inputs, **size.options)[:, rows, columns]
    assert_agree(torch.einsum("bpnhw,bhwnd->bpnd", weights, inputs.value), output)


def test_positions_may_repeat_and_come_in_any_order_and_number() -> None:
    size = BY_NAME["prime_sides"]
    positions = torch.tensor([[6, 4], [0, 0], [6, 4]])
    weights, outside = weights_of(size, positions)
    assert weights.shape == (2, 3, 2, 7, 5)
    assert outside.shape == (2, 3, 2)
    assert torch.equal(weights[:, 0], weights[:, 2])
    assert_agree(weights[:, 1:2], weights_of(size, positions[1:2])[0])
    none, none_outside = weights_of(size, positions[:0])
    assert none.shape == (2, 0, 2, 7, 5)
    assert none_outside.shape == (2, 0, 2)
    assert_agree(weights_of(size, positions.int())[0], weights)
