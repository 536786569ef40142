"""What a release says of itself agrees in every file that says it."""

import re
import tomllib
from datetime import date
from pathlib import Path

import yaml

import halonet

ROOT = Path(__file__).parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_file_names_the_same_version():
    newest = re.search(r"^## \[(.+?)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest
    version, day = newest.groups()
    assert {version, PROJECT["version"], CITATION["version"]} == {halonet.__version__}
    assert day == "unreleased" or date.fromisoformat(day)


def test_the_citation_has_what_its_format_requires():
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(CITATION)
    assert CITATION["license"] == PROJECT["license"]
    paper = CITATION["preferred-citation"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["url"] == PROJECT["urls"]["Paper"]


def test_the_paper_is_cited_as_in_the_readme():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    paper = CITATION["preferred-citation"]
    assert paper["title"] in readme
    names = [f"{author['given-names'][0]}. {author['family-names']}" for author in paper["authors"]]
    assert f"{', '.join(names[:-1])} and {names[-1]}, " in readme
