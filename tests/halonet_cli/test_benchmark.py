import json
import re

import pytest

from halonet_cli.main import main, make_parser
from tests.halonet_cli.mistakes import assert_a_users_mistake

SHARED = {"--batch", "--device", "--help", "--output", "--passes", "--plot", "--repeats", "--threads"}
OPTIONS = {
    "operator": SHARED | {"--compare", "--dtype", "--peers", "--scaling", "--sizes", "--skip-memory"},
    "model": SHARED | {"--accelerate", "--compare", "--compile", "--dtype", "--image-size", "--models"},
    "memory": SHARED - {"--passes", "--plot", "--repeats"} | {"--dtype", "--image-size", "--models", "--pass"},
    "claims": {"--data", "--help", "--minutes", "--output", "--row", "--shard"},
    "tune": SHARED - {"--passes", "--plot"} | {"--dtype", "--sizes"},
    "int8": SHARED - {"--passes", "--peers", "--plot"},
    "export": SHARED - {"--passes", "--peers", "--plot"} | {"--formats", "--image-size", "--models", "--speed"},
    "all": {"--device", "--dtype", "--help", "--minutes", "--output", "--sections", "--smoke"},
    "detector": SHARED - {"--passes", "--plot"} | {"--backbones"},
    "average-precision": {"--both", "--detections", "--help", "--images", "--output", "--repeats"},
    "triton": {"--help"},
}
TRITON_OPTIONS = {
    "compile": {"--architectures", "--batch", "--dtypes", "--help", "--output", "--sizes"},
    "search": {"--channels", "--help", "--itemsizes", "--kernels", "--processes", "--record"},
}
QUICK = ["--batch", "1", "--repeats", "2", "--threads", "1", "--device", "cpu"]


