import dataclasses

import pytest

from halonet.benchmark import operator
from halonet.benchmark.peak import Peak
from halonet.benchmark.peers import IMPLEMENTATIONS, make_inputs
from halonet.benchmark.settings import check_names
from halonet.benchmark.sizes import SIZES
from halonet.errors import UserError
from tests.benchmark.tiny import SETTINGS, SIZE

PEAK = Peak(1e9, 1e8)
CASE = operator.Case("tiny", SIZE, 2)


def rows_of(cases, names, tasks=operator.TASKS):
    return list(operator.measure(cases, names, list(tasks), SETTINGS, PEAK, memory=False))


def test_a_row_has_the_times_and_bounds_of_all_that_run():
    forward, training = rows_of([CASE], ["composite", "timm"])
    assert (forward.task, training.task) == ("forward", "training")
    for row in (forward, training):
        assert set(row.milliseconds) == set(row.bounds) == {"composite", "timm"}
        assert row.baseline == "composite"
        assert row.facts["block"] == SIZE.block
        assert row.absent == {}
    assert training.bounds["timm"] > 2 * forward.bounds["timm"]


def test_the_bound_of_an_accelerator_counts_bytes_of_the_dtype():
    slow_memory = Peak(1e18, 1e18, 1.0)
    forward = {
        dtype: next(
            operator.measure(
                [CASE],
                ["composite"],
                ["forward"],
                dataclasses.replace(SETTINGS, dtype=dtype),
                slow_memory,
                memory=False,
            )
        ).bounds["composite"]
        for dtype in ("float32", "bfloat16")
    }
    assert forward["float32"] == 1e3 * 4 * 4 * 2 * 12 * 12 * 2 * 16
    assert forward["bfloat16"] == forward["float32"] / 2


@pytest.fixture
def plant(monkeypatch):
    def plant(name, **change):
        monkeypatch.setitem(IMPLEMENTATIONS, name, dataclasses.replace(IMPLEMENTATIONS[name], **change))

    return plant


def test_an_implementation_with_wrong_results_is_left_out(plant):
    def prepare(inputs):
        prepared = IMPLEMENTATIONS["composite"].prepare(inputs)
        return dataclasses.replace(prepared, compare=lambda: (1.001 * prepared.run(), prepared.run()))

    plant("timm", prepare=prepare)
    (row,) = rows_of([CASE], ["composite", "timm"], ["forward"])
    assert set(row.milliseconds) == {"composite"}
    assert "it computes something else: relative error 1.0e-03" in row.absent["timm"]


def test_the_error_of_a_peer_is_its_reason(plant):
    def prepare(inputs):
        raise RuntimeError("out of luck\nand more")

    plant("timm", prepare=prepare)
    (row,) = rows_of([CASE], ["composite", "timm"], ["forward"])
    assert row.absent == {"timm": "RuntimeError: out of luck"}


def test_a_backward_pass_without_all_gradients_is_left_out(plant):
    def prepare(inputs):
        prepared = IMPLEMENTATIONS["composite"].prepare(inputs)
        return dataclasses.replace(prepared, leaves=[*prepared.leaves, inputs.query.detach().clone().requires_grad_()])

    plant("timm", prepare=prepare)
    forward, training = rows_of([CASE], ["composite", "timm"])
    assert "timm" in forward.milliseconds
    assert training.absent == {"timm": "its backward pass does not give all gradients"}


def test_a_row_that_nothing_can_run_lists_the_reasons():
    odd = operator.Case("odd", dataclasses.replace(SIZE, rows=13), 1)
    (row,) = rows_of([odd], ["timm"], ["forward"])
    assert row.milliseconds == {}
    assert row.absent == {"timm": "it needs maps that blocks of 4 divide"}


def test_images_of_every_side_come_in_batches_of_as_many_pixels():
    cases = operator.scaling_cases("image", batch=4)
    assert [case.facts["image_side"] for case in cases] == [128, 256, 512, 1024, 2048]
    for case in cases:
        assert case.batch * case.size.rows * case.size.columns == case.facts["units"] == 512 * 512
        assert dataclasses.replace(case.size, rows=64, columns=64) == SIZES["h1/stage1"]


def test_windows_of_every_block_and_halo_are_measured_by_their_pairs():
    cases = operator.scaling_cases("window", batch=4)
    assert {(case.size.block, case.size.halo) for case in cases} == {
        (b, h) for b in (4, 8, 16, 32) for h in range(1, 5)
    }
    whole = dataclasses.replace(cases[0], size=dataclasses.replace(SIZE, halo=0))
    assert whole.size.geometry.rows.window == 4
    assert all(case.facts["unit"] == "pair" for case in cases)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="unknown scaling 'images'. Did you mean 'image'"):
        operator.scaling_cases("images", 1)
    with pytest.raises(UserError, match="unknown pass 'trainig'. Did you mean 'training'"):
        check_names("pass", ["trainig"], operator.TASKS)
    assert check_names("pass", None, operator.TASKS) == ["forward", "training"]


@pytest.mark.parametrize("compare", operator.COMPARISONS)
def test_both_sides_of_a_comparison_run_at_its_sizes(compare):
    names, sizes = operator.COMPARISONS[compare]
    size = dataclasses.replace(SIZES[sizes[0]], rows=16, columns=16)
    (row,) = rows_of([operator.Case("tiny", size, 1)], names, ["training"])
    assert list(row.milliseconds) == names
    assert row.baseline == names[0]
    assert row.absent == {}


def test_a_pass_is_prepared_for_the_process_that_measures_memory():
    step = operator.prepare(SETTINGS, size=vars(SIZE), name="timm", training=True)
    assert step() is None


def test_inputs_are_the_same_each_time():
    first, second = (make_inputs(SIZE, SETTINGS) for _ in range(2))
    assert (first.query == second.query).all()
    assert first.query.shape == (2, 12, 12, 2, 16)
