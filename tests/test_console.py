import pytest

from halonet.console import printable


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
def test_printable_escapes_harmful_characters(name, shown):
    assert printable(name) == shown
