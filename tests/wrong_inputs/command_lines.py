"""Command lines with one mistake, or none, run in this process."""

import contextlib
import dataclasses
import io
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from unittest.mock import patch

import lightning
import yaml

import halonet
from halonet.engine.weights import describe, save_weights
from halonet.errors import UserError
from halonet.recipes.load import to_yaml
from halonet_cli.main import main
from tests.detection.tiny import tiny_recipe as tiny_detection_recipe
from tests.wrong_inputs.case import Case, pick, shortened
from tests.wrong_inputs.class_folders import picture, write_classes
from tests.wrong_inputs.coco_files import CONTENT, write_coco
from tests.wrong_inputs.detectors import small_detector
from tests.wrong_inputs.fields import FIELDS, RECIPE, UNKNOWN

Line = tuple[str, tuple[str, ...]]
"""Words, and what the message must contain. The working folder holds what `_fill` writes."""

COUNT = "from 1 to 1,000,000,000"
WORKERS = "from 0 to 1,024"
EVALUATE, PREDICT = "evaluate model --data images", "predict model a.png"
DETECT, FIND = "detect evaluate detector --data coco", "detect predict detector a.png"
TRAIN, TRAIN_DETECTOR = "train tiny.yaml", "detect train detection.yaml"
MEASURE = "benchmark operator --sizes h7"

SOUND = (
    *("--help", "train --help", "detect predict --help", "benchmark memory --help"),
    *("info h0", "info h0 --image-size 1", "info tiny28 micro32 --json"),
    *("recipes", "recipes --json", "recipes imagenet/h0", "recipes tiny.yaml", "recipes detection/nuclei"),
    *(EVALUATE, f"{EVALUATE} --split validation", f"{EVALUATE} --batch-size 1 --workers 0 --device cpu --json"),
    *(f"{EVALUATE} --batch-size 1000000000", "evaluate model/model.safetensors --data images"),
    *(PREDICT, f"{PREDICT} images --top-k 1 --json", f"{PREDICT} --csv --batch-size 1", f"{PREDICT} a.png --top-k 99"),
    *("predict model 0.png --data.root images/train/a", f"{PREDICT} --save-maps new/maps"),
    f"{PREDICT} --save-maps new/maps --layer 0 --head 0 --pixel 3 0",
    *(FIND, f"{FIND} --min-score 0 --json", f"{FIND} --min-score 1 --pictures new --results found.json"),
    *(f"{DETECT} --split train", f"{DETECT} --split train --json --results found.json"),
    *(TRAIN, f"{TRAIN} --run-dir new/run", f"{TRAIN} --run-dir new --resume-or-start", f"{TRAIN} --engine.seed=0"),
    *(f"{TRAIN} optimizer.batch-size=6", f"{TRAIN} --schedule.epochs 1 --ema.decay 0", "train new.yml"),
    *(TRAIN_DETECTOR, f"{TRAIN_DETECTOR} --schedule.steps 3 --schedule.drops []"),
)

UNKNOWN_WORDS: list[Line] = [
    ("frobnicate", ("'frobnicate'", "train", "benchmark")),
    ("Train", ("'Train'", "train", "benchmark")),
    ("detect frob", ("'frob'", "train", "export")),
    ("benchmark frob", ("'frob'", "operator", "claims")),
    *((f"{words} --batchsize 3", ("--batchsize",)) for words in (EVALUATE, PREDICT, FIND, MEASURE, TRAIN, "info")),
    ("recipes photos fashion_mnist", ("fashion_mnist",)),
    ("info h9", ("unknown model 'h9'", "Known: h0")),
    *((f"{words} nope", ("unknown recipe 'nope'",)) for words in ("recipes", "train", "detect train")),
    ("train fashion_mnst", ("unknown recipe 'fashion_mnst'", "Did you mean 'fashion_mnist'")),
    *(
        (f"{TRAIN} --{key} 1", (f"unknown key '{key}'", f"Did you mean '{meant}'"))
        for key, meant in UNKNOWN.items()
        if "." in key
    ),
    (f"{TRAIN_DETECTOR} --schedule.epochs 3", ("unknown key 'schedule.epochs'",)),
    ("benchmark operator --sizes h99", ("unknown size 'h99'", "Known: ")),
    ("benchmark operator --peers nobody", ("unknown peer 'nobody'", "Known: ")),
    ("benchmark operator --passes backward", ("unknown pass 'backward'", "Known: forward, training")),
    ("benchmark operator --compare x", ("unknown comparison 'x'", "Known: ")),
    ("benchmark operator --scaling x", ("unknown scaling 'x'", "Known: image, window")),
    ("benchmark model --models h99", ("unknown model 'h99'", "Known: ")),
    ("benchmark memory --pass x", ("unknown pass 'x'", "Known: inference, training")),
    ("benchmark claims --data images --shard 3/2", ("--shard is 3/2", "I/N with I from 1 to N")),
    (f"{EVALUATE} --split tset", ("unknown split", "'tset'", "Known: train, validation")),
    (f"{DETECT} --split tset", ("unknown split", "'tset'", "Known: train")),
    (f"{PREDICT} --save-maps new --head 9", ("--head is 9", "from 0 to")),
    (f"{PREDICT} --save-maps new --layer 9", ("--layer is 9", "from 0 to")),
    (f"{PREDICT} --save-maps new --pixel 99 0", ("--pixel is (99, 0)", "a row from 0 to")),
    (f"{PREDICT} --pixel 0 0", ("--pixel chooses what --save-maps shows", "add --save-maps DIR")),
]

