"""Write the tasks and the keys of their recipes where the command line finds them without importing halonet.

From the root of a checkout:

    python tools/make_recipe_keys.py
"""

import dataclasses
import json
import pkgutil
import typing
from typing import Any

from halonet.models import HaloNetConfig
from halonet.recipes.tasks import TASKS
from halonet.rules import hints_of
from halonet.schemas import bare
from halonet_cli.recipe_check import TASKS as FILE


def make_keys() -> dict[str, Any]:
    return {
        name: {"command": entry.command, "keys": _keys(pkgutil.resolve_name(entry.recipe))}
        for name, entry in TASKS.items()
    }


def _keys(section: type) -> dict[str, Any]:
    return {name: _below(name, bare(hint)) for name, hint in hints_of(section).items()}


def _below(name: str, hint: Any) -> dict[str, Any] | None:
    if name == "overrides":
        return _keys(HaloNetConfig)
    if dataclasses.is_dataclass(hint):
        return _keys(typing.cast(type, hint))
    return {"*": None} if typing.get_origin(hint) is dict else None


def main() -> None:
    FILE.write_text(json.dumps(make_keys(), indent=1) + "\n")
    print(f"written to {FILE}")


if __name__ == "__main__":
    main()
