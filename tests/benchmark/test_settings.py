import pytest
import torch

from halonet.benchmark.settings import Settings, find_device
from halonet.errors import UserError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "--batch is 0; it must be at least 1"),
        ({"repeats": 1}, "--repeats is 1; it must be at least 2"),
        ({"threads": 0}, "--threads is 0"),
        ({"dtype": "float31"}, "unknown dtype 'float31'. Did you mean 'float"),
        ({"device": "abacus"}, "--device 'abacus' is not here"),
    ],
)
def test_what_cannot_be_run_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        Settings(**{"threads": 1} | change)


def test_auto_takes_the_accelerator_if_there_is_one():
    assert (find_device("auto") == "cpu") == (not torch.accelerator.is_available())
    assert find_device("meta") == "meta"
