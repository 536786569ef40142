import sys
import threading
from types import SimpleNamespace

import pytest

from halonet.demo.model import CIFAR10
from halonet_cli.main import main


@pytest.fixture
def launched(monkeypatch):
    """What the page was launched with and, once it ended, that it was closed."""
    calls = []
    page = SimpleNamespace(local_url="http://127.0.0.1:1234/", close=lambda verbose: calls.append("closed"))
    monkeypatch.setattr("halonet_cli.run.demo.open_model", lambda checkpoint: checkpoint)
    monkeypatch.setattr("halonet_cli.run.demo.launch", lambda model, port: calls.append((model, port)) or page)

    def wait(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Event, "wait", wait)
    return calls


@pytest.mark.parametrize(
    ("words", "expected"), [([], (CIFAR10, None)), ([__file__, "--port", "8000"], (__file__, 8000))]
)
def test_the_page_is_served_until_ctrl_c(words, expected, launched, capsys):
    assert main(["demo", *words]) == 130
    assert launched == [expected, "closed"]
    assert capsys.readouterr().out == "halonet demo at http://127.0.0.1:1234/ (Ctrl-C ends it)\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "0"], "--port is 0, but must be from 1 to 65,535"),
        (["--port", "65536"], "--port is 65536, but must be from 1 to 65,535"),
        (["nowhere"], "there is no checkpoint nowhere"),
        ([__file__], "is not a checkpoint"),
    ],
)
def test_mistakes_take_one_line(words, message, capsys):
    assert main(["demo", *words]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith(("halonet.demo", "halonet_cli.run.demo"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("halonet: demo needs gradio: ")
    assert "[demo]" in shown
    assert shown.count("\n") == 1
