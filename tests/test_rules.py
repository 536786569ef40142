from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from halonet.complaints import RuleError
from halonet.rules import FilledText, Text, build, check_arguments, check_fields, length, one_of, within

HUGE = 10**5000  # Python refuses to print it
pytestmark = pytest.mark.usefixtures("untyped")


@dataclass(frozen=True, kw_only=True)
class Cake:
    layers: Annotated[int, within(least=1, most=20)]
    sugar: Annotated[float, within(above=0, below=1)] = 0.5
    eggs: Annotated[int, within(least=0)] | None = None
    kind: Literal["cream", "fruit"] = "cream"
    shape: Annotated[str, one_of("round", "square", "heart")] = "round"
    sides: Annotated[tuple[Annotated[float, within(most=9)], ...], length(1, 3, "sides")] = (1.0,)
    corner: tuple[int, int] = (0, 0)
    baked: bool = True
    name: Text = ""
    baker: FilledText = "me"

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layers", 0, "layers is 0, but must be from 1 to 20"),
        ("layers", True, "layers is True, but must be a whole number"),
        ("layers", 2.0, "layers is 2.0, but must be a whole number"),
        ("layers", "2", "layers is '2', but must be a whole number"),
        ("layers", None, "layers is None, but must be a whole number"),
        ("sugar", 0, "sugar is 0, but must be above 0 and below 1"),
        ("sugar", True, "sugar is True, but must be a finite number"),
        ("sugar", float("nan"), "sugar is nan, but must be a finite number"),
        ("sugar", float("-inf"), "sugar is -inf, but must be a finite number"),
        ("sugar", 10**400, "but must be a finite number"),
        pytest.param("sugar", HUGE, "sugar is a number of thousands of digits, but must be a finite number", id="huge"),
        ("eggs", -1, "eggs is -1, but must be at least 0, or null"),
        ("kind", "cheese", "kind is 'cheese', but must be cream or fruit"),
        ("kind", ["cream"], "kind is ['cream'], but must be cream or fruit"),
        ("shape", "star", "shape is 'star', but must be round, square or heart"),
        ("sides", [], "sides is [], but must be 1 to 3 sides"),
        ("sides", [1, 2, 3, 4], "but must be 1 to 3 sides"),
        ("sides", 3.0, "sides is 3.0, but must be a list"),
        ("sides", {1.0}, "sides is {1.0}, but must be a list"),
        ("sides", [1, "x"], "sides.1 is 'x', but must be a finite number"),
        ("sides", [1, 10], "sides.1 is 10, but must be at most 9"),
        ("corner", [1], "corner is [1], but must be a list of 2"),
        ("baked", 1, "baked is 1, but must be true or false"),
        ("name", 3, "name is 3, but must be text"),
        ("name", "a\0", r"name is 'a\x00', but must be at most 10,000 letters, without NUL"),
        ("name", "x" * 10_001, "xxx', but must be at most 10,000 letters"),
        ("baker", "", "baker is '', but must be text of 1 letter or more"),
    ],
)
def test_message_names_field_value_and_rule(name: str, value: Any, message: str):
    with pytest.raises(RuleError) as caught:
        Cake(**{"layers": 2} | {name: value})
    assert str(caught.value).startswith("Cake: ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


def test_lists_and_ints_are_converted():
    cake = Cake(layers=20, sides=[1, 2.5], corner=[3, 4], eggs=None)
    assert (cake.sides, cake.corner) == ((1.0, 2.5), (3, 4))
    assert [type(side) for side in cake.sides] == [float, float]
    assert hash(cake) == hash(Cake(layers=20, sides=(1.0, 2.5), corner=(3, 4)))


def test_build_names_every_mistake():
    assert build(Cake, {"layers": 1, "kind": "fruit"}) == Cake(layers=1, kind="fruit")
    assert build(Cake, Cake(layers=1)) == Cake(layers=1)
    with pytest.raises(RuleError) as caught:
        build(Cake, {"sugar": 3, "bakd": True, 7: 8})
    assert str(caught.value).splitlines() == [
        "Cake: 4 mistakes",
        "  layers is missing: add it",
        "  sugar is 3, but must be above 0 and below 1",
        "  unknown key 'bakd'. Did you mean 'baked'? Known: baked, baker, corner, eggs, kind, layers, name, shape, "
        "sides, sugar.",
        "  unknown key '7'. Known: baked, baker, corner, eggs, kind, layers, name, shape, sides, sugar.",
    ]
    with pytest.raises(RuleError, match=r"Cake: it is \[\], but must be a section with keys of its own"):
        build(Cake, [])


def test_check_arguments():
    check_arguments(layers=(3, Annotated[int, within(least=1)]))
    with pytest.raises(RuleError, match="layers is 0, but must be at least 1"):
        check_arguments(layers=(0, Annotated[int, within(least=1)]), name=("x", Text))
