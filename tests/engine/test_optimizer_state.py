"""Optimizer states from before strided layers had separate projections."""

import copy

import pytest
import torch
from torch import Tensor, nn

import halonet
from halonet.engine.optimizer_state import accept_joined_projections
from halonet.ops.attention.packed import Packed


class JoinedAttention(halonet.HaloAttention):
    """The old layer, with one matrix at every stride."""

    def __init__(self, *arguments: int, **options: int) -> None:
        super().__init__(*arguments, **options)
        if self.stride != (1, 1):
            weight = torch.cat([self.query.weight, self.key_value.weight])
            del self.query, self.key_value
            self.qkv = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            self.qkv.weight = nn.Parameter(weight.detach())

    def _project(self, x: Tensor) -> Packed:
        if self.stride == (1, 1):
            return super()._project(x)
        channels = self.query_key_channels, self.query_key_channels + self.value_channels
        query, key_value = self.qkv(x.permute(0, 2, 3, 1)).split(channels, -1)
        query = query[:, :: self.stride[0], :: self.stride[1]].unflatten(-1, (self.num_heads, -1))
        return Packed(key_value, query, self.num_heads, self.query_key_channels, self.value_channels)


def network(kind: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(3)
    options = {"num_heads": 2, "block_size": 4, "halo_size": 1}
    layers = nn.Conv2d(3, 8, 3), kind(8, **options), kind(8, stride=2, **options), nn.Conv2d(8, 4, 1)
    return nn.Sequential(*layers).double()


def make_optimizer(model: nn.Module, name: str) -> torch.optim.Optimizer:
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others}]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=0.01)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> float:
    torch.manual_seed(seed)
    optimizer.zero_grad()
    loss = model(torch.randn(4, 3, 10, 10, dtype=torch.float64)).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_old_run_continues_unchanged(name: str) -> None:
    old = network(JoinedAttention)
    old_optimizer = make_optimizer(old, name)
    for seed in range(3):
        step(old, old_optimizer, seed)
    new = network(halonet.HaloAttention)
    new.load_state_dict(old.state_dict())
    optimizer = make_optimizer(new, name)
    accept_joined_projections(optimizer, new)
    saved = copy.deepcopy(old_optimizer.state_dict())
    optimizer.load_state_dict(saved)
    assert saved["param_groups"] == old_optimizer.state_dict()["param_groups"], "what was given is not changed"
    for seed in range(3, 7):
        assert step(new, optimizer, seed) == pytest.approx(step(old, old_optimizer, seed), rel=1e-9)


def test_current_states_load_unchanged() -> None:
    model = network(halonet.HaloAttention)
    optimizer = make_optimizer(model, "sgd")
    accept_joined_projections(optimizer, model)
    step(model, optimizer, 0)
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(saved)
    torch.testing.assert_close(optimizer.state_dict(), saved)


def test_the_state_of_another_network_is_refused() -> None:
    model, other = network(halonet.HaloAttention), nn.Linear(2, 2)
    optimizer = make_optimizer(model, "sgd")
    accept_joined_projections(optimizer, model)
    with pytest.raises(ValueError, match="parameter group"):
        optimizer.load_state_dict(make_optimizer(other, "sgd").state_dict())
