"""The plan: which rows are trained, with which seeds, and what the paper makes us expect of them."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from halonet.errors import UserError, unknown_name
from halonet.training.recipe import Recipe
from halonet.training.recipes import build, derive, parse_yaml

PLAN = resources.files("halonet.benchmark.claims") / "plan.yaml"
EFFECTS = ("higher", "lower", "none")
MEASURES = ("top1", "changed_by_shifts", "lost_by_shifts")
MIN_SEEDS = 3


@dataclass(frozen=True)
class Row:
    """A recipe that is trained with several seeds.

    Attributes:
        name: Unique in the plan.
        base: The row that it differs from, or None.
        changes: In what, by the recipe's dotted keys.
        recipe: The whole recipe, with seed 0 and without the place of the data.
        num_seeds: Its seeds are 0 to num_seeds - 1.
        minutes: Process time of one run on one thread, or None if it was not measured.
    """

    name: str
    base: str | None
    changes: dict[str, Any]
    recipe: Recipe
    num_seeds: int
    minutes: float | None


@dataclass(frozen=True)
class Comparison:
    """A row against its base.

    Attributes:
        row: Name of the row.
        base: Name of the row that it is compared with.
        effect: What the paper makes us expect of the row: "higher", "lower", or "none" for no difference.
        paper: What the paper found.
        measure: "top1" (accuracy on the test images), "changed_by_shifts" (share of predictions that shifts change) or
            "lost_by_shifts" (points of accuracy that shifts cost).
    """

    row: str
    base: str
    effect: str
    paper: str
    measure: str = "top1"


@dataclass(frozen=True)
class Contrast:
    """A difference of differences of test accuracy: (a - b) - (c - d).

    Attributes:
        name: Unique in the claim.
        rows: Names of a, b, c and d.
        effect: What the paper makes us expect of it.
        paper: What the paper found.
    """

    name: str
    rows: tuple[str, str, str, str]
    effect: str
    paper: str


@dataclass(frozen=True)
class Claim:
    """Something that the paper found.

    Attributes:
        name: Unique in the plan.
        title: The claim as a sentence.
        source: Where in the paper.
        rows: Names of the rows that it adds to the bases.
        comparisons: Of its rows with their bases, in order.
        contrasts: Its differences of differences.
    """

    name: str
    title: str
    source: str
    rows: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True)
class Plan:
    """All of it.

    Attributes:
        variant: The variant of the data set that all rows are trained on.
        bases: Names of the rows that others are compared with.
        rows: All rows by name, in the order in which they are trained.
        claims: In the same order.
        absent: What of the paper is not here, and why.
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
    """Read a plan.

    Args:
        path: A YAML file; None takes the one in the package.

    Raises:
        UserError: The file cannot be read, or breaks a rule; the message names the row.
    """
    try:
        text = (PLAN if path is None else path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read plan {path}: {getattr(error, 'strerror', None) or error}") from error
    source = "the plan of claims" if path is None else str(path)
    values = parse_yaml(text, source)
    try:
        return _Reader(values, source).read()
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source} is not a plan of claims ({type(error).__name__}: {error})") from error


class _Reader:
    def __init__(self, values: dict[str, Any], source: str) -> None:
        self.values = values
        self.source = source
        # Rows may stand before or behind the rows that they differ from.
        self.entries: dict[str, dict[str, Any]] = {}
        for rows in (values["bases"], *(claim.get("rows", {}) for claim in values["claims"].values())):
            for name, entry in rows.items():
                if name in self.entries:
                    raise UserError(f"{source}: row {name} stands there twice")
                self.entries[name] = entry

    def read(self) -> Plan:
        self._check_keys(self.source, self.values, ("variant", "trials", "bases", "claims", "absent", "notes"))
        claims = tuple(self._claim(name, claim) for name, claim in self.values["claims"].items())
        return Plan(
            self.values["variant"],
            tuple(self.values["bases"]),
            {name: self._row(name) for name in self.entries},
            claims,
            tuple(self.values.get("absent", ())),
            tuple(self.values.get("notes", ())),
        )

    def _row(self, name: str) -> Row:
        entry = self.entries[name]
        where = f"{self.source}, row {name}"
        self._check_keys(where, entry, ("base", "set", "recipe", "seeds", "minutes", "effect", "paper"))
        if type(entry["seeds"]) is not int or entry["seeds"] < MIN_SEEDS:
            raise UserError(f"{where}: seeds is {entry['seeds']!r}, but must be at least {MIN_SEEDS}")
        minutes = entry.get("minutes")
        if minutes is not None and not (type(minutes) in (int, float) and 0 < minutes < float("inf")):
            raise UserError(f"{where}: minutes is {minutes!r}, but must be a number above 0")
        recipe = build({"name": name} | self._recipe(name, ()), where)
        minutes = None if minutes is None else float(minutes)
        return Row(name, entry.get("base"), entry.get("set", {}), recipe, entry["seeds"], minutes)

    def _recipe(self, name: str, above: tuple[str, ...]) -> dict[str, Any]:
        """The nested dictionaries of a row's recipe, through all its bases."""
        if name not in self.entries:
            raise UserError(f"{self.source}: {unknown_name('row', name, self.entries)}")
        if name in above:
            raise UserError(f"{self.source}: row {name} is its own base, through {' and '.join(above[1:]) or name}")
        entry = self.entries[name]
        if ("base" in entry) == ("recipe" in entry):
            raise UserError(f"{self.source}, row {name}: give either base (and set) or recipe")
        if "recipe" in entry:
            return entry["recipe"]
        base = self._recipe(entry["base"], (*above, name))
        return derive(base, entry["set"], f"{self.source}, row {name}")

    def _claim(self, name: str, claim: dict[str, Any]) -> Claim:
        where = f"{self.source}, claim {name}"
        self._check_keys(where, claim, ("title", "source", "rows", "comparisons", "contrasts"))
        rows = claim.get("rows", {})
        comparisons = [Comparison(row, entry["base"], entry["effect"], entry["paper"]) for row, entry in rows.items()]
        comparisons += [Comparison(**entry) for entry in claim.get("comparisons", ())]
        contrasts = [self._contrast(where, name, entry) for name, entry in claim.get("contrasts", {}).items()]
        for each in (*comparisons, *contrasts):
            named = each.rows if isinstance(each, Contrast) else (each.row, each.base)
            if unknown := [row for row in named if row not in self.entries]:
                raise UserError(f"{where}: {unknown_name('row', unknown[0], self.entries)}")
            if each.effect not in EFFECTS:
                raise UserError(f"{where}: {unknown_name('effect', str(each.effect), EFFECTS)}")
            if isinstance(each, Comparison) and each.measure not in MEASURES:
                raise UserError(f"{where}: {unknown_name('measure', str(each.measure), MEASURES)}")
        return Claim(name, claim["title"], claim["source"], tuple(rows), tuple(comparisons), tuple(contrasts))

    def _contrast(self, where: str, name: str, entry: dict[str, Any]) -> Contrast:
        if len(entry["of"]) != 4:
            raise UserError(f"{where}: contrast {name} names {len(entry['of'])} rows, but must name 4")
        first, second, third, fourth = entry["of"]
        return Contrast(name, (first, second, third, fourth), entry["effect"], entry["paper"])

    def _check_keys(self, where: str, entry: dict[str, Any], known: tuple[str, ...]) -> None:
        for key in entry:
            if key not in known:
                raise UserError(f"{where}: {unknown_name('key', key, known)}")
