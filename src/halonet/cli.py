"""The command line: parse, call one function, print."""

import argparse
import csv
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from halonet.benchmark.command_line import add_benchmarks
from halonet.console import print_json, print_table, printable, survive_any_encoding
from halonet.detection.command_line import add_detection
from halonet.detection.export.command_line import add_detector_export
from halonet.errors import UserError, UserNote
from halonet.installation import command_for_extra
from halonet.interrupts import Interrupted, interruptible
from halonet.rules import Side, check_arguments
from halonet.training.command_line import add_training_flags, run_training


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; None takes those of the process.

    Returns:
        The exit status: 0, 1 where some of many images could not be read, 2 for a mistake of the user (told on stderr),
        and 130, 143 or 129 after Ctrl-C, SIGTERM or SIGHUP (one line too).
    """
    survive_any_encoding()
    with interruptible():
        try:
            return _run(arguments)
        except KeyboardInterrupt as error:
            stop = error if isinstance(error, Interrupted) else Interrupted("interrupted")
            if str(stop):  # of several processes of a run, the first speaks
                with suppress(OSError):  # the terminal may be gone
                    print(f"halonet: {stop}", file=sys.stderr, flush=True)
            return stop.status


def _run(arguments: Sequence[str] | None) -> int:
    words, overrides = split_overrides(sys.argv[1:] if arguments is None else list(arguments))
    options = make_parser().parse_args(words, argparse.Namespace(words=words))
    try:
        with _notes_on_stderr():
            return options.run(options, overrides) or 0
    except UserError as error:
        # From a process that loads images, the message comes at the end of that process's traceback.
        message = re.split(r"halonet\.(?:errors|rules)\.\w+: ", str(error))[-1].rstrip()
        print("\n".join(printable(line) for line in f"halonet: {message}".split("\n")), file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output, `head` for one, has had enough
        sys.stderr.close()
        return 0
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in TRAIN_MODULES:
            raise
        extra = "detection" if options.command == "detect" else "train"
        print(f"halonet: {options.command} needs {error.name}: {command_for_extra(extra)}", file=sys.stderr)
        return 2
    except Exception as error:
        error.add_note(INTERNAL)
        raise


@contextmanager
def _notes_on_stderr() -> Iterator[None]:
    show = warnings.showwarning

    def show_note(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, UserNote):
            print(f"halonet: note: {printable(str(message))}", file=sys.stderr)
        else:
            show(message, category, *place)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserNote)
        warnings.showwarning = show_note
        yield


def split_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """Take the recipe's fields out of the words of `halonet train` and `halonet detect train`.

    Args:
        words: All words after the program's name.

    Returns:
        The words for the parser, and the overrides: `--a.b VALUE`, `--a.b=VALUE` and `a.b=VALUE`.
    """
    if words[:1] != ["train"] and words[:2] != ["detect", "train"]:
        return words, []
    rest, overrides, coming = [], [], iter(words)
    for word in coming:
        key, equals, _ = word.partition("=")
        if not re.fullmatch(r"(--)?[A-Za-z][\w-]*(\.[\w-]+)+", key) or not (equals or key.startswith("--")):
            rest.append(word)
            continue
        overrides.append(word)
        if not equals:
            overrides.extend(word for word in (next(coming, None),) if word is not None)
    return rest, overrides


INTERNAL = (
    "halonet: this is a fault of halonet, not yours: please report it to its maintainers, with the command line and "
    "all of the above"
)
TRAIN_MODULES = ("lightning", "matplotlib", "pydantic", "tensorboard", "torchmetrics", "torchvision")


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="halonet", description="Local self-attention for vision.", formatter_class=Formatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = _command(commands, "train", run_train, "train a recipe; with no arguments, the quickstart")
    add_training_flags(train, "fashion_mnist")

    evaluate = _command(commands, "evaluate", run_evaluate, "measure a checkpoint on a data set")
    evaluate.add_argument("checkpoint", help="a run folder, a model.safetensors or a .ckpt")
    evaluate.add_argument("--data", metavar="DIR_OR_NAME", help="default: what it was trained on")
    _add_root(evaluate, "the folder that a named data set lies in (default: as in training)")
    evaluate.add_argument("--split", help="default: the split that training measured at its end")
    evaluate.add_argument("--batch-size", type=int, default=256, help="images at a time")
    evaluate.add_argument("--workers", type=int, default=0, help="processes that load images")
    evaluate.add_argument("--device", default="auto", help="cpu, cuda, ...")
    evaluate.add_argument("--json", action="store_true", help="print JSON")

    predict = _command(commands, "predict", run_predict, "label images")
    predict.add_argument("checkpoint", help="a run folder, a model.safetensors or a .ckpt")
    predict.add_argument("images", nargs="+", help="image files and folders")
    _add_root(predict, "the folder that relative paths of images start from")
    predict.add_argument("--top-k", type=int, default=5, help="guesses for each image")
    predict.add_argument("--batch-size", type=int, default=64, help="images at a time")
    predict.add_argument("--device", default="auto", help="cpu, cuda, ...")
    predict.add_argument("--json", action="store_true", help="print JSON")
    predict.add_argument("--csv", action="store_true", help="print comma-separated values")
    predict.add_argument("--save-maps", type=Path, metavar="DIR", help="write a picture of where pixels look")

    info = _command(commands, "info", run_info, "list the models beside the paper, and the backends here")
    info.add_argument("models", nargs="*", help="default: all")
    info.add_argument("--image-size", type=int, help="count at this size (default: each model's own)")
    info.add_argument("--json", action="store_true", help="print JSON")

    recipes = _command(commands, "recipes", run_recipes, "list the recipes, or print one")
    recipes.add_argument("recipe", nargs="?", help="print this one in full")
    recipes.add_argument("--json", action="store_true", help="print JSON")

    detect = _command(commands, "detect", None, "train, measure, run and export Mask R-CNN on our backbones")
    add_detector_export(add_detection(detect, _command), _command)

    benchmark = _command(commands, "benchmark", None, "time and memory of the operator and of whole networks")
    add_benchmarks(benchmark, _command)
    return parser


def _add_root(parser: argparse.ArgumentParser, summary: str) -> None:
    """Add a flag of the same name as the recipe's field."""
    parser.add_argument("--data.root", dest="root", type=Path, metavar="DIR", help=summary)


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but for those that say nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace, list[str]], int | None] | None, summary: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", formatter_class=Formatter
    )
    parser.set_defaults(run=run)
    return parser


