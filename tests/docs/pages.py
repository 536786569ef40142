"""Runs the Python of a documentation page, block by block, as a reader would."""

import contextlib
import io
import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Step(NamedTuple):
    """A block of Python and what the page says it prints: the block of text that follows, or nothing."""

    code: str
    expected: str


def steps_of(text: str) -> list[Step]:
    """Read the Python blocks of a page and their printed results."""
    blocks = [(match[1], match[2], match.start(), match.end()) for match in FENCE.finditer(text)]
    steps = []
    for index, (language, content, _, end) in enumerate(blocks):
        if language != "python":
            continue
        following = blocks[index + 1 : index + 2]
        is_result = bool(following) and following[0][0] == "text" and not text[end : following[0][2]].strip()
        steps.append(Step(content, following[0][1] if is_result else ""))
    return steps


def run_steps(steps: list[Step]) -> list[str]:
    """Execute blocks in one namespace; return what each printed."""
    namespace, outputs = {"__name__": "page"}, []
    for step in steps:
        with contextlib.redirect_stdout(io.StringIO()) as stdout:
            exec(compile(step.code, "page", "exec"), namespace)
        outputs.append(stdout.getvalue())
    return outputs
