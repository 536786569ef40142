import re

from tests.docs.pages import DOCS, run_steps, steps_of

ROOT = DOCS.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_readme_says():
    (step,) = steps_of(README)
    (printed,) = run_steps([step])
    assert f"# {printed.strip()}, " in step.code


def test_every_link_leads_to_a_file():
    links = re.findall(r"\]\(([^)]+)\)", README)
    files = [link for link in links if not link.startswith("https://")]
    assert len(files) > 10
    assert [link for link in files if not (ROOT / link).exists()] == []


def tree() -> list[str]:
    """The paths in the README's tree: folders at the margin, and what is indented below them."""
    block = README.split("## Layout")[1].split("```")[1].removeprefix("text\n")
    paths, parent = [], ""
    for line in block.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            parent = name
        paths.append(f"{parent}{name}" if line.startswith(" ") else name)
    return paths


def test_the_tree_is_the_repositorys():
    paths = tree()
    assert [path for path in paths if not (ROOT / path).exists()] == []
    packages = {f"src/halonet/{file.parent.name}/" for file in (ROOT / "src/halonet").glob("*/__init__.py")}
    assert packages <= set(paths)


def test_the_two_commands_need_nothing_but_python():
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv .uv")]
    assert [command.split("--extra ")[1] for command in commands] == ["train halonet train", "dev pytest"]


def test_the_readme_is_read_on_a_screen_and_a_half():
    assert len(README.split()) <= 800
    assert len(README.splitlines()) <= 110
