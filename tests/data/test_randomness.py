import random

import numpy as np
import pytest
import torch

from halonet.data.randomness import derive_seed, isolated_random_state


def draw():
    return random.random(), np.random.normal(), torch.rand(1).item()  # noqa: NPY002


def test_seeds_are_the_same_everywhere():
    assert derive_seed(0) == 4246866556266386882
    assert derive_seed(0, 1, 2) == 3662037204992188296


def test_seeds_tell_keys_apart():
    keys = [(0,), (0, 0), (0, 1), (1, 0), (1, 12), (11, 2), (-1, 0), (112,)]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_isolated_draws_depend_only_on_the_seed():
    results = []
    for global_seed in (1, 2):
        random.seed(global_seed), np.random.seed(global_seed), torch.manual_seed(global_seed)  # noqa: NPY002
        with isolated_random_state() as seed_generators:
            seed_generators(7)
            results.append(draw())
    assert results[0] == results[1]
    with isolated_random_state() as seed_generators:
        seed_generators(8)
        others = draw()
    assert all(one != other for one, other in zip(results[0], others, strict=True))


@pytest.mark.parametrize("fails", [False, True])
def test_isolation_restores_the_global_generators(fails):
    random.seed(0), np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    draw()  # NumPy now holds the second number of a pair
    expected = [draw() for _ in range(3)]
    random.seed(0), np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    draw()
    with pytest.raises(KeyError) if fails else isolated_random_state(), isolated_random_state() as seed_generators:
        seed_generators(7)
        draw()
        if fails:
            raise KeyError
    assert [draw() for _ in range(3)] == expected
