import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from halonet.engine.ema import _Average


def average_of(values: list[float], decay: float) -> float:
    model = nn.BatchNorm1d(1)
    average = AveragedModel(model, multi_avg_fn=_Average(decay), use_buffers=True)
    for value in values:
        nn.init.constant_(model.weight, value)
        model.running_mean.fill_(value)
        average.update_parameters(model)
    assert torch.equal(average.module.weight, average.module.running_mean)
    return average.module.weight.item()


@pytest.mark.parametrize("length", [2, 5, 40])
def test_the_average_forgets_faster_at_first(length: int):
    values = [float(number) for number in range(length)]
    expected = values[0]
    for updates, value in enumerate(values[1:], 1):
        keep = min(0.6, (1 + updates) / (10 + updates))
        expected = keep * expected + (1 - keep) * value
    assert abs(average_of(values, 0.6) - expected) < 1e-4


def test_the_first_update_copies():
    assert average_of([3.0], 0.999) == 3.0
