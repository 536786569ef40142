import dataclasses
import types

import pytest
import torch

from halonet.benchmark.contestants import (
    CONTESTANTS,
    DEFAULT_PEERS,
    OURS,
    disagreement,
    find_peers,
    make_inputs,
    relative_error,
)
from halonet.errors import UserError
from tests.benchmark.tiny import SETTINGS, SIZE


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_rounding_is_no_disagreement_and_a_percent_of_a_wrong_pixel_is(dtype):
    right = torch.randn(4, 100, dtype=torch.float64)
    assert disagreement(right.to(dtype), right.to(dtype)) is None
    wrong = right.clone()
    wrong[0] *= 2
    assert "relative error" in str(disagreement(wrong.to(dtype), right.to(dtype)))


def test_what_is_not_a_number_disagrees():
    right = torch.ones(2)
    assert disagreement(right * torch.nan, right) is not None


def test_another_shape_disagrees():
    assert disagreement(torch.ones(2), torch.ones(3)) == "it gives shape [2], not [3]"


@pytest.mark.parametrize(("device", "own"), [("cpu", "cpu"), ("cuda", "triton"), ("cuda:1", "triton")])
def test_our_kernel_is_raced_with_all_but_the_specification_or_with_whom_is_named(device, own):
    assert find_peers(None, device) == [own, *DEFAULT_PEERS]
    assert not {"reference", "cpu", "triton"} & set(DEFAULT_PEERS)
    assert find_peers(["reference", "timm"], device) == [own, "reference", "timm"]
    assert set(DEFAULT_PEERS) < set(CONTESTANTS)


def test_a_device_without_a_kernel_of_ours_is_left_to_plain_pytorch():
    assert find_peers(["timm"], "xpu") == ["composite", "timm"]


def test_numbers_are_drawn_on_the_device(monkeypatch):
    asked = []
    unseeded = types.SimpleNamespace(manual_seed=lambda number: None)
    monkeypatch.setattr(torch, "Generator", lambda device: asked.append(device) or unseeded)
    inputs = make_inputs(SIZE, dataclasses.replace(SETTINGS, device="meta", dtype="bfloat16"))
    assert asked == ["meta"]
    for each in (inputs.query, inputs.key, inputs.value, *inputs.tables):
        assert each.is_meta
        assert each.dtype == torch.bfloat16


def test_ratios_are_over_the_fused_kernel_of_the_device():
    assert list(OURS) == ["cpu", "triton", "composite", "reference"]


def test_a_tolerance_that_is_given_is_the_one_that_counts():
    right = torch.ones(100, dtype=torch.float64)
    assert relative_error(1.01 * right, right) == pytest.approx(0.01)
    assert disagreement(1.01 * right, right, 0.011) is None
    assert "relative error 1.0e-02" in str(disagreement(1.01 * right, right, 0.009))


@pytest.mark.parametrize("name", ["tim", "pooled"])
def test_an_unknown_peer_is_refused(name):
    with pytest.raises(UserError, match=f"unknown peer '{name}'"):
        find_peers([name], "cpu")
