"""Add the result of a finished run to `results/training/`: `python tools/add_training_result.py runs/NAME`.

Runs of one recipe on one machine share a file, named like the recipe; `--output FILE` names another.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pages import ROOT

from halonet.benchmark.record import write_record
from halonet.errors import UserError

QUESTION, SETTINGS = ("recipe", "model", "data", "split"), ("device", "world_size")


def make_record(result: dict[str, Any]) -> dict[str, Any]:
    """Turn the `result.json` of a run folder into a record with one run."""
    shared = (*QUESTION, *SETTINGS, "hardware", "versions")
    row = {name: value for name, value in result.items() if name not in shared}
    return {
        "benchmark": "training",
        "question": {name: result[name] for name in QUESTION if name in result},
        "settings": {name: result[name] for name in SETTINGS if name in result},
        "machine": {"hardware": result["hardware"]},
        "runs": [{"provenance": result["versions"], "rows": [row]}],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: results/training/RECIPE.json")
    options = parser.parse_args()
    result = json.loads((options.run / "result.json").read_text(encoding="utf-8"))
    record = make_record(result)
    path = options.output or ROOT / "results/training" / f"{result['recipe'].replace('/', '_')}.json"
    try:
        write_record(record | {"runs": []}, record["runs"][0], path)
    except UserError as error:
        print(f"add_training_result: {error}", file=sys.stderr)
        return 2
    print(f"added to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
