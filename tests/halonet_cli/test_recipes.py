import json

from halonet.training import list_recipes, resolve
from halonet_cli.main import main


def test_the_list_is_what_the_recipes_say(capsys):
    assert main(["recipes", "--json"]) == 0
    recipes = [resolve(name) for name in list_recipes()]
    expected = [{"name": r.name, "reproduces": r.reproduces, "result": r.provenance.result} for r in recipes]
    assert json.loads(capsys.readouterr().out) == expected


def test_the_table_has_a_row_for_each(capsys):
    assert main(["recipes"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["recipe", "reproduces", "here"]
    assert [row.split()[0] for row in rows] == list_recipes()
    assert any(row.endswith("not yet run") for row in rows)


def test_a_recipe_is_printed_in_full(capsys):
    for name, line in (("imagenet/h7", "name: imagenet/h7"), ("detection/r50se", "task: detection")):
        assert main(["recipes", name]) == 0
        assert line in capsys.readouterr().out.splitlines()