def options_of(kinds):
    return {
        name: {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
        for name, parser in kinds.items()
    }


def test_the_benchmarks_and_their_options_are_exactly_these():
    kinds = make_parser().commands["benchmark"].commands
    assert options_of(kinds) == OPTIONS
    assert options_of(kinds["triton"].commands) == TRITON_OPTIONS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["operator", "--sizes", "h1/stage9"], "unknown size 'h1/stage9'"),
        (["operator", "--peers", "tim"], "unknown peer 'tim'"),
        (["operator", "--passes", "backward"], "unknown pass 'backward'"),
        (["operator", "--batch", "0"], "--batch is 0, but must be from 1"),
        (["operator", "--repeats", "1"], "--repeats is 1, but must be from 2"),
        (["operator", "--dtype", "int8"], "--dtype is 'int8', but must be float64, float32, bfloat16 or float16"),
        (["operator", "--device", "abacus"], "--device 'abacus' is not available"),
        (["operator", "--compare", "strides"], "unknown comparison 'strides'. Did you mean 'strided'"),
        (["operator", "--scaling", "images"], "unknown scaling 'images'"),
        (["operator", "--scaling", "image", "--compare", "strided"], "--compare and --scaling exclude each other"),
        (["operator", "--scaling", "image", "--sizes", "h1/stage1"], "--scaling and --sizes exclude each other"),
        (["operator", "--output", "no/where.json"], "there is no folder no"),
        (["operator", "--plot", "picture.gif"], "must end in one of .png"),
        (["model", "--models", "h9"], "unknown model 'h9'"),
        (["model", "--passes", "forward"], "unknown pass 'forward'"),
        (["model", "--models", "tiny28", "--image-size", "0"], "--image-size is 0"),
        (["model", "--dtype", "int8"], "--dtype is 'int8', but must be float64, float32, bfloat16 or float16"),
        (["memory", "--pass", "both"], "unknown pass 'both'"),
        (["memory", "--models", "timm/resnet51x"], "unknown model 'timm/resnet51x'"),
        (["detector", "--backbones", "r50"], "unknown model 'r50'"),
        (["detector", "--batch", "0"], "batch is 0, but must be from 1"),
        (["average-precision", "--images", "0"], "images is 0, but must be from 1"),
        (["average-precision", "--repeats", "1"], "repeats is 1, but must be from 2"),
        (["triton", "compile", "--dtypes", "bf32"], "unknown dtype 'bf32'"),
        (["triton", "compile", "--architectures", "91"], "unknown value of --architectures '91'"),
        (["triton", "compile", "--batch", "0"], "batch is 0, but must be from 1"),
        (["triton", "compile", "--sizes", "h9"], "unknown size 'h9'"),
        (["triton", "search", "--kernels", "backward"], "unknown value of --kernels 'backward'"),
        (["triton", "search", "--processes", "0"], "processes is 0, but must be from 1"),
        (["triton", "search", "--record", "no/where.json"], "there is no folder no"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(words, message, capsys, tmp_path, monkeypatch):
    assert_a_users_mistake(["benchmark", *words], message, capsys, tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def small_peak(monkeypatch):
    monkeypatch.setattr("halonet.benchmark.peak.ATTEMPTS", 1)
    monkeypatch.setattr("halonet.benchmark.peak.SIDE_OF_PRODUCT", 64)


@pytest.fixture(autouse=True)
def restored_environment(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")  # commands that compile set it


def test_two_runs_print_their_tables_and_make_one_record_and_a_picture(capsys, tmp_path):
    words = ["benchmark", "operator", "--sizes", "h0/stage4", "--peers", "composite", "timm", *QUICK, "--skip-memory"]
    words += ["--passes", "forward", "--output", str(tmp_path / "record.json"), "--plot", str(tmp_path / "a.svg")]
    for _ in range(2):
        assert main(words) == 0
    shown = capsys.readouterr().out
    assert len(re.findall(r"^h0/stage4 +forward +timm +[\d.]+ ", shown, re.MULTILINE)) == 2
    assert "bound = FLOPs / the one + exponentials / the other" in shown
    record = json.loads((tmp_path / "record.json").read_text())
    assert len(record["runs"]) == 2
    for run in record["runs"]:
        assert run["provenance"]["command"].startswith("halonet benchmark operator --sizes h0/stage4")
        assert run["peak"]["flops_per_second"] > 0
        assert [row["case"] for row in run["rows"]] == ["h0/stage4"]
    assert (tmp_path / "a.svg").exists()


def test_models_of_several_batches_make_one_record(capsys, tmp_path):
    path = tmp_path / "record.json"
    words = ["--models", "tiny28", "--image-size", "28", "--passes", "inference", *QUICK, "--batch", "1", "2"]
    assert main(["benchmark", "model", *words, "--output", str(path)]) == 0
    assert re.search(r"^networks, batch 2 +inference +tiny28 fused", capsys.readouterr().out, re.MULTILINE)
    (run,) = json.loads(path.read_text())["runs"]
    assert [row["facts"]["batch"] for row in run["rows"]] == [1, 2]


def test_a_second_run_of_networks_joins_the_record_of_the_first(tmp_path):
    words = ["model", "--models", "tiny28", "--image-size", "28", "--passes", "inference", *QUICK]
    for _ in range(2):
        assert main(["benchmark", *words, "--output", str(tmp_path / "record.json")]) == 0
    assert len(json.loads((tmp_path / "record.json").read_text())["runs"]) == 2


def test_the_record_of_half_precision_names_it(tmp_path):
    path = tmp_path / "record.json"
    words = ["--models", "tiny28", "--image-size", "28", "--passes", "inference", "--dtype", "bfloat16", *QUICK]
    assert main(["benchmark", "model", *words, "--output", str(path)]) == 0
    record = json.loads(path.read_text())
    assert record["settings"]["dtype"] == "bfloat16"
    assert record["runs"][0]["rows"][0]["absent"] == {}


def test_the_memory_of_a_step_is_printed(capsys, monkeypatch):
    monkeypatch.setattr("halonet.benchmark.model.peak_mebibytes", lambda *_, name, **__: float(len(name)))
    assert main(["benchmark", "memory", "--models", "tiny28", "h0", "--batch", "2", "--device", "cpu"]) == 0
    assert re.search(r"training +h0 +2\.0 +0\.33 x", capsys.readouterr().out)