MISSING: list[Line] = [
    *((words, ("checkpoint",)) for words in ("evaluate", "predict", "detect evaluate", "detect export")),
    *((f"{words} model", ("images",)) for words in ("predict", "detect predict")),
    ("detect export detector", ("file",)),
    ("benchmark claims", ("--data",)),
    *((f"{TRAIN} {flag}", (flag,)) for flag in ("--resume", "--run-dir")),
    (f"{TRAIN} --engine.seed", ("--engine.seed has no value", "--engine.seed=VALUE")),
    *(
        (f"{words} nowhere", ("there is no checkpoint nowhere", "give a run folder"))
        for words in ("evaluate", "detect evaluate")
    ),
    ("predict nowhere a.png", ("there is no checkpoint nowhere",)),
    ("detect predict nowhere a.png", ("there is no checkpoint nowhere",)),
    ("detect export nowhere a.onnx", ("there is no checkpoint nowhere",)),
    ("predict model nowhere.png", ("nowhere.png does not exist",)),
    ("detect predict detector nowhere.png", ("nowhere.png does not exist",)),
    ("predict model empty", ("folder empty holds no images",)),
    ("evaluate model --data ./nowhere", ("data folder nowhere does not exist",)),
    ("evaluate model", ("does not say what data", "--data")),
    ("detect evaluate detector --data ./nowhere", ("data folder nowhere does not exist",)),
    (f"{TRAIN} --data.source ./nowhere", ("data folder", "nowhere does not exist")),
    (f"{TRAIN_DETECTOR} --data.source ./nowhere", ("data folder", "nowhere does not exist")),
    (f"{TRAIN_DETECTOR} --init nowhere", ("there is no checkpoint nowhere",)),
    ("train ./nowhere.yaml", ("cannot read", "nowhere.yaml", "o such file")),
    *((f"{words} --resume nowhere", ("nowhere holds no run to resume",)) for words in ("train", "detect train")),
]

OF_ANOTHER_KIND: list[Line] = [
    ("evaluate a.png", ("a.png is not a checkpoint",)),
    ("evaluate detector", ("does not say which HaloNet", "MaskRCNN")),
    ("detect evaluate model", ("model.safetensors holds no detector", "HaloNet")),
    ("detect predict model a.png", ("model.safetensors holds no detector", "HaloNet")),
    ("detect export model a.onnx", ("model.safetensors holds no detector", "HaloNet")),
    ("train detection/nuclei", ("recipe of detection", "halonet detect train")),
    ("detect train fashion_mnist", ("recipe of classification", "halonet train")),
    *((f"train {name}", (f"unknown recipe '{name}'",)) for name in ("a.png", "images")),
    (f"{TRAIN} --data.source a.png", ("a.png is a file",)),
    *((f"train {recipe} --data.source one", ("one class, 'a'", "two or more")) for recipe in ("tiny.yaml", "photos")),
    (f"{TRAIN_DETECTOR} --data.source images", ("images holds no detection data",)),
    (f"{TRAIN} --model.num-classes 3", ("has 2 classes", "model.num_classes is 3", "set it to 2")),
    (f"{EVALUATE} --device cudaa", ("device 'cudaa' cannot be used here",)),
    (f"{PREDICT} --device cuda:99", ("device 'cuda:99' cannot be used here",)),
    (f"{FIND} --device x", ("device 'x' cannot be used here",)),
    (f"{MEASURE} --device x", ("--device 'x' is not available",)),
    (f"{MEASURE} --dtype int8", ("int8", "float64, float32, bfloat16 or float16")),
    ("benchmark memory --dtype float65", ("float65", "float64, float32, bfloat16 or float16")),
]

