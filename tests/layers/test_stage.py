"""Blocks that are computed twice: what must happen once."""

import pytest
import torch
from torch import Tensor, nn

from halonet import HaloAttention
from halonet.layers import Bottleneck
from halonet.layers.stage import Stage


def stage(**changes: float) -> Stage:
    torch.manual_seed(2)
    blocks = []
    for stride in (2, 1):
        mixer = HaloAttention(16, num_heads=2, block_size=4, halo_size=1, stride=stride)
        blocks.append(Bottleneck(16, 16, mixer, 16, 16, stride=stride, **changes))
        nn.init.ones_(blocks[-1].expand_norm.weight)
    return Stage(*blocks)


def trained(blocks: Stage, x: Tensor) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """Output, gradients, and the state after two passes forward and backward."""
    blocks.zero_grad()
    torch.manual_seed(0)
    for _ in range(2):
        output = blocks(x)
        output.square().sum().backward()
    return output, [parameter.grad for parameter in blocks.parameters()], blocks.state_dict()


CONVERSIONS = {
    "ours": lambda blocks: blocks,
    "synchronized": nn.SyncBatchNorm.convert_sync_batchnorm,
    "cumulative": lambda blocks: set_momentum(blocks, None),
}


def set_momentum(blocks: Stage, momentum: float | None) -> Stage:
    for module in blocks.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    return blocks


@pytest.mark.parametrize("name", CONVERSIONS)
@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_recomputed_blocks_update_running_statistics_once(name: str, drop_path: float) -> None:
    x = torch.randn(4, 16, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    kept, again = (CONVERSIONS[name](stage(drop_path=drop_path)) for _ in range(2))
    calls = []
    again[0].register_forward_pre_hook(lambda *_: calls.append(1))
    again.grad_checkpointing = True
    expected, found = trained(kept, x), trained(again, x)
    assert len(calls) == 4, "computed twice in each of two passes"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    norm = again.get_submodule("0.reduce_norm")
    assert norm.num_batches_tracked == 2
    torch.testing.assert_close(again.state_dict(), kept.state_dict(), rtol=1e-6, atol=1e-6)


def test_evaluation_computes_once() -> None:
    blocks, calls = stage().eval(), []
    blocks.grad_checkpointing = True
    blocks[0].register_forward_hook(lambda *_: calls.append(1))
    blocks(torch.randn(2, 16, 8, 8, requires_grad=True)).sum().backward()
    assert len(calls) == 1
