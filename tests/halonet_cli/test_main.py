import io
import os
import runpy
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from halonet.complaints import RuleError, must_be
from halonet.errors import UserError, UserNote
from halonet.installation import command_for_extra
from halonet_cli.console import print_json
from halonet_cli.main import main, make_parser
from tests.halonet_cli.mistakes import assert_a_users_mistake

OPTIONS = {
    "train": {"--help", "--resume", "--resume-or-start", "--run-dir"},
    "evaluate": {"--batch-size", "--data", "--data.root", "--device", "--help", "--json", "--split", "--workers"},
    "predict": {"--batch-size", "--csv", "--data.root", "--device", "--head", "--help", "--json", "--layer", "--pixel"}
    | {"--save-maps", "--top-k"},
    "export": {
        *("--features", "--format", "--help", "--int8", "--max-size", "--min-size", "--normalize", "--skip-check"),
        "--softmax",
    },
    "info": {"--help", "--image-size", "--json"},
    "recipes": {"--help", "--json"},
    "detect": {"--help"},
    "demo": {"--help", "--port"},
    "benchmark": {"--help"},
}


def test_the_commands_and_their_options_are_exactly_these():
    found = {
        name: {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
        for name, parser in make_parser().commands.items()
    }
    assert found == OPTIONS


@pytest.mark.parametrize("name", OPTIONS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: halonet {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info", "h9"], r"unknown model 'h9'\. .*Known: "),
        (["info", "h0", "--image-size", "0"], "--image-size is 0, but must be from 1 to 16,384"),
        (["train", "fashion_mnst"], "unknown recipe 'fashion_mnst'. Did you mean 'fashion_mnist'"),
        (["train", "--schedule.epoch", "3"], "unknown key 'schedule.epoch'. Did you mean 'schedule.epochs'"),
        (["train", "--schedule.epochs", "many"], "schedule.epochs"),
        (["train", "--model.name", "halonet5"], "unknown model 'halonet5'. Did you mean 'halonet50'"),
        (["train", "--resume", "nowhere"], "nowhere holds no run to resume"),
        (["train", "--resume", "nowhere", "schedule.epochs=3"], "--resume takes the recipe of the run as it is"),
        (
            ["train", "imagenet/h0", "--resume", "nowhere", "schedule.epochs=3"],
            "except data.root: leave out the recipe imagenet/h0, schedule.epochs, or train into another folder",
        ),
        (["train", "--resume", "nowhere", "--resume-or-start"], "--resume and --resume-or-start exclude each other"),
        (["train", "--run-dir", "/proc/run"], "cannot write into run folder /proc/run"),
        (["predict", __file__, __file__, "--save-maps", "/dev/null/maps"], "/dev/null is a file, not a folder"),
        (["evaluate", "nowhere"], "nowhere"),
        (["predict", "nowhere", "no_image.png"], "no_image.png"),
        (["evaluate", __file__, "--batch-size", "0"], "--batch-size is 0, but must be from 1|at least 1"),
        (["evaluate", __file__, "--workers", "-1"], "--workers is -1, but must be from 0"),
        (["predict", __file__, __file__, "--top-k", "0"], "--top-k is 0, but must be"),
        (["recipes", "h1"], "unknown recipe 'h1'"),
        (["evaluate", "x" * 300], "there is no checkpoint xxx"),
        (["train", "--resume", "x" * 300], "xxx holds no run to resume"),
        (
            ["train", "--run-dir", "x" * 300, "--resume-or-start"],
            "run folder xxx.*: File name too long",
        ),
        (["train", "--run-dir", "a\0b"], "cannot write into run folder .*: embedded null byte"),
        (["train", "photos", "--data.source", "x" * 300], "'xxx.*' cannot be the name of a folder: File name too long"),
        (["train", "cifar10/minutes", "--data.root", "x" * 300], "data.root xxx.* is not a folder"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(words, message, capsys, tmp_path, monkeypatch):
    assert_a_users_mistake(words, message, capsys, tmp_path, monkeypatch)


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(
    ("number", "line", "status"),
    [
        (signal.SIGINT, "interrupted by Ctrl-C", 130),
        (signal.SIGTERM, "interrupted by SIGTERM", 143),
        (signal.SIGHUP, "interrupted by SIGHUP", 129),
    ],
)
def test_a_signal_ends_any_command_with_one_line_and_its_status(number, line, status, capsys, monkeypatch):
    for module, name, words in (
        ("halonet.classification.evaluation", "load_checkpoint", ["evaluate", __file__]),
        ("halonet_cli.run.predict", "find_images", ["predict", __file__, __file__]),
        ("halonet.detection.evaluation", "load_detector", ["detect", "evaluate", __file__]),
        ("halonet.detection.prediction", "load_detector", ["detect", "predict", __file__, __file__]),
        ("halonet_cli.run.export", "load_detector", ["detect", "export", __file__, "/tmp/a.onnx"]),
        ("halonet_cli.run.export", "read_weights", ["export", __file__, "/tmp/a.onnx"]),
        ("halonet_cli.run.benchmark", "check_names", ["benchmark", "operator"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{name}", lambda *_, **__: os.kill(os.getpid(), number))
            if module == "halonet.detection.prediction":
                patch.setattr("halonet_cli.run.detect.find_images", lambda paths: paths)
            assert main(words) == status
        assert capsys.readouterr().err == f"halonet: {line}\n"


@pytest.mark.parametrize("kind", ["mistake", "note"])
def test_messages_escape_control_characters(kind, capsys, monkeypatch):
    def tell(options):
        if kind == "mistake":
            raise UserError("\x1b[2J\ud800 is no name")
        warnings.warn(UserNote("\x1b[2J\ud800 is no name"), stacklevel=1)

    monkeypatch.setattr("halonet_cli.run.info.run_info", tell)
    assert main(["info"]) == (2 if kind == "mistake" else 0)
    assert capsys.readouterr().err.endswith("\\x1b[2J\\ud800 is no name\n")


def test_a_terminal_that_lacks_a_letter_shows_its_escape(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr("halonet_cli.run.info.run_info", lambda options: print("猫"))
    assert main(["info"]) == 0
    sys.stdout.flush()
    assert written.getvalue() == rb"\u732b" + b"\n"


def test_a_missing_extra_is_named(capsys, monkeypatch):
    used = ("halonet.classification", "halonet.detection", "halonet.engine", "halonet.recipes", "halonet.schemas")
    names = [name for name in sys.modules if name.startswith((*used, "halonet.training", "halonet_cli.run"))]
    for name in names:
        package, _, attribute = name.rpartition(".")
        monkeypatch.setattr(sys.modules[package], attribute, sys.modules[name])  # to be set back afterwards
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    assert main(["recipes", "fashion_mnist"]) == 2
    assert f"halonet: recipes needs pydantic: {command_for_extra('train')}" in capsys.readouterr().err


def test_an_internal_error_keeps_its_traceback_and_says_where_to_report(monkeypatch):
    def fail(options):
        raise ZeroDivisionError("our fault")

    monkeypatch.setattr("halonet_cli.run.info.run_info", fail)
    with pytest.raises(ZeroDivisionError, match="our fault") as caught:
        main(["info"])
    (note,) = caught.value.__notes__
    assert "a fault of halonet, not yours: please report it to its maintainers, with the command line" in note
    assert "\n" not in note


def test_a_nan_in_json_is_a_mistake_on_one_line(monkeypatch, capsys):
    monkeypatch.setattr("halonet_cli.run.info.run_info", lambda options: print_json({"loss": float("nan")}))
    assert main(["info", "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "halonet: a figure is NaN or infinite, which JSON cannot express: run it without --json\n"


@pytest.mark.parametrize("package", ["halonet", "halonet_cli"])
def test_the_package_runs_as_a_program(package, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["halonet", "train", "h9"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(package, run_name="__main__")
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("halonet: unknown recipe 'h9'")


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_while_halonet_is_imported_is_one_line(tmp_path, name, status):
    (tmp_path / "halonet").mkdir()
    (tmp_path / "halonet" / "__init__.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.{name})\n")
    # An editable installation's finder comes before the path.
    program = (
        "import sys; from importlib.machinery import PathFinder; from halonet_cli.main import main; "
        "sys.meta_path.insert(0, PathFinder); sys.exit(main(['info']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == status
    assert done.stderr == f"halonet: interrupted by {'Ctrl-C' if name == 'SIGINT' else name}\n"


def test_a_closed_pipe_is_no_error():
    program = f"{sys.executable} -m halonet_cli recipes | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_missing_module_of_detection_names_its_extra(capsys, monkeypatch):
    for name in ("halonet_cli.run.benchmark_detection", "halonet.benchmark.average_precision"):
        package, _, attribute = name.rpartition(".")
        monkeypatch.delattr(sys.modules.get(package), attribute, raising=False)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert main(["benchmark", "average-precision"]) == 2
    assert f"halonet: benchmark needs pycocotools: {command_for_extra('detection')}" in capsys.readouterr().err


def test_a_mistake_in_a_file_is_not_blamed_on_a_flag_of_the_same_name(capsys, monkeypatch):
    def fail(options):
        raise RuleError.of("the description in model.safetensors", [must_be("split", 3, "text")])

    monkeypatch.setattr("halonet_cli.run.evaluate.run_evaluate", fail)
    assert main(["evaluate", str(Path(__file__).with_name("__init__.py"))]) == 2
    assert "halonet: the description in model.safetensors: split is 3" in capsys.readouterr().err


def test_signal_handlers_are_put_back(monkeypatch, default_signals):
    monkeypatch.delitem(sys.modules, "halonet")
    before = signal.getsignal(signal.SIGTERM)
    assert main(["nonsense"]) == 2
    assert signal.getsignal(signal.SIGTERM) is before
    results = []
    thread = threading.Thread(target=lambda: results.append(main(["nonsense"])))
    thread.start()
    thread.join()
    assert results == [2]
