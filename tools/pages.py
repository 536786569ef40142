"""What makers of pages share: Markdown, markers, and a command line with `--check`."""

import argparse
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]


def markdown_table(head: list[str], rows: Iterable[list[str]], words: int | Collection[int]) -> str:
    """Format a Markdown table; `words` columns from the first on, or those of these indices, are not aligned right."""
    words = range(words) if isinstance(words, int) else words
    rule = ["---" if index in words else "---:" for index in range(len(head))]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *escaped)) + "\n"


def wrap(text: str, indent: str = "") -> str:
    """Break a paragraph into lines of at most 120 columns."""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def bullets(lines: Iterable[str]) -> str:
    """Format a Markdown list."""
    return "".join(wrap(f"- {line}", indent="  ") + "\n" for line in lines)


def between(text: str, begin: str, end: str) -> str:
    """Return what stands between two markers of a page."""
    return text.split(begin)[1].split(end)[0].strip("\n")


def replaced(path: Path, begin: str, end: str, content: str) -> str:
    """Return a page with other content between its markers."""
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"


def write_pages(summary: str | None, make: Callable[[], dict[Path, str]]) -> int:
    """Write pages, or with `--check` only say whether they are up to date; return the exit status."""
    parser = argparse.ArgumentParser(description=(summary or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether all is up to date")
    check, pages = parser.parse_args().check, make()
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if check:
        print(f"stale: {', '.join(map(str, stale))}; run {sys.argv[0]}" if stale else "up to date")
        return int(bool(stale))
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    return 0
