from halonet.training import list_recipes, resolve
from tools.make_recipe_table import PAGE, make_page


def test_the_documented_table_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == make_page([resolve(name) for name in list_recipes()]), (
        "run python tools/make_recipe_table.py"
    )


def test_every_recipe_is_documented():
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in list_recipes() if f"\n| `{name}` | " not in page] == []
