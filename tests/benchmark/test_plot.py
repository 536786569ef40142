import pytest

from halonet.benchmark.plot import check_file, draw
from halonet.benchmark.record import Row
from halonet.errors import UserError

RATIOS = [
    Row(case, task, "cpu", {}, {"cpu": [1.0, 2.0, 3.0], "timm": [7.0, 8.0, 9.0]})
    for case in ("h1/stage1", "h1/stage2")
    for task in ("forward", "training")
]
GROWTH = [
    Row(f"{side} px", "forward", "cpu", {"unit": "pixel", "units": side * side}, {"cpu": [1.0, 2.0, 3.0]})
    for side in (128, 256)
]


@pytest.mark.parametrize("rows", [RATIOS, GROWTH], ids=["ratios", "growth"])
def test_the_same_rows_are_drawn_with_the_same_names(rows, tmp_path):
    for name in ("first.svg", "picture.png"):
        check_file(tmp_path / name)
        draw(rows, tmp_path / name)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert b"dc:date" not in (tmp_path / "first.svg").read_bytes()


@pytest.mark.parametrize(("name", "message"), [("a.gif", "must end in one of .png"), ("no/a.png", "no folder")])
def test_a_file_that_cannot_be_drawn_is_refused(name, message, tmp_path):
    with pytest.raises(UserError, match=message):
        check_file(tmp_path / name)
