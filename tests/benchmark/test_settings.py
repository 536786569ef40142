import pytest
import torch

from halonet.benchmark.settings import Settings, find_device
from halonet.errors import UserError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch is 0, but must be from 1 to"),
        ({"repeats": 1}, "repeats is 1, but must be from 2 to 1,000,000"),
        ({"threads": 0}, "threads is 0, but must be"),
        ({"dtype": "float31"}, "dtype is 'float31', but must be float64, float32"),
        ({"device": "abacus"}, "--device 'abacus' is not available"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        Settings(**{"threads": 1} | change)


def test_auto_takes_the_accelerator_if_there_is_one():
    assert (find_device("auto") == "cpu") == (not torch.accelerator.is_available())
    assert find_device("meta") == "meta"
