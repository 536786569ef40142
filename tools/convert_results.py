"""Rewrite results of earlier formats as records: `python tools/convert_results.py results/gpu/measured.json ...`.

It knows the files of `tools/measure_gpu.py`, records whose machine was described in words, and the `result.json` of a
run folder. Files that are records already stay as they are.
"""

import json
import sys
from pathlib import Path
from typing import Any

MACHINE = {
    "torch instructions": "instructions",
    "halonet cpu backend": "cpu_backend",
    "halonet triton backend": "triton_backend",
}
QUESTION, SETTINGS = ("recipe", "model", "data", "split"), ("device", "world_size")


def convert(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document in the format of `halonet.benchmark.record` and `halonet.benchmark.suite`."""
    if "sections" in document:
        environment = rename(document["environment"])
        return {"records": {name: convert_section(each, environment) for name, each in document["sections"].items()}}
    if "machine" in document and "runs" in document:
        return document | {"machine": rename(document["machine"])}
    if "recipe" in document and "versions" in document:
        return convert_result(document)
    return document


def rename(machine: dict[str, Any]) -> dict[str, Any]:
    return {MACHINE.get(name, name): value for name, value in machine.items()}


def convert_section(section: dict[str, Any], environment: dict[str, Any]) -> dict[str, Any]:
    """Turn a section of the suite into its record; outcome and seconds go to its last run, empty if there was none."""
    record = convert(section["record"])
    runs = record["runs"]
    if not runs:
        provenance = {name: value for name, value in environment.items() if name not in record["machine"]}
        runs = [{"provenance": provenance, "rows": []}]
    rows = runs[-1].get("rows", [])
    last = {name: value for name, value in runs[-1].items() if name != "rows"}
    last |= {"outcome": section["outcome"], "seconds": section["seconds"], "rows": rows}
    return record | {"runs": [*runs[:-1], last]}


def convert_result(result: dict[str, Any]) -> dict[str, Any]:
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
    for path in map(Path, sys.argv[1:]):
        found = json.loads(path.read_text(encoding="utf-8"))
        converted = convert(found) if isinstance(found, dict) else found
        if converted != found:
            path.write_text(json.dumps(converted, indent=1) + "\n", encoding="utf-8")
            print(f"rewrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