NOT_WRITABLE: list[Line] = [
    (f"{PREDICT} --save-maps a.png/maps", ("a.png is a file, not a folder", "name another place")),
    (f"{FIND} --pictures a.png", ("a.png is a file, not a folder",)),
    (f"{FIND} --pictures /proc/new", ("cannot write /proc/new",)),
    (f"{FIND} --results empty", ("cannot write empty: it is a folder",)),
    (f"{FIND} --results nowhere/found.json", ("there is no folder nowhere", "make it first")),
    (f"{DETECT} --results a.png/found.json", ("a.png is a file, not a folder",)),
    (f"{DETECT} --plot curves.txt", ("cannot write curves.txt", "must end in one of .png, .svg, .pdf")),
    ("detect export detector empty", ("cannot write empty: it is a folder",)),
    ("detect export detector nowhere/a.onnx", ("there is no folder nowhere",)),
    (f"{TRAIN} --run-dir a.png/run", ("cannot write into run folder a.png/run",)),
    (f"{TRAIN} --run-dir /proc/run", ("cannot write into run folder /proc/run",)),
    (f"{TRAIN} --run-dir begun", ("begun already holds a run", "--resume begun")),
    (f"{TRAIN} --run-dir begun --resume-or-start", ("begun holds a run of another recipe", "schedule.epochs 3 -> 2")),
    (f"{TRAIN_DETECTOR} --run-dir a.png/run", ("cannot write into run folder a.png/run",)),
    (f"{MEASURE} --output empty", ("cannot write empty: it is a folder",)),
    (f"{MEASURE} --output a.png", ("--output a.png exists and is not a record of a benchmark",)),
    (f"{MEASURE} --plot curves.txt", ("cannot write curves.txt", "must end in one of .png, .svg, .pdf")),
    ("benchmark claims --data images --output a.png/x", ("a.png is a file, not a folder",)),
]

CONTRADICTORY: list[Line] = [
    ("train tiny.yaml --resume begun", ("--resume takes the recipe", "leave out the recipe tiny.yaml")),
    ("train --resume begun --schedule.epochs 3", ("--resume takes the recipe", "leave out schedule.epochs")),
    ("train --resume begun --run-dir new", ("--resume names the run folder already", "leave --run-dir out")),
    ("train --resume begun --resume-or-start", ("--resume and --resume-or-start exclude each other",)),
    ("detect train --resume begun --init detector", ("--resume takes the recipe", "leave out --init")),
    ("detect train --resume begun --data.source coco", ("--resume takes the recipe", "leave out data.source")),
    ("benchmark operator --compare centered --scaling image", ("--compare and --scaling exclude each other",)),
    ("benchmark operator --compare centered --peers timm", ("--compare and --peers exclude each other",)),
    ("benchmark operator --scaling image --sizes h7", ("--scaling and --sizes exclude each other",)),
    ("benchmark model --accelerate --compare centered", ("--compare and --accelerate exclude each other",)),
]

# By the words before it: a flag, the values that are out of its range, and the rule.
NUMBERS: list[tuple[str, str, tuple[str, ...], str]] = [
    ("info h0", "--image-size", ("0", "-1", "16385", "1" + "0" * 30), "from 1 to 16,384"),
    (EVALUATE, "--batch-size", ("0", "-3", "1000000001"), COUNT),
    (EVALUATE, "--workers", ("-1", "1025"), WORKERS),
    (PREDICT, "--top-k", ("0", "-1", "1000000001"), COUNT),
    (PREDICT, "--batch-size", ("0", "-1"), COUNT),
    (DETECT, "--workers", ("-1", "1025"), WORKERS),
    (FIND, "--min-score", ("-0.1", "1.1", "1e300"), "from 0 to 1"),
    (FIND, "--min-score", ("nan", "inf", "-inf"), "a finite number"),
    (MEASURE, "--batch", ("0", "-1", "1000000001"), COUNT),
    (MEASURE, "--repeats", ("0", "1", "1000001"), "from 2 to 1,000,000"),
    (MEASURE, "--threads", ("0", "-1", "65537"), "from 1 to 65,536"),
    ("benchmark memory", "--batch", ("0", "-1"), COUNT),
    ("benchmark claims --data images", "--minutes", ("0", "-1", "nan", "inf"), "a finite number above 0"),
]
NOT_WHOLE, NOT_A_NUMBER = ("many", "1.5", "", "1e3", "0x10"), ("many", "1,5", "")


