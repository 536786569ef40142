"""What the tests of the commands share."""

import re

from halonet_cli.main import main


def assert_a_users_mistake(words, message, capsys, tmp_path, monkeypatch):
    """One line that says what is wrong, status 2, and nothing written to the working folder."""
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err)
    assert captured.err.startswith("halonet: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []
