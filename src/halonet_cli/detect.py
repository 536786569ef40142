"""`halonet detect` and its commands."""

from pathlib import Path
from typing import Any

from halonet_cli.files import add_checkpoint, check_checkpoint, check_images
from halonet_cli.parser import add_command, add_commands
from halonet_cli.train import add_training_flags, check_train


def add(commands: Any) -> None:
    """Add the commands of detection."""
    parser = add_command(commands, "detect", None, "train, measure, run and export Mask R-CNN on our backbones")
    commands = add_commands(parser, "detection", "WHAT")

    train = add_command(
        commands, "train", "detect:run_train", "train a detector; with no arguments, on nuclei", check=check_train
    )
    add_training_flags(train, "detection", "detection/nuclei")
    train.add_argument("--init", metavar="CHECKPOINT", help="begin with a classifier's weights, or a detector's")

    evaluate = add_command(
        commands,
        "evaluate",
        "detect:run_evaluate",
        "measure a detector: COCO's average precision",
        check=check_checkpoint,
    )
    add_checkpoint(evaluate)
    evaluate.add_argument("--data", metavar="DIR_OR_NAME", help="default: what it was trained on")
    evaluate.add_argument("--split", help="default: the split that training measured at its end")
    evaluate.add_argument("--workers", type=int, default=0, help="processes that load images")
    evaluate.add_argument("--device", default="auto", help="cpu, cuda, ...")
    evaluate.add_argument("--fast", action="store_true", help="compare by faster-coco-eval instead of pycocotools")
    evaluate.add_argument("--results", type=Path, metavar="FILE", help="write the detections as COCO results")
    evaluate.add_argument("--plot", type=Path, metavar="FILE", help="draw precision over recall (png, svg or pdf)")
    evaluate.add_argument("--json", action="store_true", help="print JSON")

    predict = add_command(commands, "predict", "detect:run_predict", "find instances in images", check=check_images)
    add_checkpoint(predict)
    predict.add_argument("images", nargs="+", help="image files and folders")
    predict.add_argument("--min-score", type=float, default=0.5, help="leave out detections of a lower score")
    predict.add_argument("--device", default="auto", help="cpu, cuda, ...")
    predict.add_argument("--results", type=Path, metavar="FILE", help="write the detections as COCO results")
    predict.add_argument("--pictures", type=Path, metavar="DIR", help="draw boxes, masks, names and scores")
    predict.add_argument("--json", action="store_true", help="print JSON")

    export = add_command(
        commands,
        "export",
        "export:run_detector_export",
        "write a detector as ONNX, for images of any size",
        check=check_checkpoint,
    )
    add_checkpoint(export)
    export.add_argument("file", type=Path, help="the file to write, NAME.onnx")
    export.add_argument("--skip-check", action="store_true", help="do not compare it with PyTorch at other sizes")