def make_command_line(random: Random) -> Case:
    """Words after `halonet` with one mistake, or none."""
    tables = {"unknown": UNKNOWN_WORDS, "missing": MISSING, "kind": OF_ANOTHER_KIND}
    tables |= {"output": NOT_WRITABLE, "contradiction": CONTRADICTORY}
    way = random.choices([*tables, "sound", "number", "recipe"], weights=[3, 3, 2, 2, 2, 4, 4, 4])[0]
    if way == "number":
        words, expected = _wrong_number(random)
    elif way == "recipe":
        words, expected = _wrong_value(random)
    else:
        text, expected = (random.choice(SOUND), ()) if way == "sound" else random.choice(tables[way])
        words = text.split(" ")
    return Case(shortened(" ".join(words)), lambda folder: run(folder, words, is_sound=not expected), expected)


def _wrong_number(random: Random) -> tuple[list[str], tuple[str, ...]]:
    words, flag, values, rule = random.choice(NUMBERS)
    if random.random() < 0.6:
        value, expected = random.choice(values), (flag, rule)
    else:
        value = random.choice(NOT_A_NUMBER if flag in ("--min-score", "--minutes") else NOT_WHOLE)
        expected = (flag, f"'{value}'")
    return [*words.split(" "), f"{flag}={value}"], expected


def _wrong_value(random: Random) -> tuple[list[str], tuple[str, ...]]:
    """A recipe's field with a value that it refuses; what `halonet train` takes as text is left out."""
    fields = {key: field for key, field in FIELDS.items() if not field.is_text}
    key, value, expected = pick(random, fields, share_right=0)
    written = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
    rate = ["--optimizer.learning-rate=0.1"] if key == "optimizer.batch_size" else []
    return [*TRAIN.split(" "), *rate, f"--{key}={written}"], expected


class Begun(Exception):
    """Training would begin now, so the command line is valid."""


def run(folder: Path, words: list[str], is_sound: bool = False) -> None:
    """Run `halonet` in a folder that contains everything a command line may name.

    Raises:
        UserError: It ended with status 2; the message is the one line that it printed.
        AssertionError: It ended otherwise, printed more than a line, or left something behind.
    """
    _fill(folder)
    before = sorted(folder.rglob("*"))
    output, errors = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        patch.object(lightning.Trainer, "__init__", side_effect=Begun),
    ):
        try:
            status = main(words)
        except SystemExit as stop:
            status = stop.code
        except Begun:
            status = 0
    message = errors.getvalue()
    if status == 0:
        return
    lines = [line for line in message.splitlines() if not line.startswith("halonet: note: ")]
    assert status == 2, f"status {status}: {message}"
    assert len(lines) == 1, f"{len(lines)} lines: {message}"
    assert lines[0].startswith("halonet: "), message
    assert is_sound or sorted(folder.rglob("*")) == before, "it left something behind"
    raise UserError(lines[0])


def _fill(folder: Path) -> None:
    """Write images, COCO images, checkpoints of a classifier and a detector, recipes, and an unfinished run."""
    write_classes(folder / "images")
    write_coco(folder / "coco", json.dumps(CONTENT))
    (folder / "a.png").write_bytes(picture())
    for name, content in _checkpoints().items():
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_bytes(content)
    for split in ("train", "val"):
        shutil.copytree(folder / "images/train/a", folder / "one" / split / "a")
    (folder / "empty").mkdir()
    (folder / "begun").mkdir()
    for name, content in _recipes().items():
        (folder / name).write_text(content)


@cache
def _recipes() -> dict[str, str]:
    """Recipes by file name: for a classifier, for the unfinished run, and for a detector."""
    recipe = RECIPE | {"data": RECIPE["data"] | {"source": "images", "test_split": "validation"}}
    tiny, begun = (yaml.safe_dump(recipe | {"schedule": {"epochs": epochs}}) for epochs in (2, 3))
    detection = tiny_detection_recipe("coco")
    data = dataclasses.replace(detection.data, validation_split=None, test_split="train")
    files = {"tiny.yaml": tiny, "new.yml": tiny, "begun/recipe.yaml": begun}
    return files | {"detection.yaml": to_yaml(dataclasses.replace(detection, data=data))}


@cache
def _checkpoints() -> dict[str, bytes]:
    classifier = halonet.create_model("h0", num_classes=2, in_chans=1, **RECIPE["model"]["overrides"])
    preprocessing = RECIPE["data"]["augmentation"] | {"train_crop": "pad"}
    information = describe(classifier) | {"class_names": ["a", "b"], "preprocessing": preprocessing}
    information |= {"test_split": "validation"}
    saved = {
        "model": (classifier.state_dict(), information),
        "detector": small_detector(),
    }
    contents = {}
    for name, (state, described) in saved.items():
        with tempfile.TemporaryDirectory() as folder:
            save_weights(Path(folder) / "a", state, described)
            contents[name] = (Path(folder) / "a").read_bytes()
    return contents
