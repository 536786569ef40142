import copy

import pytest
import torch
from torch import nn

from halonet import HaloAttention
from halonet.layers import Bottleneck


def block(stride=1, pool=False, in_channels=12, **changes):
    torch.manual_seed(2)
    mixer = HaloAttention(8, num_heads=2, block_size=4, halo_size=1, stride=1 if pool else stride)
    return Bottleneck(in_channels, 8, mixer, 8, 12, stride=stride, pool=pool, **changes)


def test_a_new_block_passes_its_input_through_the_last_activation():
    x = torch.randn(2, 12, 8, 8)
    torch.testing.assert_close(block()(x), nn.functional.silu(x))


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 2)])
def test_a_stride_of_two_halves_any_size_rounding_up(pool, size):
    rows, columns = size
    result = block(stride=2, pool=pool)(torch.randn(2, 12, rows, columns))
    assert result.shape == (2, 12, -(-rows // 2), -(-columns // 2))


def test_pooling_is_of_the_stride_one_attention():
    pooled, x = block(stride=2, pool=True).eval(), torch.randn(2, 12, 6, 5)
    pooled.expand_norm.weight.data.fill_(1.0)
    seen = {}
    pooled.mixer.register_forward_hook(lambda module, inputs, output: seen.update(mixed=output))
    pooled.mixer_norm.register_forward_hook(lambda module, inputs, output: seen.update(pooled=inputs[0]))
    pooled(x)
    assert seen["mixed"].shape == (2, 8, 6, 5)
    torch.testing.assert_close(seen["pooled"][:, :, 0, 0], seen["mixed"][:, :, :2, :2].mean((2, 3)))
    torch.testing.assert_close(seen["pooled"][:, :, 0, 2], seen["mixed"][:, :, :2, 4].mean(2))  # padding does not count


def test_the_shortcut_is_a_strided_convolution_where_shapes_change():
    assert len(block().shortcut) == 0
    assert [type(module) for module in block(in_channels=6).shortcut] == [nn.Conv2d, nn.BatchNorm2d]
    assert block(stride=2).shortcut[0].stride == (2, 2)


@pytest.mark.parametrize("excited", [None, 0.25])
def test_a_block_with_converted_norms_computes_the_same(excited):
    original = block(stride=2, squeeze_excitation=excited)
    original.expand_norm.weight.data.fill_(1.0)
    original(torch.randn(4, 12, 8, 8))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(original))
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in converted.modules()) == 4
    assert converted.state_dict().keys() == original.state_dict().keys()
    x = torch.randn(2, 12, 8, 8)
    torch.testing.assert_close(converted.eval()(x), original.eval()(x))
    torch.testing.assert_close(converted.train()(x), original.train()(x))


def test_squeeze_excitation_scales_the_branch_and_not_the_shortcut():
    excited = block(squeeze_excitation=0.25).eval()
    excited.expand_norm.weight.data.fill_(1.0)
    x = torch.randn(2, 12, 8, 8)
    captured = {}
    excited.squeeze_excitation.register_forward_hook(lambda m, inputs, output: captured.update(x=inputs[0], y=output))
    result = excited(x)
    torch.testing.assert_close(result, nn.functional.silu(captured["y"] + x))
    ratio = captured["y"] / captured["x"]
    torch.testing.assert_close(ratio.mean((2, 3), keepdim=True).expand_as(ratio), ratio, rtol=1e-4, atol=1e-4)


def test_stochastic_depth_drops_whole_samples_in_training_only():
    dropped = block(drop_path=0.5)
    dropped.expand_norm.weight.data.fill_(1.0)
    x = torch.randn(64, 12, 4, 4)
    skipped = (dropped(x) == nn.functional.silu(x)).flatten(1).all(1)
    assert 0 < skipped.sum() < 64
    dropped.eval()
    assert not (dropped(x) == nn.functional.silu(x)).flatten(1).all(1).any()
