import json
import os
import re
import runpy
import signal
import subprocess
import sys

import pytest
import torch

from halonet.installation import command_for_extra
from halonet.ops import cpu_library
from halonet.training import to_yaml
from halonet_cli.console import print_json
from halonet_cli.main import main, make_parser
from tests.halonet_cli.mistakes import assert_a_users_mistake
from tests.training.tiny import make_images, tiny_recipe

OPTIONS = {
    "train": {"--help", "--resume", "--resume-or-start", "--run-dir"},
    "evaluate": {"--batch-size", "--data", "--data.root", "--device", "--help", "--json", "--split", "--workers"},
    "predict": {"--batch-size", "--csv", "--data.root", "--device", "--help", "--json", "--save-maps", "--top-k"},
    "info": {"--help", "--image-size", "--json"},
    "recipes": {"--help", "--json"},
    "detect": {"--help"},
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


def test_info_prints_the_models_beside_the_paper(capsys):
    assert main(["info", "h1", "h3"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^h1 +256 +59 +8\.1 +8\.1 +2\.88 +0\.76 +\d+ %$", shown, re.MULTILINE)
    assert re.search(r"^h3 +320 +65 +11\.8 +12\.3 ", shown, re.MULTILINE)
    taken = "composite" if cpu_library.MISSING else "cpu"
    assert re.search(rf"^{taken} +cpu", shown, re.MULTILINE)


def test_info_speaks_json(capsys):
    assert main(["info", "h0", "--image-size", "97", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["versions"]["torch"] == torch.__version__
    assert [row["name"] for row in shown["models"]] == ["h0"]
    assert shown["models"][0]["image_size"] == 97
    assert {row["backend"] for row in shown["backends"]} == {"cpu", "triton", "composite", "reference"}


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
            "but for data.root: leave out the recipe imagenet/h0, schedule.epochs, or train into another folder",
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
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(words, message, capsys, tmp_path, monkeypatch):
    assert_a_users_mistake(words, message, capsys, tmp_path, monkeypatch)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(to_yaml(tiny_recipe(make_images(tmp_path / "images"), epochs=1)))
    return path


def test_training_and_resuming_print_what_the_run_gave(recipe, tmp_path, capsys):
    assert main(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 0
    trained = capsys.readouterr().out.splitlines()[-2:]
    assert re.match(
        r"top-1 [\d.]+ % \(95 % interval [\d.]+ to [\d.]+\), loss .* on 8 images of .* after 1 epochs", trained[0]
    )
    assert "model.safetensors" in trained[1]
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.splitlines() == trained


def test_a_note_is_one_line_and_no_mistake(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", str(recipe), "--run-dir", str(run)]) == 0
    (run / "result.json").unlink()
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save(checkpoint | {"finished": False}, run / "checkpoints" / "last.ckpt")
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("a test", "another test"))
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("halonet")]
    assert len(notes) == 1
    assert re.fullmatch("halonet: note: the resumed run will not end .*: recipe.yaml was edited", notes[0])


def test_a_mistake_found_by_a_loading_process_is_one_line_too(recipe, tmp_path, capsys):
    broken = tmp_path / "images" / "train" / "left" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert main(["train", str(recipe), "--run-dir", str(tmp_path / "run"), "--data.workers", "1"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert shown.splitlines()[-1].startswith("halonet: ")
    assert str(broken) in shown.splitlines()[-1]


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
        ("halonet.training.evaluation", "load_checkpoint", ["evaluate", __file__]),
        ("halonet.data", "find_images", ["predict", __file__, __file__]),
        ("halonet.detection.evaluation", "load_detector", ["detect", "evaluate", __file__]),
        ("halonet.detection.prediction", "load_detector", ["detect", "predict", __file__, __file__]),
        ("halonet.detection.checkpoint", "load_detector", ["detect", "export", __file__, "/tmp/a.onnx"]),
        ("halonet.benchmark.operator", "check_tasks", ["benchmark", "operator"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{name}", lambda *_, **__: os.kill(os.getpid(), number))
            if module == "halonet.detection.prediction":
                patch.setattr("halonet.data.find_images", lambda paths: paths)
            assert main(words) == status
        assert capsys.readouterr().err == f"halonet: {line}\n"


def test_a_run_is_started_or_resumed_by_one_command_line(recipe, tmp_path, capsys):
    words = ["train", str(recipe), "--run-dir", str(tmp_path / "run"), "--resume-or-start"]
    assert main(words) == 0
    first = capsys.readouterr().out.splitlines()[-2:]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == first
    assert main([*words, "schedule.epochs=2"]) == 2
    assert "holds a run of another recipe (schedule.epochs 1 -> 2)" in capsys.readouterr().err


def test_a_missing_extra_is_named(capsys, monkeypatch):
    names = [name for name in sys.modules if name.startswith(("halonet.training", "halonet.schemas"))]
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

    monkeypatch.setattr("halonet_cli.info.run_info", fail)
    with pytest.raises(ZeroDivisionError, match="our fault") as caught:
        main(["info"])
    (note,) = caught.value.__notes__
    assert "a fault of halonet, not yours: please report it to its maintainers, with the command line" in note
    assert "\n" not in note


def test_what_json_cannot_say_is_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr("halonet_cli.info.run_info", lambda options: print_json({"loss": float("nan")}))
    assert main(["info", "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "halonet: a figure is NaN or infinite, which JSON cannot say: look at it without --json\n"


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


def test_a_reader_that_has_had_enough_is_no_error():
    program = f"{sys.executable} -m halonet_cli recipes | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n", "")
