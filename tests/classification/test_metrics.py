import math

import pytest
import torch
import torch.nn.functional as F

from halonet.classification.metrics import classification_sums, summarize, wilson_interval


def test_sums_over_batches_give_means_over_images():
    logits = torch.randn(10, 7)
    targets = torch.randint(0, 7, (10,))
    sums = classification_sums(logits[:3], targets[:3]) + classification_sums(logits[3:], targets[3:])
    ranks = (logits > logits.gather(1, targets[:, None])).sum(1)
    assert summarize(sums) == {
        "loss": pytest.approx(F.cross_entropy(logits, targets).item()),
        "top1": pytest.approx(100 * (ranks == 0).float().mean().item()),
        "top5": pytest.approx(100 * (ranks < 5).float().mean().item()),
    }


def test_accuracies_are_percent():
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert summarize(classification_sums(logits, torch.zeros(4, dtype=torch.long)))["top1"] == 75
    assert summarize(classification_sums(logits, torch.zeros(4, dtype=torch.long)))["top5"] == 100


def test_half_precision_logits_sum_exactly():
    logits = torch.full((3000, 4), 0.5, dtype=torch.bfloat16)
    sums = classification_sums(logits, torch.zeros(3000, dtype=torch.long))
    assert sums.dtype == torch.float64
    assert summarize(sums)["loss"] == pytest.approx(torch.log(torch.tensor(4.0)).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("right", "images", "expected"),
    [
        (5, 10, (23.66, 76.34)),
        (0, 10, (0.0, 27.75)),
        (10, 10, (72.25, 100.0)),
        (81, 263, (25.53, 36.62)),
    ],  # Newcombe 1998
)
def test_the_interval_of_an_accuracy_is_wilsons(right: float, images: int, expected: tuple[float, float]):
    assert wilson_interval(float(right), images) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_interval_inverts_the_normal_test(share: float):
    for bound in wilson_interval(200 * share, 200):
        assert abs(share - bound / 100) == pytest.approx(1.959964 * math.sqrt(bound / 100 * (1 - bound / 100) / 200))
