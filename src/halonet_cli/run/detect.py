"""The commands of `halonet detect`."""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from halonet.data import find_images
from halonet.detection.evaluation import evaluate
from halonet.detection.prediction import predict
from halonet.detection.task import Detection, describe_value
from halonet.engine.files import check_output_file, check_output_folder, write_atomically
from halonet.recipes.load import resolve
from halonet_cli.console import print_json, print_table, tell_unreadable
from halonet_cli.run.train import run_training


def run_train(options: argparse.Namespace) -> None:
    """Train or resume, then say what was written."""
    initial = [] if options.init is None else [f"model.init={options.init}"]
    run_training(
        options, lambda: resolve(options.recipe, [*options.changes, *initial], task="detection"), Detection.describe
    )


def run_evaluate(options: argparse.Namespace) -> None:
    """Measure, then print the figures."""
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
    return tell_unreadable(all_rows)


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
