"""What PyTorch's counter says of the fused operators."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import halonet
from halonet.ops import cpu_library

pytestmark = pytest.mark.skipif(cpu_library.MISSING is not None, reason="this installation has no kernel")


@pytest.mark.parametrize(("stride", "queries"), [(1, 7 * 5), (2, 4 * 3), ((1, 3), 7 * 2)])
def test_forward_and_backward_count_every_key_of_a_window(stride, queries):
    rows, columns = (stride, stride) if isinstance(stride, int) else stride
    key = torch.randn(2, 7, 5, 3, 8, requires_grad=True)
    value = torch.randn(2, 7, 5, 3, 4, requires_grad=True)
    query = torch.randn(2, 7, 5, 3, 8)[:, ::rows, ::columns].clone().requires_grad_()
    tables = torch.randn(9, 4, requires_grad=True), torch.randn(13, 4, requires_grad=True)
    pairs = 2 * 3 * queries * (3 + 2 * 2) * (6 + 2 * 1)
    with FlopCounterMode(display=False) as counter:
        result = halonet.halo_attention(
            query, key, value, *tables, block_size=(3, 6), halo_size=(2, 1), stride=stride, backend="cpu"
        )
        assert counter.get_total_flops() == 2 * pairs * (8 + 4)
        result.sum().backward()
    # Queries with keys for the scores, and for the gradients of both; values for their weights and their gradient.
    assert counter.get_total_flops() == 2 * pairs * (8 + 4) + 2 * pairs * (3 * 8 + 2 * 4)


@pytest.mark.parametrize("stride", [1, 2])
def test_packed_images_are_counted_like_separate_ones(stride):
    layer = halonet.HaloAttention(
        12, num_heads=3, block_size=4, halo_size=1, value_channels=6, stride=stride, backend="cpu"
    )
    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(2, 12, 7, 5)).sum().backward()
    counts = {str(name): flops for name, flops in counter.get_flop_counts()["Global"].items()}
    pairs = 2 * 3 * -(-7 // stride) * -(-5 // stride) * 6 * 6
    assert counts["halonet.cpu_packed_attention"] == 2 * pairs * (4 + 2)
    assert counts["halonet.cpu_packed_attention_backward"] == 2 * pairs * (3 * 4 + 2 * 2)


def test_triton_is_counted_too():
    shapes = (2, 4, 4, 3, 8), (2, 8, 8, 3, 8), (2, 8, 8, 3, 4)
    formula = FlopCounterMode(display=False).flop_registry[torch.ops.halonet.triton_attention]
    numbers = [4, 4, 1, 1, 2, 2, 2, 2, 0, 0]
    found = formula(*(torch.empty(shape, device="meta") for shape in shapes), None, None, numbers, 1.0, False)
    assert found == 2 * (2 * 3 * 4 * 4) * 6 * 6 * (8 + 4)
