"""Records of runs, one file per run (`ROW-seedK.json`): read with every value checked, and written."""

import json
import re
from pathlib import Path
from typing import Any

from halonet.benchmark.claims.experiment import experiment_hash
from halonet.benchmark.claims.plan import Plan
from halonet.benchmark.claims.schema import DamageError, check_record
from halonet.engine.files import write_atomically
from halonet.errors import UserError, unknown_name

# After a run was cut short, and after a full disk.
AGAIN = "run the command again"
REMEDY = f"make room, then {AGAIN}"


def record_path(folder: Path, row: str, seed: int) -> Path:
    """Path of the record of a run."""
    return folder / f"{row}-seed{seed}.json"


def write_record(folder: Path, record: dict[str, Any]) -> Path:
    """Write a record atomically and return its file; raise a `ValueError` if a number is not finite."""
    path = record_path(folder, record["row"], record["seed"])
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()), REMEDY)
    return path


def read_record(path: Path) -> dict[str, Any]:
    """Read a record; raise a `UserError` if it cannot be read, is damaged, or has the name of another run."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise UserError(f"cannot read record {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(_damaged(path, "it is not JSON")) from error
    try:
        check_record(record)
        _check_name(record, path.name)
    except DamageError as damage:
        raise UserError(_damaged(path, str(damage))) from damage
    return record


def read_records(folder: Path, plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """Read the records of each row of a plan, by seed, from a folder that need not exist; raises as `read_record`."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in plan.rows}
    for path in sorted(folder.glob("*.json")):
        record = read_record(path)
        _check_plan(record, plan, path)
        found[record["row"]].append(record)
    return {name: sorted(records, key=lambda record: record["seed"]) for name, records in found.items()}


def _refuse(word: str) -> None:
    """JSON has no NaN and no Infinity, but Python reads them."""
    raise ValueError(word)


def _damaged(path: Path, what: str) -> str:
    return f"record {path} is damaged: {what}; restore the file, or delete it and run its row again"


def _check_plan(record: dict[str, Any], plan: Plan, path: Path) -> None:
    remedy = "delete the file, or move it to another folder"
    name, seed, variant = record["row"], record["seed"], record["data"]["variant"]
    if name not in plan.rows:
        raise UserError(
            f"record {path} is of another plan: {unknown_name('row', name, plan.rows)} {remedy.capitalize()}"
        )
    row = plan.rows[name]
    expected = experiment_hash(row.recipe)
    if record["recipe_hash"] != expected:
        raise UserError(
            f"record {path} is of another recipe: its hash is {record['recipe_hash']}, that of row {name} is "
            f"{expected}; {remedy}, and run the row again"
        )
    if seed >= row.num_seeds:
        raise UserError(f"record {path} has seed {seed}, but row {name} has seeds 0 to {row.num_seeds - 1}; {remedy}")
    if variant != plan.variant:
        raise UserError(f"record {path} is of {variant!r}, but the plan is for {plan.variant!r}; {remedy}")


def _check_name(record: dict[str, Any], name: str) -> None:
    match = re.fullmatch(r"(.+)-seed(0|[1-9][0-9]*)\.json", name)
    if match is None:
        raise DamageError("its name is not ROW-seedK.json")
    if record["row"] != match[1] or str(record["seed"]) != match[2]:
        raise DamageError(f"it holds row {record['row']!r} with seed {record['seed']}")