def run_train(options: argparse.Namespace, overrides: list[str]) -> None:
    """Train or resume, then say what was written."""
    from halonet.classification.task import Classification
    from halonet.data.classification.sources import require_asked_for
    from halonet.engine.run import resume, train
    from halonet.recipes.load import resolve, split_overrides as as_pairs

    def begin(name: str, changes: list[str], folder: Path | None, or_resume: bool) -> Path:
        recipe = resolve(name, changes, task="classification")
        require_asked_for(recipe.data.source, dict(as_pairs(changes)).get("data.source"), f"recipe {name}")
        return train(recipe, folder, or_resume=or_resume)

    run_training(
        options,
        overrides,
        begin=begin,
        resume=resume,
        describe=Classification.describe,
        has_root=True,
    )


def run_evaluate(options: argparse.Namespace, overrides: list[str]) -> None:
    """Measure, then print the figures."""
    from halonet.classification.evaluation import describe_accuracy, evaluate
    from halonet.classification.task import data_of

    result = evaluate(
        options.checkpoint,
        options.data,
        options.split,
        root=options.root,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
    )
    if options.json:
        print_json(result)
        return
    print(
        printable(
            f"{describe_accuracy(result)} on {result['images']:,} images of {data_of(result)} ({result['split']}), "
            f"{result['images_per_second']:.0f} images/s on {result['device']}"
        )
    )


