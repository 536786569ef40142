import json
import re

import torch

from halonet.ops import cpu_library
from halonet_cli.main import main


def test_info_prints_the_models_beside_the_paper(capsys):
    assert main(["info", "h1", "h3"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^h1 +256 +59 +8\.1 +8\.1 +2\.88 +0\.76 +\d+ %$", shown, re.MULTILINE)
    assert re.search(r"^h3 +320 +65 +11\.8 +12\.3 ", shown, re.MULTILINE)
    taken = "composite" if cpu_library.MISSING else "cpu"
    assert re.search(rf"^{taken} +cpu", shown, re.MULTILINE)


def test_info_prints_json(capsys):
    assert main(["info", "h0", "--image-size", "97", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["versions"]["torch"] == torch.__version__
    assert [row["name"] for row in shown["models"]] == ["h0"]
    assert shown["models"][0]["image_size"] == 97
    assert {row["backend"] for row in shown["backends"]} == {"cpu", "triton", "composite", "reference"}
