"""The form of a network that is exported computes what the network does."""

from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import halonet
from halonet.benchmark.networks import create_network, randomize_norms
from halonet.export import make_portable
from halonet.export.portable import PortableAttention, PortableStage
from halonet.layers import HaloAttention

SIZES = [(1, 1, 1), (2, 2, 3), (1, 30, 17), (2, 47, 30)]
VARIANTS: dict[str, dict[str, Any]] = {
    "tiny28": {},
    "queries at changing places": {"block_size": 3},
    "one query for several blocks": {"block_size": 1, "halo_size": 2},
    "zeros at the border": {"border": "zeros", "embedding": "full"},
    "no positions": {"position": "none", "centered": True},
    "absolute positions": {"position": "absolute"},
    "values wider than keys": {"value_ratio": 2.0},
    "convolutions": {"convolution_stages": (1,), "squeeze_excitation_stages": (1, 2)},
    "pooling": {"downsampling": "pool"},
    "patches": {"stem": "patch4x4", "final_width": 24},
    "maps": {"global_pool": "", "num_classes": 0},
}


def assert_same(network: nn.Module, sizes: Any = SIZES) -> nn.Module:
    network.eval()
    portable = make_portable(network)
    for batch, *size in sizes:
        image = torch.randn(batch, 3, *size)
        with torch.no_grad():
            assert_close(portable(image), network(image), atol=1e-5, rtol=1e-4)
    return portable


@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
def test_every_kind_of_network_has_a_portable_form(overrides):
    torch.manual_seed(0)
    options = {"num_classes": 5, "depths": (1, 2), "num_heads": (2, 4)} | overrides
    portable = assert_same(randomize_norms(halonet.create_model("tiny28", **options)))
    assert not [module for module in portable.modules() if isinstance(module, HaloAttention | nn.BatchNorm2d)] or (
        "border" in overrides  # whose norms stay
    )


def test_feature_extractors_have_a_portable_form():
    torch.manual_seed(0)
    assert_same(randomize_norms(halonet.create_model("mini32", features_only=True)))


def test_stages_of_attention_work_on_pixels():
    portable = make_portable(create_network("micro32"))
    assert [type(stage) for stage in portable.stages] == [PortableStage] * 3


def test_networks_of_timm_have_a_portable_form():
    torch.manual_seed(0)
    network = halonet.accelerate(randomize_norms(timm.create_model("halonet26t", num_classes=5)))
    portable = assert_same(network, [(1, 64, 64), (1, 96, 70)])
    assert sum(isinstance(module, PortableAttention) for module in portable.modules()) == 3


def test_what_computes_more_than_its_weights_say_stays():
    torch.manual_seed(0)
    network = randomize_norms(halonet.create_model("tiny28", num_classes=5))
    network.stages[0][0].mixer.qkv.register_forward_hook(lambda module, inputs, output: 2 * output)
    portable = assert_same(network)
    assert isinstance(portable.stages[0][0].mixer, HaloAttention)
    assert isinstance(portable.stages[1], PortableStage)


def test_the_network_itself_stays_as_it_is():
    network = create_network("tiny28").train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    make_portable(network)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
