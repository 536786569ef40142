"""The form of a network that is exported computes what the network does."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.layers.halo_attn import HaloAttn
from torch import nn
from torch.nn.utils import prune
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


@pytest.mark.parametrize(
    "options",
    [
        {"block_size": (4, 6), "halo_size": (1, 2), "scale": 0.3},
        {"block_size": (4, 6), "halo_size": (2, 1), "stride": (2, 1), "offset_stride": 1},
        {"block_size": (3, 4), "halo_size": (1, 3), "stride": (2, 5), "border": "zeros", "centered": True},
    ],
    ids=str,
)
def test_layers_with_settings_that_no_network_has(options):
    torch.manual_seed(0)
    layer = HaloAttention(16, num_heads=2, **options)
    portable = assert_same(nn.Sequential(nn.Conv2d(3, 16, 1), layer))
    assert isinstance(portable[1], PortableAttention)


def double(module: nn.Module, inputs: Any, output: Any) -> Any:
    return 2 * output


class Doubled(HaloAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


HOOKED = ["stages.0", "stages.0.0", "mixer", "mixer.qkv", "reduce_act", "pool", "mixer_norm", "shortcut", "global_pool"]
CHANGES: dict[str, Callable[[Any], object]] = {
    "another activation": lambda network: setattr(network.stages[0][0], "mixer_act", nn.GELU()),
    "a layer of one's own": lambda network: setattr(network.stages[0][0].mixer, "__class__", Doubled),
    "another forward": lambda network: setattr(network.stages[0][0], "forward", lambda x: x.mean(1, True)[:, [0] * 64]),
    "pools that do not average": lambda network: setattr(network.stages[1][0].pool, "divisor_override", 3),
    "weight norm": lambda network: nn.utils.parametrizations.weight_norm(network.stages[0][0].reduce),
    "pruning": lambda network: prune.l1_unstructured(network.stages[0][0].mixer.qkv, "weight", 0.5),
}


@pytest.mark.parametrize("name", [*HOOKED, *CHANGES])
def test_what_computes_more_than_its_weights_say_stays(name):
    torch.manual_seed(0)
    network = randomize_norms(halonet.create_model("tiny28", num_classes=5, downsampling="pool")).eval()
    if name in CHANGES:
        CHANGES[name](network)
    else:
        where = name if name.startswith(("stages", "global")) else f"stages.0.0.{name}"
        network.get_submodule(where).register_forward_hook(double)
    assert_same(network)


def test_hooks_on_a_layer_of_timm_act():
    torch.manual_seed(0)
    layer = halonet.accelerate(HaloAttn(16, block_size=4, halo_size=1, num_heads=2))
    layer.register_forward_hook(double)
    network = nn.Sequential(nn.Conv2d(3, 16, 1), layer)
    assert_same(network, [(1, 8, 8)])


def test_a_portable_network_can_be_pickled_and_copied_with_its_windows():
    portable = make_portable(create_network("tiny28"))
    for copied in (pickle.loads(pickle.dumps(portable)), copy.deepcopy(portable)):
        (forget,) = copied._forward_hooks.values()
        assert forget is copied.stages[0][0].mixer._shared


def test_the_network_itself_stays_as_it_is():
    network = create_network("tiny28").train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    make_portable(network)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
