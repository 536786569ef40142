"""Print the installed versions of the dependencies, and fail if they are not the lowest allowed ones."""

import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def main() -> None:
    dependencies = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    bounds = dict(re.findall(r"^([\w-]+)>=([\d.]+)", dependency)[0] for dependency in dependencies)
    found = {name: version(name) for name in bounds}
    print(", ".join(f"{name} {each}" for name, each in found.items()))
    wrong = [
        f"{name} {found[name]} is not {bound}" for name, bound in bounds.items() if not is_same(found[name], bound)
    ]
    if wrong:
        sys.exit(f"these are not the lower bounds: {'; '.join(wrong)}")


def is_same(installed: str, bound: str) -> bool:
    """Whether a version equals a bound: "2.11.0+cu130" is "2.11"."""
    numbers = [int(part) for part in installed.split("+")[0].split(".")]
    wanted = [int(part) for part in bound.split(".")]
    return numbers[: len(wanted)] == wanted and not any(numbers[len(wanted) :])


if __name__ == "__main__":
    main()
