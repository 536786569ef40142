import dataclasses
import pickle
from typing import Annotated, Any, Literal

import pytest

from halonet.complaints import RuleError
from halonet.rules import Count, Probability, Text, check_fields, check_together, within
from halonet.schemas import Plain, check, record

pytestmark = pytest.mark.usefixtures("untyped")


@dataclasses.dataclass(frozen=True)
class Oven:
    degrees: Annotated[int, within(least=50, most=300)]

    def __post_init__(self) -> None:
        check_fields(self)


@record
class Cake:
    layers: Count
    sugar: tuple[Probability, ...] = (0.5,)
    corner: tuple[float, float] = (0.0, 1.0)
    kind: Literal["cream", "fruit"] = "cream"
    name: Text | None = None
    baked: bool = True

    def __post_init__(self) -> None:
        check_together(self, {"corner": (self.corner[0] <= self.corner[1], "two numbers, the smaller one first")})


@record
class Party:
    cake: Cake
    oven: Annotated[Oven, Plain()] = Oven(200)
    others: dict[str, Cake] = dataclasses.field(default_factory=dict)
    notes: tuple[Cake, ...] = ()


def complaints(values: Any) -> list[str]:
    with pytest.raises(RuleError) as caught:
        check(Party, values, "party.yaml")
    first, *others = str(caught.value).splitlines()
    return [first.removeprefix("party.yaml: ")] if not others else [line.strip() for line in others]


def test_check_names_every_mistake():
    wrong = {"layers": True, "sugar": [2], "corner": [1], "kind": "cheese", "name": 3, "baked": 1, "suger": 0}
    assert complaints({"cake": wrong, "oven": {"degrees": 10**9}, "others": {"x": {"layers": 0, "y": 1}}}) == [
        "cake.layers is True, but must be a whole number",
        "cake.sugar.0 is 2, but must be from 0 to 1",
        "cake.corner is (1,), but must be a longer list",
        "cake.kind is 'cheese', but must be cream or fruit",
        "cake.name is 3, but must be text",
        "cake.baked is 1, but must be true or false",
        "unknown key 'cake.suger'. Did you mean 'cake.sugar'? Known: cake.baked, cake.corner, cake.kind, cake.layers, "
        "cake.name, cake.sugar.",
        "oven.degrees is 1000000000, but must be from 50 to 300",
        "others.x.layers is 0, but must be from 1 to 1,000,000,000",
        "unknown key 'others.x.y'. Known: others.x.baked, others.x.corner, others.x.kind, others.x.layers, "
        "others.x.name, others.x.sugar.",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "cake is missing: add it"),
        ({"cake": 3}, "cake is 3, but must be a section with keys of its own"),
        ({"cake": {"layers": 1, "sugar": [float("nan")]}}, "cake.sugar.0 is nan, but must be a finite number"),
        ({"cake": {"layers": 1, "sugar": {0.5}}}, "cake.sugar is {0.5}, but must be a list"),
        ({"cake": {"layers": 1, "corner": [1, 2, 3]}}, "cake.corner is (1, 2, 3), but must be a shorter list"),
        ({"cake": {"layers": 1, "corner": [2, 1]}}, "cake.corner is (2.0, 1.0), but must be two numbers, the smaller"),
        ({"cake": {"layers": 1, 7: 8}}, "cake.7 is not a key: keys are text"),
        ({"cake": {"layers": "1"}}, "cake.layers is '1', but must be a whole number"),
        ({"cake": {"layers": 1.0}}, "cake.layers is 1.0, but must be a whole number"),
        ({"cake": {"layers": 1}, "oven": {"degree": 100}}, "oven.degrees is missing: add it"),
        ({"cake": {"layers": 1}, "notes": [{"layers": 0}]}, "notes.0.layers is 0, but must be from 1"),
        ({"cake": {"layers": 1}, "notes": [{"layers": 1, "x": 1}]}, "unknown key 'notes.0.x'"),
        ([], "it is [], but must be a section with keys of its own"),
    ],
)
def test_message_names_key_and_rule(values: Any, message: str):
    assert any(line.startswith(message) for line in complaints(values))


def test_lists_ints_and_sections_are_converted():
    party = check(Party, {"cake": {"layers": 2, "sugar": [1, 0]}, "oven": {"degrees": 50}}, "party.yaml")
    assert party == Party(cake=Cake(layers=2, sugar=(1.0, 0.0)), oven=Oven(50))
    assert [type(part) for part in party.cake.sugar] == [float, float]


def test_record_is_a_frozen_dataclass():
    cake = Cake(layers=2)
    assert dataclasses.replace(cake, layers=3) == Cake(layers=3)
    assert dataclasses.asdict(Party(cake=cake))["cake"]["layers"] == 2
    assert [field.name for field in dataclasses.fields(Cake)][:2] == ["layers", "sugar"]
    assert pickle.loads(pickle.dumps(cake)) == cake
    assert hash(cake) == hash(Cake(layers=2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        cake.layers = 3  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(RuleError, match=r"Cake: layers is 0, but must be from 1 to 1,000,000,000"):
        dataclasses.replace(cake, layers=0)
