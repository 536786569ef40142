"""Write one tested version of every dependency to the end of pyproject.toml, as uv resolves them.

python tools/pin_versions.py            # add pins for new dependencies, drop those of removed ones
python tools/pin_versions.py --upgrade  # take the newest versions that the bounds allow
"""

import argparse
import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
PINS = re.compile(r"(?<=\nconstraint-dependencies = \[\n).*?(?=^\]$)", re.DOTALL | re.MULTILINE)


def make_pins(lock: str) -> str:
    """Make the lines of all packages in a lock file except the project itself."""
    packages = {
        package["name"]: package["version"]
        for package in tomllib.loads(lock)["package"]
        if "registry" in package["source"]
    }
    return "".join(f'    "{name}=={version}",\n' for name, version in sorted(packages.items()))


def resolve(project: str) -> str:
    """Lock a project by its pyproject.toml; return the lock file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pyproject.toml").write_text(project)
        for name in ("README.md", "LICENSE"):
            (Path(folder) / name).touch()
        subprocess.run(["uv", "lock", "--quiet", "--project", folder], check=True)
        return (Path(folder) / "uv.lock").read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="ignore the present pins")
    options = parser.parse_args()
    project = PROJECT.read_text()
    lock = resolve(PINS.sub("", project) if options.upgrade else project)
    PROJECT.write_text(PINS.sub(lambda _: make_pins(lock), project))
    print(f"wrote {PROJECT}")


if __name__ == "__main__":
    main()
