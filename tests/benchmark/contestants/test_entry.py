import pytest
import torch

from halonet.benchmark.contestants import CONTESTANTS, DEFAULT_PEERS, disagreement, find_peers
from halonet.errors import UserError


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


def test_cpu_is_raced_with_all_but_the_specification_or_with_whom_is_named():
    assert find_peers(None) == ["cpu", *DEFAULT_PEERS]
    assert "reference" not in find_peers(None)
    assert find_peers(["reference", "timm"]) == ["cpu", "reference", "timm"]
    assert set(DEFAULT_PEERS) < set(CONTESTANTS)


@pytest.mark.parametrize("name", ["tim", "pooled"])
def test_an_unknown_peer_is_refused(name):
    with pytest.raises(UserError, match=f"unknown peer '{name}'"):
        find_peers([name])
