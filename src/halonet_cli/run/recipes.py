"""`halonet recipes NAME`."""

import argparse

from halonet.recipes.load import resolve, to_yaml


def run_recipes(options: argparse.Namespace) -> None:
    """Print a recipe in full."""
    print(to_yaml(resolve(options.recipe)), end="")
