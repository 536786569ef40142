import io
import sys

import pytest

from halonet_cli.console import print_table, survive_any_encoding


def test_a_table_of_any_names_keeps_its_columns(capsys):
    print_table(["file", "class"], [["a\nb", "x"], ["c", "y"]])
    assert capsys.readouterr().out == "file  class\na\\nb  x\nc     y\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_lacks_a_letter_shows_its_escape(encoding, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    survive_any_encoding()
    print("\udcff猫")
    sys.stdout.flush()
    assert written.getvalue() == rb"\udcff" + "猫".encode(encoding, "backslashreplace") + b"\n"
