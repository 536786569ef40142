"""The plan: which rows are trained, with which seeds, and the results that the paper leads us to expect."""

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from halonet.classification.recipe import Recipe
from halonet.errors import UserError, unknown_name
from halonet.recipes.load import derive
from halonet.recipes.yaml_text import parse_yaml, read_text
from halonet.rules import FilledText, within
from halonet.schemas import check, record

PLAN = resources.files("halonet.benchmark.claims") / "plan.yaml"
Seeds = Annotated[int, within(least=3, most=10_000)]
Minutes = Annotated[float, within(above=0)]
Effect = Literal["higher", "lower", "none"]
Measure = Literal["top1", "changed_by_shifts", "lost_by_shifts"]
EFFECTS: tuple[str, ...] = get_args(Effect)


@dataclass(frozen=True)
class Row:
    """A recipe that is trained with the seeds from 0 to num_seeds - 1.

    Attributes:
        base: The row that it differs from.
        changes: The differences, by the recipe's dotted keys.
        recipe: With seed 0 and without the folder of the data.
        minutes: Process time of one run on one thread, if it was measured.
    """

    name: str
    base: str | None
    changes: dict[str, Any]
    recipe: Recipe
    num_seeds: int
    minutes: float | None


@record
class Comparison:
    """A row against its base: the effect that we expect from what the paper found.

    The measure is "top1" (accuracy on the test images), "changed_by_shifts" (share of predictions that shifts change)
    or "lost_by_shifts" (points of accuracy that shifts cost).
    """

    row: FilledText
    base: FilledText
    effect: Effect
    paper: FilledText
    measure: Measure = "top1"


@dataclass(frozen=True)
class Contrast:
    """A difference of differences of test accuracy, (a - b) - (c - d), of four rows."""

    name: str
    rows: tuple[str, str, str, str]
    effect: Effect
    paper: str


@dataclass(frozen=True)
class Claim:
    """A claim of the paper; `rows` are the names of those that it adds to the bases."""

    name: str
    title: str
    source: str
    rows: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True)
class Plan:
    """The whole plan: `rows` and `claims` in the order in which they are trained.

    Attributes:
        variant: The variant of the data set that all rows are trained on.
        bases: Names of the rows that others are compared with.
        absent: Claims of the paper that are not tested, and why.
        notes: What else a reader of the results must know, such as that the code changed between records.
    """

    variant: str
    bases: tuple[str, ...]
    rows: dict[str, Row]
    claims: tuple[Claim, ...]
    absent: tuple[str, ...]
    notes: tuple[str, ...]

    def pairs(self) -> list[tuple[Row, int]]:
        """Rows and seeds in the order in which they are trained: bases first, then claim by claim."""
        return [(row, seed) for row in self.rows.values() for seed in range(row.num_seeds)]


def read_plan(path: Path | None = None) -> Plan:
    """Read a plan from a YAML file, or the package's; raise a `UserError` that names the keys that break rules."""
    text = read_text(PLAN if path is None else path, "the plan of claims" if path is None else f"plan {path}")
    source = "the plan of claims" if path is None else str(path)
    return _Reader(check(_PlanEntry, parse_yaml(text, source), source), source).read()


@record
class _Entry:
    """A row as the file has it."""

    set: dict[str, Any] | None = None
    recipe: dict[str, Any] | None = None
    seeds: Seeds
    minutes: Minutes | None = None


@record
class _BaseEntry(_Entry):
    """A row that others are compared with."""

    base: FilledText | None = None


@record
class _RowEntry(_Entry):
    """A row of a claim, which is compared with its base."""

    base: FilledText
    effect: Effect
    paper: FilledText


@record
class _ContrastEntry:
    of: tuple[FilledText, FilledText, FilledText, FilledText]
    effect: Effect
    paper: FilledText


@record
class _ClaimEntry:
    title: FilledText
    source: FilledText
    rows: dict[str, _RowEntry] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    contrasts: dict[str, _ContrastEntry] = field(default_factory=dict)


@record
class _PlanEntry:
    variant: FilledText
    trials: tuple[dict[str, Any], ...] = ()
    bases: dict[str, _BaseEntry]
    claims: dict[str, _ClaimEntry]
    absent: tuple[FilledText, ...] = ()
    notes: tuple[FilledText, ...] = ()


class _Reader:
    """Puts the rows of a plan together, each from its base."""

    def __init__(self, plan: _PlanEntry, source: str) -> None:
        self.plan = plan
        self.source = source
        # Rows may stand before or behind the rows that they differ from.
        self.entries: dict[str, _BaseEntry | _RowEntry] = {}
        for rows in (plan.bases, *(claim.rows for claim in plan.claims.values())):
            for name, entry in rows.items():
                if name in self.entries:
                    raise UserError(f"{source}: row {name} is defined twice")
                self.entries[name] = entry

    def read(self) -> Plan:
        return Plan(
            self.plan.variant,
            tuple(self.plan.bases),
            {name: self._row(name) for name in self.entries},
            tuple(self._claim(name, claim) for name, claim in self.plan.claims.items()),
            self.plan.absent,
            self.plan.notes,
        )

    def _row(self, name: str) -> Row:
        entry = self.entries[name]
        recipe = check(Recipe, {"name": name} | self._recipe(name, ()), f"{self.source}, row {name}")
        return Row(name, entry.base, entry.set or {}, recipe, entry.seeds, entry.minutes)

    def _recipe(self, name: str, above: tuple[str, ...]) -> dict[str, Any]:
        """The nested dictionaries of a row's recipe, through all its bases."""
        if name not in self.entries:
            raise UserError(f"{self.source}: {unknown_name('row', name, self.entries)}")
        if name in above:
            raise UserError(f"{self.source}: row {name} is its own base, through {' and '.join(above[1:]) or name}")
        entry = self.entries[name]
        if (entry.base is None) == (entry.recipe is None) or (entry.base is None) != (entry.set is None):
            raise UserError(f"{self.source}, row {name}: give either base and set, or recipe")
        if entry.base is None:
            return entry.recipe or {}
        return derive(self._recipe(entry.base, (*above, name)), entry.set or {}, f"{self.source}, row {name}", Recipe)

    def _claim(self, name: str, claim: _ClaimEntry) -> Claim:
        comparisons = [
            Comparison(row=row, base=entry.base, effect=entry.effect, paper=entry.paper)
            for row, entry in claim.rows.items()
        ]
        comparisons += claim.comparisons
        contrasts = [Contrast(each, entry.of, entry.effect, entry.paper) for each, entry in claim.contrasts.items()]
        named = [row for each in comparisons for row in (each.row, each.base)]
        named += [row for each in contrasts for row in each.rows]
        if unknown := [row for row in named if row not in self.entries]:
            raise UserError(f"{self.source}, claim {name}: {unknown_name('row', unknown[0], self.entries)}")
        return Claim(name, claim.title, claim.source, tuple(claim.rows), tuple(comparisons), tuple(contrasts))
