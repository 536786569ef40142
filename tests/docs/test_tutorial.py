"""Runs the whole tutorial as a reader would, its commands too."""

import contextlib
import io
import shlex
import socket

import pytest

from halonet.engine.run import read_result
from halonet_cli.main import main, parse
from tests.docs.pages import DOCS, FENCE

PAGE = (DOCS / "tutorial.md").read_text(encoding="utf-8")
SERVES = "halonet demo"  # until Ctrl-C


def run(language: str, code: str, namespace: dict[str, object]) -> str:
    """Run a block; return what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if language == "python":
            exec(compile(code, "tutorial", "exec"), namespace)
        for line in code.splitlines() if language == "bash" else ():
            words = shlex.split(line, comments=True)
            if line.startswith(SERVES):
                parse(words[1:])
            else:
                assert (words[0], main(words[1:])) == ("halonet", 0), line
    return printed.getvalue()


@pytest.mark.usefixtures("untyped")  # `torch.export` cannot trace the shape checks
@pytest.mark.filterwarnings("ignore")  # Lightning's own
@pytest.mark.slow
def test_the_tutorial_runs_from_images_to_an_answer_of_the_server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace, printed, expected = {"__name__": "tutorial"}, {}, {}
    blocks = [match.groups() for match in FENCE.finditer(PAGE)]
    for index, (language, code) in enumerate(blocks):
        if language in ("python", "bash"):
            printed[index] = run(language, code, namespace)
        elif index and blocks[index - 1][0] == "python":
            expected[index - 1] = code
    assert len(expected) == 4
    assert {index: printed[index] for index in expected} == expected
    assert read_result(tmp_path / "runs" / "photos")["top1"] > 75  # of four classes
    assert len(list((tmp_path / "maps").iterdir())) == 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("localhost", namespace["server"].server_port), timeout=1)


def test_every_command_of_the_tutorial_is_run():
    commands = [line for language, code in FENCE.findall(PAGE) if language == "bash" for line in code.splitlines()]
    assert {shlex.split(line)[1] for line in commands} == {"train", "evaluate", "predict", "demo", "export"}