def run_predict(options: argparse.Namespace, overrides: list[str]) -> int:
    """Label, draw if asked, and print; the status is 1 if some images could not be read."""
    from halonet.classification.prediction import predict, save_maps
    from halonet.data import find_images
    from halonet.engine.files import check_output_folder

    if options.save_maps is not None:
        check_output_folder(options.save_maps)
    files = find_images([Path(options.root or "", image) for image in options.images])
    all_rows = predict(options.checkpoint, files, options.top_k, batch_size=options.batch_size, device=options.device)
    rows = [row for row in all_rows if "error" not in row]
    if options.save_maps is not None:
        for row, path in zip(rows, save_maps(options.checkpoint, rows, options.save_maps), strict=True):
            row["map"] = str(path)
    if options.json:
        print_json(all_rows)
    elif options.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["file", "rank", "label", "probability"])
        for row in rows:
            for rank, guess in enumerate(row["top"], 1):
                cells = [printable(row["file"]), rank, printable(guess["label"]), f"{guess['probability']:.6f}"]
                writer.writerow(cells)
    elif rows:
        print_table(
            ["file", *(f"guess {rank + 1}" for rank in range(len(rows[0]["top"])))],
            [
                [row["file"], *(f"{guess['label']} {100 * guess['probability']:.1f} %" for guess in row["top"])]
                for row in rows
            ],
        )
        if options.save_maps is not None:
            print(f"attention maps written to {options.save_maps}")
    errors = [row["error"] for row in all_rows if "error" in row]
    for error in errors:
        print(f"halonet: {printable(error)}", file=sys.stderr)
    if errors:
        print(f"halonet: {len(errors)} of {len(all_rows)} images could not be read", file=sys.stderr)
    return 1 if errors else 0


def run_info(options: argparse.Namespace, overrides: list[str]) -> None:
    """Print the family beside the paper, and the backends of this machine."""
    import torch

    import halonet
    from halonet.models import describe_model
    from halonet.ops.attention import describe_backends

    check_arguments(image_size=(options.image_size, Side | None))
    models = [describe_model(name, options.image_size) for name in options.models or halonet.HALONETS]
    backends = describe_backends()
    versions = {"halonet": halonet.__version__, "torch": torch.__version__}
    if options.json:
        print_json({"versions": versions, "backends": backends, "models": models})
        return
    print_table(
        ["model", "px", "layers", "M params", "paper", "G MACs", "attention", "in image"],
        [
            [
                row["name"],
                str(row["image_size"]),
                str(row["layers"]),
                f"{row['parameters'] / 1e6:.1f}",
                "" if row["paper_parameters"] is None else f"{row['paper_parameters'] / 1e6:.1f}",
                f"{row['macs'] / 1e9:.2f}",
                f"{row['attention_macs'] / 1e9:.2f}",
                "" if row["visible"] is None else f"{100 * row['visible']:.0f} %",
            ]
            for row in models
        ],
    )
    print(
        "\nM params with 1,000 classes; the paper's column for H3 does not follow from its own table.\n"
        "MACs count (b + 2h)^2 keys for each query, padding included (Table 1); `in image` is the share inside.\n"
    )
    print_table(["backend", "auto takes it on", "what it is"], [list(row.values()) for row in backends])
    print("\n" + ", ".join(f"{name} {version}" for name, version in versions.items()))


def run_recipes(options: argparse.Namespace, overrides: list[str]) -> None:
    """List the recipes, or print one."""
    from halonet.recipes.load import list_recipes, resolve, to_yaml

    if options.recipe is not None:
        print(to_yaml(resolve(options.recipe)), end="")
        return
    rows = [resolve(name) for name in list_recipes()]
    if options.json:
        print_json([{"name": r.name, "reproduces": r.reproduces, "result": r.provenance.result} for r in rows])
        return
    print_table(["recipe", "reproduces", "here"], [[row.name, row.reproduces, row.provenance.result] for row in rows])


if __name__ == "__main__":
    sys.exit(main())
