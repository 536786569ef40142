from halonet.benchmark.record import Row
from halonet.benchmark.table import format_rows


def test_a_table_shows_ratios_bounds_and_what_is_absent():
    row = Row(
        case="h1/stage1",
        task="forward",
        baseline="cpu",
        facts={},
        milliseconds={"cpu": [1.0, 2.0, 3.0], "timm": [7.0, 8.0, 9.0]},
        bounds={"cpu": 1.0},
        mebibytes={"cpu": 4.0, "timm": 220.0},
        absent={"natten": "it is not installed"},
    )
    head, ours, theirs, absent = format_rows([row]).splitlines()
    assert " ".join(head.split()) == "case pass implementation ms quartiles times ours of its bound MiB MiB, times ours"
    assert " ".join(ours.split()) == "h1/stage1 forward cpu 2.00 1.00-3.00 1.00 x 50 % 4.0 1.00 x"
    assert " ".join(theirs.split()) == "h1/stage1 forward timm 8.00 7.00-9.00 4.00 x 220.0 55.00 x"
    assert absent == "left out of h1/stage1, forward: natten: it is not installed"


def test_growth_is_time_per_unit_relative_to_the_first():
    rows = [
        Row("small", "forward", "cpu", {"unit": "pixel", "units": 10}, {"cpu": [1.0, 1.0, 1.0]}),
        Row("large", "forward", "cpu", {"unit": "pixel", "units": 100}, {"cpu": [11.0, 11.0, 11.0]}),
    ]
    head, small, large = format_rows(rows).splitlines()
    assert "per pixel" in head
    assert small.endswith("1.00")
    assert large.endswith("1.10")


def test_empty_columns_are_left_out():
    row = Row("256 px", "training", "h1", {}, mebibytes={"h1": 100.0, "timm/halonet_h1": 400.0})
    head, _, theirs = format_rows([row]).splitlines()
    assert " ".join(head.split()) == "case pass implementation MiB MiB, times ours"
    assert theirs.endswith("4.00 x")
