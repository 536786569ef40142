from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import halonet

ROWS = {
    "relative": {},
    "values_wider": {"value_ratio": 2.0, "final_width": 48},
    "pooled": {"downsampling": "pool", "centered": True},
    "convolutions": {"convolution_stages": (1,), "squeeze_excitation_stages": (2,)},
    "patches": {"stem": "patch4x4"},
    "small_patches": {"stem": "patch2x2"},
    "absolute": {"position": "absolute"},
    "zeros": {"border": "zeros"},
}


def trained_like(**overrides: object) -> halonet.HaloNet:
    """A network whose norms matter: weights, biases and statistics all differ from where they start."""
    small = {"depths": (1, 2), "num_heads": (2, 2), "width_ratio": 0.25, "block_size": 4, "halo_size": 1}
    model = halonet.create_model("small32", num_classes=5, **(small | overrides)).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    model.train()(torch.randn(8, 3, 32, 32, dtype=torch.float64))
    return model.eval()


@pytest.mark.parametrize("name", ROWS)
def test_a_fused_network_computes_the_same(name: str) -> None:
    model = trained_like(**ROWS[name])
    images = torch.randn(2, 3, 30, 37, dtype=torch.float64)
    expected = model(images)
    fused = halonet.fuse_batch_norm(model)
    torch.testing.assert_close(fused(images), expected, rtol=1e-10, atol=1e-10)
    left = [key for key, module in fused.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert all("mixer_norm" in key for key in left)
    assert bool(left) == (name == "zeros")


def test_the_given_network_stays_as_it_is() -> None:
    model = trained_like().train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fused = halonet.fuse_batch_norm(model)
    assert model.training
    assert not fused.training
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


def test_fusing_twice_changes_nothing_more() -> None:
    once = halonet.fuse_batch_norm(trained_like())
    twice = halonet.fuse_batch_norm(once)
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    assert torch.equal(twice(images), once(images))


def test_a_network_inside_another_module_is_found() -> None:
    model = nn.Sequential(trained_like(), nn.Softmax(-1)).eval()
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(halonet.fuse_batch_norm(model)(images), model(images), rtol=1e-10, atol=1e-10)


class Adapter(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.factor = base, 1.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.base(x)


def adapt(model: nn.Module) -> None:
    for mixer in (module for module in model.modules() if isinstance(module, halonet.HaloAttention)):
        for name in [name for name, module in mixer.named_children() if isinstance(module, nn.Linear)]:
            setattr(mixer, name, Adapter(mixer.get_submodule(name)))


def change_all(change: Callable[[nn.Module], object]) -> Callable[[nn.Module], None]:
    def apply(model: nn.Module) -> None:
        for module in list(model.modules()):
            if isinstance(module, nn.Linear | nn.Conv2d):
                change(module)

    return apply


class Doubled(halonet.HaloAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


CHANGES = {
    "adapters": adapt,
    "a class of its own": lambda model: setattr(model.stages[0][0].mixer, "__class__", Doubled),
    "another forward": lambda model: setattr(model.stages[0][0].reduce, "forward", lambda x: x[:, :16]),
    "a hook on what stands between": lambda model: model.stages[0][0].pool.register_forward_hook(
        lambda *given: given[-1] + 1
    ),
    "spectral norm": change_all(parametrizations.spectral_norm),
    "a hook on norms": lambda model: [
        module.register_forward_hook(lambda *given: given[-1] + 1)
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d)
    ],
}


@pytest.mark.parametrize("name", CHANGES)
def test_norms_after_modified_layers_are_not_folded(name: str) -> None:
    model = trained_like()
    CHANGES[name](model)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = model.eval()(images)
    torch.testing.assert_close(halonet.fuse_batch_norm(model)(images), expected, rtol=1e-10, atol=1e-10)


def test_a_bias_of_the_projection_is_kept() -> None:
    model = trained_like()
    for name, module in list(model.named_modules()):
        if name.endswith(("qkv", "key_value")):
            module.bias = nn.Parameter(torch.randn(module.out_features, dtype=torch.float64))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(halonet.fuse_batch_norm(model)(images), model(images), rtol=1e-10, atol=1e-10)


def test_a_module_without_a_halonet_is_refused() -> None:
    with pytest.raises(ValueError, match="takes a HaloNet.*Linear has none"):
        halonet.fuse_batch_norm(nn.Linear(2, 2))
