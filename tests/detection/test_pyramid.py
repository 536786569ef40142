import pytest
import torch
from torch import nn

import halonet
from halonet.detection.pyramid import Pyramid


def body(**changes):
    torch.manual_seed(0)
    return halonet.create_model("tiny28", num_classes=3, in_chans=3, **changes)


def randomize(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


@pytest.mark.parametrize("size", [(64, 96), (37, 61)])
def test_levels_have_their_width_and_reduction(size):
    pyramid = Pyramid(body(), 16).eval()
    levels = pyramid(torch.rand(2, 3, *size))
    assert list(levels) == ["0", "1", "pool"]
    assert pyramid.reductions == (2, 4, 8)
    for features, reduction in zip(levels.values(), pyramid.reductions, strict=True):
        assert features.shape == (2, 16, -(-size[0] // reduction), -(-size[1] // reduction))


def test_the_maps_match_a_pyramid_by_hand():
    network = randomize(body()).eval()
    images = torch.rand(1, 3, 32, 40)
    first, second = network.forward_intermediates(images, [1, 2], intermediates_only=True)
    pyramid = Pyramid(network, 8).eval()
    inner = [block(each) for block, each in zip(pyramid.pyramid.inner_blocks, (first, second), strict=True)]
    doubled = nn.functional.interpolate(inner[1], size=inner[0].shape[-2:], mode="nearest")
    fine = pyramid.pyramid.layer_blocks[0](inner[0] + doubled)
    coarse = pyramid.pyramid.layer_blocks[1](inner[1])
    levels = pyramid(images)
    torch.testing.assert_close(levels["0"], fine)
    torch.testing.assert_close(levels["1"], coarse)
    torch.testing.assert_close(levels["pool"], coarse[:, :, ::2, ::2])


def step(pyramid):
    before = {name: tensor.clone() for name, tensor in pyramid.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in pyramid.parameters() if p.requires_grad], lr=0.1)
    sum(features.square().mean() for features in pyramid(torch.rand(2, 3, 32, 32)).values()).backward()
    optimizer.step()
    return {name for name, tensor in pyramid.state_dict().items() if not torch.equal(tensor, before[name])}


def test_frozen_batch_norm_does_not_learn():
    pyramid = Pyramid(randomize(body()), 8, frozen_batch_norm=True).train()
    changed = step(pyramid)
    norms = {name for name, module in pyramid.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert not [name for name in changed if name.rpartition(".")[0] in norms]
    assert "body.stem.conv.weight" in changed
    assert any(name.endswith("mixer.row_embedding") for name in changed)


def test_frozen_stages_do_not_learn():
    pyramid = Pyramid(randomize(body()), 8, frozen_stages=1).train()
    changed = step(pyramid)
    assert not [name for name in changed if name.startswith(("body.stem", "body.stages.0"))]
    assert [name for name in changed if name.startswith("body.stages.1") and "running_mean" in name]


def test_without_freezing_everything_learns():
    pyramid = Pyramid(randomize(body()), 8).train()
    assert {name for name, _ in pyramid.named_parameters()} <= step(pyramid)
