import pytest

from halonet.engine.sampler import EpochSampler


def batches(sampler: EpochSampler) -> list[list[tuple[int, int]]]:
    pairs = list(sampler)
    return [pairs[start : start + sampler.batch_size] for start in range(0, len(pairs), sampler.batch_size)]


def test_an_epoch_visits_each_image_once():
    pairs = list(EpochSampler(50, 8, seed=1, epoch=3))
    assert {epoch for epoch, _ in pairs} == {3}
    indices = [index for _, index in pairs]
    assert len(indices) == len(set(indices)) == 48
    assert set(indices) < set(range(50))


def test_the_order_depends_on_seed_and_epoch_alone():
    order = list(EpochSampler(50, 8, seed=1))
    assert order == list(EpochSampler(50, 8, seed=1))
    assert order != list(EpochSampler(50, 8, seed=2))
    assert [index for _, index in order] != [index for _, index in EpochSampler(50, 8, seed=1, epoch=1)]
    assert [index for _, index in order] != sorted(index for _, index in order)


@pytest.mark.parametrize("first_batch", [0, 1, 5, 6])
def test_a_later_start_yields_the_rest_of_the_epoch(first_batch: int):
    whole = batches(EpochSampler(50, 8, seed=1, epoch=2))
    assert batches(EpochSampler(50, 8, seed=1, epoch=2, first_batch=first_batch)) == whole[first_batch:]


def test_the_length_is_that_of_a_full_epoch():
    assert len(EpochSampler(50, 8, first_batch=5)) == 48
    assert len(EpochSampler(50, 8, world_size=2, rank=1)) == 24


def test_the_next_epoch_begins_at_its_first_batch():
    sampler = EpochSampler(50, 8, seed=1, epoch=2, first_batch=4)
    sampler.set_epoch(2)
    assert len(batches(sampler)) == 2
    assert len(batches(sampler)) == 2
    sampler.set_epoch(3)
    assert batches(sampler) == batches(EpochSampler(50, 8, seed=1, epoch=3))


@pytest.mark.parametrize(("world_size", "micro_batches"), [(2, 1), (1, 2), (4, 2)])
def test_ranks_and_micro_batches_divide_the_global_batch(world_size: int, micro_batches: int):
    whole = batches(EpochSampler(50, 8, seed=1))
    shares = [
        batches(EpochSampler(50, 8, seed=1, micro_batches=micro_batches, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    together = [
        [pair for micro in range(micro_batches) for share in shares for pair in share[step * micro_batches + micro]]
        for step in range(len(whole))
    ]
    assert together == whole


def test_an_impossible_batch_is_refused():
    with pytest.raises(ValueError, match="8 images cannot be split evenly into 3 micro-batches over 1 processes"):
        EpochSampler(50, 8, micro_batches=3)
    with pytest.raises(ValueError, match="8 images cannot be filled from 7"):
        EpochSampler(7, 8)
