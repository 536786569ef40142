"""`halonet detect` and its commands, but for `export`."""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from halonet_cli import export
from halonet_cli.console import print_json, print_table, printable
from halonet_cli.files import check_checkpoint, check_images
from halonet_cli.parser import add_command, add_commands
from halonet_cli.train import add_training_flags, check_train, run_training


def add(commands: Any) -> None:
    """Add the commands of detection."""
    parser = add_command(commands, "detect", None, "train, measure, run and export Mask R-CNN on our backbones")
    commands = add_commands(parser, "detection", "WHAT")

    train = add_command(
        commands, "train", run_train, "train a detector; with no arguments, on nuclei", check=check_train
    )
    add_training_flags(train, "detection", "detection/nuclei")
    train.add_argument("--init", metavar="CHECKPOINT", help="begin with a classifier's weights, or a detector's")

    evaluate = add_command(
        commands, "evaluate", run_evaluate, "measure a detector: COCO's average precision", check=check_checkpoint
    )
    evaluate.add_argument("checkpoint", help="a run folder, a model.safetensors or a .ckpt")
    evaluate.add_argument("--data", metavar="DIR_OR_NAME", help="default: what it was trained on")
    evaluate.add_argument("--split", help="default: the split that training measured at its end")
    evaluate.add_argument("--workers", type=int, default=0, help="processes that load images")
    evaluate.add_argument("--device", default="auto", help="cpu, cuda, ...")
    evaluate.add_argument("--fast", action="store_true", help="compare by faster-coco-eval instead of pycocotools")
    evaluate.add_argument("--results", type=Path, metavar="FILE", help="write the detections as COCO results")
    evaluate.add_argument("--plot", type=Path, metavar="FILE", help="draw precision over recall (png, svg or pdf)")
    evaluate.add_argument("--json", action="store_true", help="print JSON")

    predict = add_command(commands, "predict", run_predict, "find instances in images", check=check_images)
    predict.add_argument("checkpoint", help="a run folder, a model.safetensors or a .ckpt")
    predict.add_argument("images", nargs="+", help="image files and folders")
    predict.add_argument("--min-score", type=float, default=0.5, help="leave out detections of a lower score")
    predict.add_argument("--device", default="auto", help="cpu, cuda, ...")
    predict.add_argument("--results", type=Path, metavar="FILE", help="write the detections as COCO results")
    predict.add_argument("--pictures", type=Path, metavar="DIR", help="draw boxes, masks, names and scores")
    predict.add_argument("--json", action="store_true", help="print JSON")
    export.add(commands)


def run_train(options: argparse.Namespace) -> None:
    """Train or resume, then say what was written."""
    from halonet.detection.task import Detection
    from halonet.recipes.load import resolve

    initial = [] if options.init is None else [f"model.init={options.init}"]
    run_training(
        options, lambda: resolve(options.recipe, [*options.changes, *initial], task="detection"), Detection.describe
    )


def run_evaluate(options: argparse.Namespace) -> None:
    """Measure, then print the figures."""
    from halonet.detection.evaluation import evaluate
    from halonet.detection.task import describe_value

    result = evaluate(
        options.checkpoint,
        options.data,
        options.split,
        workers=options.workers,
        device=options.device,
        evaluator="faster-coco-eval" if options.fast else "pycocotools",
        results_file=options.results,
        plot_file=options.plot,
    )
    if options.json:
        print_json(result)
        return
    columns = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "small": "ap_small", "medium": "ap_medium"}
    columns |= {"large": "ap_large", "AR100": "ar100"}
    kinds = {name: kind for name, kind in (("boxes", "box"), ("masks", "mask")) if f"{kind}_ap" in result}
    print_table(
        ["%", *columns],
        [
            [name, *(describe_value(result[f"{kind}_{column}"]) for column in columns.values())]
            for name, kind in kinds.items()
        ],
    )
    print()
    print_table(
        ["class", *(f"{kind} AP" for kind in kinds.values())],
        [
            [name, *(describe_value(values[f"{kind}_ap"]) for kind in kinds.values())]
            for name, values in result["per_class"].items()
        ],
    )
    print(
        f"\n{result['images']:,} image{'s' * (result['images'] != 1)} of {result['data']} ({result['split']}), "
        f"{result['images_per_second']:.2g} images/s on {result['device']}, compared by {result['evaluator']}"
    )
    for kind, path in (("detections", options.results), ("curves", options.plot)):
        if path is not None:
            print(f"{kind} written to {path}")


def run_predict(options: argparse.Namespace) -> int:
    """Find, draw and write if asked, and print; the status is 1 if some images could not be read."""
    from halonet.data import find_images
    from halonet.detection.prediction import predict
    from halonet.engine.files import check_output_file, check_output_folder, write_atomically

    if options.results is not None:
        check_output_file(options.results)
    if options.pictures is not None:
        check_output_folder(options.pictures)
    all_rows = predict(
        options.checkpoint,
        find_images(options.images),
        min_score=options.min_score,
        device=options.device,
        pictures=options.pictures,
    )
    rows = [row for row in all_rows if "error" not in row]
    if options.results is not None:
        results = [result | {"file_name": Path(row["file"]).name} for row in rows for result in row["instances"]]
        content = json.dumps(results).encode()
        write_atomically(options.results, lambda file: file.write(content))
    if options.json:
        print_json(all_rows)
    else:
        _print_found(rows, {"detections": options.results, "pictures": options.pictures})
    errors = [row["error"] for row in all_rows if "error" in row]
    for error in errors:
        print(printable(f"halonet: {error}"), file=sys.stderr)
    if errors:
        print(f"halonet: {len(errors)} of {len(all_rows)} images could not be read", file=sys.stderr)
    return 1 if errors else 0


def _print_found(rows: list[dict[str, Any]], written: dict[str, Path | None]) -> None:
    counts = [Counter(instance["label"] for instance in row["instances"]) for row in rows]
    print_table(
        ["file", "instances"],
        [
            [row["file"], ", ".join(f"{number} {label}" for label, number in count.most_common()) or "none"]
            for row, count in zip(rows, counts, strict=True)
        ],
    )
    for kind, path in written.items():
        if path is not None:
            print(f"{kind} written to {path}")
