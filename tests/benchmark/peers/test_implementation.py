import dataclasses
import types

import pytest
import torch

from halonet.benchmark.peers import (
    DEFAULT_PEERS,
    IMPLEMENTATIONS,
    OURS,
    disagreement,
    find_peers,
    make_inputs,
    relative_error,
)
from halonet.errors import UserError
from tests.benchmark.tiny import SETTINGS, SIZE


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_rounding_agrees_and_a_wrong_pixel_does_not(dtype):
    right = torch.randn(4, 100, dtype=torch.float64)
    assert disagreement(right.to(dtype), right.to(dtype)) is None
    wrong = right.clone()
    wrong[0] *= 2
    assert "relative error" in str(disagreement(wrong.to(dtype), right.to(dtype)))


def test_a_nan_disagrees():
    right = torch.ones(2)
    assert disagreement(right * torch.nan, right) is not None


def test_another_shape_disagrees():
    assert disagreement(torch.ones(2), torch.ones(3)) == "it gives shape [2], not [3]"


@pytest.mark.parametrize(("device", "own"), [("cpu", "cpu"), ("cuda", "triton"), ("cuda:1", "triton")])
def test_our_backend_is_compared_with_default_or_named_peers(device, own):
    assert find_peers(None, device) == [own, *DEFAULT_PEERS]
    assert not {"reference", "cpu", "triton"} & set(DEFAULT_PEERS)
    assert find_peers(["reference", "timm"], device) == [own, "reference", "timm"]
    assert set(DEFAULT_PEERS) < set(IMPLEMENTATIONS)


def test_a_device_without_a_fused_backend_takes_composite():
    assert find_peers(["timm"], "xpu") == ["composite", "timm"]


def test_inputs_are_drawn_on_the_device(monkeypatch):
    asked = []
    unseeded = types.SimpleNamespace(manual_seed=lambda number: None)
    monkeypatch.setattr(torch, "Generator", lambda device: asked.append(device) or unseeded)
    inputs = make_inputs(SIZE, dataclasses.replace(SETTINGS, device="meta", dtype="bfloat16"))
    assert asked == ["meta"]
    for each in (inputs.query, inputs.key, inputs.value, *inputs.tables):
        assert each.is_meta
        assert each.dtype == torch.bfloat16


def test_ratios_are_over_the_fused_backend():
    assert list(OURS) == ["cpu", "triton", "composite", "reference"]


def test_a_given_tolerance_is_used():
    right = torch.ones(100, dtype=torch.float64)
    assert relative_error(1.01 * right, right) == pytest.approx(0.01)
    assert disagreement(1.01 * right, right, 0.011) is None
    assert "relative error 1.0e-02" in str(disagreement(1.01 * right, right, 0.009))


@pytest.mark.parametrize("name", ["tim", "pooled"])
def test_an_unknown_peer_is_refused(name):
    with pytest.raises(UserError, match=f"unknown peer '{name}'"):
        find_peers([name], "cpu")
