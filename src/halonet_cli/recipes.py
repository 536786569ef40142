"""`halonet recipes`."""

import argparse
from typing import Any

from halonet_cli.console import print_json, print_table
from halonet_cli.parser import add_command
from halonet_cli.recipe_check import NOT_YET_RUN, find_recipe, packaged


def add(commands: Any) -> None:
    """Add the command."""
    recipes = add_command(
        commands, "recipes", "recipes:run_recipes", "list the recipes, or print one", check=check_recipes
    )
    recipes.add_argument("recipe", nargs="?", help="print this one in full")
    recipes.add_argument("--json", action="store_true", help="print JSON")


def check_recipes(options: argparse.Namespace) -> None:
    """Refuse a recipe that does not exist; the list needs nothing of `halonet`."""
    if options.recipe is None:
        options.run = "halonet_cli.recipes:print_list"
    else:
        find_recipe(options.recipe)


def print_list(options: argparse.Namespace) -> None:
    """Print the list."""
    rows = list_recipes()
    if options.json:
        print_json(rows)
    else:
        print_table(["recipe", "reproduces", "here"], [list(row.values()) for row in rows])


def list_recipes() -> list[dict[str, str]]:
    """Describe each recipe that comes with the package by its name, what it reproduces, and what it gave here."""
    rows = []
    for name in packaged().names():
        values = packaged().find(name).values
        result = values.get("provenance", {}).get("result", NOT_YET_RUN)
        rows.append({"name": name, "reproduces": values.get("reproduces", ""), "result": result})
    return rows
