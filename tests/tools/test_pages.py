import pytest

from tools.pages import between, markdown_table, replaced, write_pages


def test_words_are_aligned_left_and_numbers_right():
    assert markdown_table(["a", "b"], [["x|y", "1"]], words=1) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n"
    assert "| ---: | --- |" in markdown_table(["a", "b"], [], words=[1])


def test_only_the_text_between_markers_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before <b> old <e> after\n")
    text = replaced(page, "<b>", "<e>", "new")
    assert text == "before <b>\n\nnew\n\n<e> after\n"
    assert between(text, "<b>", "<e>") == "new"


def test_check_says_what_is_stale_and_changes_nothing(tmp_path, capsys, monkeypatch):
    page = tmp_path / "page.md"
    monkeypatch.setattr("sys.argv", ["make_page.py", "--check"])
    assert write_pages("A page.", lambda: {page: "text"}) == 1
    assert capsys.readouterr().out == f"stale: {page}; run make_page.py\n"
    assert not page.exists()
    monkeypatch.setattr("sys.argv", ["make_page.py"])
    assert write_pages("A page.", lambda: {page: "text"}) == 0
    assert page.read_text() == "text"
    monkeypatch.setattr("sys.argv", ["make_page.py", "--check"])
    assert write_pages("A page.", lambda: {page: "text"}) == 0


@pytest.mark.parametrize("text", ["no markers", "only <b>"])
def test_a_page_without_its_markers_is_an_error(text, tmp_path):
    (tmp_path / "page.md").write_text(text)
    with pytest.raises((ValueError, IndexError)):
        replaced(tmp_path / "page.md", "<b>", "<e>", "new")
