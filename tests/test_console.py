import io
import sys

import pytest

from halonet.console import print_table, printable, survive_any_encoding


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Siam cat", "Siam cat"),
        ("Ça va, 猫 🐈 a\u202fb", "Ça va, 猫 🐈 a\u202fb"),  # macOS puts that space into the names of screenshots
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("\udcff", "\\udcff"),
        ("\x9b2J", "\\x9b2J"),
        ("gnp.\u202eexe", "gnp.\\u202eexe"),
        ("a\u2028b", "a\\u2028b"),
    ],
)
def test_a_name_from_outside_is_shown_and_does_nothing(name, shown):
    assert printable(name) == shown


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
