import json

import pytest

from halonet.recipes.load import resolve, to_yaml
from halonet_cli.main import main, make_parser
from tests.detection.tiny import BACKBONE, SMALL, tiny_recipe
from tests.halonet_cli.mistakes import assert_a_users_mistake

OPTIONS = {
    "train": {"--help", "--init", "--resume", "--resume-or-start", "--run-dir"},
    "evaluate": {"--data", "--device", "--fast", "--help", "--json", "--plot", "--results", "--split", "--workers"},
    "predict": {"--device", "--help", "--json", "--min-score", "--pictures", "--results"},
    "export": {"--help", "--skip-check"},
}


def test_the_commands_and_their_options_are_exactly_these():
    found = {
        name: {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
        for name, parser in make_parser().commands["detect"].commands.items()
    }
    assert found == OPTIONS


def test_a_detector_is_trained_measured_and_run(scenes, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(to_yaml(tiny_recipe(scenes)))
    assert main(["detect", "train", "tiny.yaml", "--schedule.steps", "5", "--schedule.drops=[4]"]) == 0
    shown = capsys.readouterr().out
    assert "box AP" in shown
    assert "after 5 steps" in shown
    assert "written to runs/tiny: checkpoints, curves.png, detections.json" in shown

    assert main(["detect", "evaluate", "runs/tiny", "--fast", "--results", "found.json"]) == 0
    shown = capsys.readouterr().out
    assert "compared by faster-coco-eval" in shown
    assert "disc" in shown
    assert "detections written to found.json" in shown
    assert isinstance(json.loads((tmp_path / "found.json").read_text()), list)

    images = str(scenes / "val")
    words = ["detect", "predict", "runs/tiny", images, "--min-score", "0", "--pictures", "drawn", "--results", "r.json"]
    assert main(words) == 0
    assert "pictures written to drawn" in capsys.readouterr().out
    assert len(list((tmp_path / "drawn").iterdir())) == 3
    assert {result["file_name"] for result in json.loads((tmp_path / "r.json").read_text())} <= {
        *("001.png", "002.png", "003.png")
    }


def test_json_is_printed_alone(finished_run, scenes, capsys):
    assert main(["detect", "evaluate", str(finished_run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 3
    assert main(["detect", "predict", str(finished_run), str(scenes / "val"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3


def test_unreadable_images_are_named_and_the_status_says_so(finished_run, scenes, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert main(["detect", "predict", str(finished_run), str(scenes / "val"), str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "003.png" in shown.out
    assert "bad.png is not an image" in shown.err
    assert "halonet: 1 of 4 images could not be read" in shown.err


def test_a_detector_of_boxes_is_trained_from_a_folder_alone_and_measured(box_scenes, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("halonet.detection.from_data.estimate_seconds", lambda recipe: 60.0)
    small = [f"--model.overrides={json.dumps(BACKBONE)}", "--model.name=tiny28", "--schedule.steps=3"]
    small += [f"--model.{name}={number}" for name, number in SMALL.items()]
    small += [f"--data.augmentation.{name}=64" for name in ("min_size", "max_size", "jitter_size")]
    assert main(["detect", "train", "detection/photos", "--data.source", str(box_scenes), *small]) == 0
    shown = capsys.readouterr().out
    assert "boxes and no masks" in shown
    assert "mask AP" not in shown
    run = "runs/detection/photos"
    assert main(["detect", "evaluate", run, "--plot", "curves.png"]) == 0
    shown = capsys.readouterr().out
    assert "boxes" in shown
    assert "mask" not in shown
    assert main(["detect", "predict", run, str(box_scenes / "val"), "--min-score", "0", "--pictures", "drawn"]) == 0
    assert len(list((tmp_path / "drawn").iterdir())) == 3
    # What followed from the data stands in the recipe, so that the run can be resumed.
    assert resolve(f"{run}/recipe.yaml").model.masks is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "imagenet/h0"], "recipe imagenet/h0 is a recipe for classification: train it with halonet train"),
        (["train", "--schedule.step", "3"], "unknown key 'schedule.step'. Did you mean 'schedule.steps'"),
        (["train", "--init", "nowhere"], "there is no checkpoint .*nowhere"),
        (["train", "--data.source", "nowhere"], "nowhere"),
        (["train", "--resume", "nowhere"], "nowhere holds no run to resume"),
        (
            ["train", "detection/nuclei", "--resume", "nowhere", "--init", "a.ckpt"],
            "--resume takes the recipe of the run as it is: leave out the recipe detection/nuclei, --init",
        ),
        (["evaluate", __file__, "--results", "no/found.json"], "there is no folder no; make it first"),
        (["evaluate", __file__, "--plot", "curves.gif"], "must end in one of .png, .svg, .pdf"),
        (["predict", __file__, ".", "--results", "."], "it is a folder; name a file in it"),
        (["predict", __file__, ".", "--pictures", "/dev/null/maps"], "/dev/null is a file, not a folder"),
        (["export", __file__, "/proc/a.onnx"], "cannot write /proc/a.onnx: /proc"),
        (["predict", __file__, __file__, "--min-score", "2"], "--min-score is 2.0, but must be from 0 to 1"),
        (["evaluate", __file__, "--workers", "-1"], "--workers is -1, but must be from 0"),
        (["evaluate", "nowhere"], "there is no checkpoint nowhere"),
        (["predict", __file__, "."], "folder . holds no images"),
        (["export", "nowhere", "a.onnx"], "there is no checkpoint nowhere"),
    ],
)
def test_a_mistake_is_one_line(words, message, capsys, tmp_path, monkeypatch):
    assert_a_users_mistake(["detect", *words], message, capsys, tmp_path, monkeypatch)
