"""One run of the plan: train a row with a seed, measure it, and put everything into a record."""

import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from halonet.benchmark.claims.experiment import experiment_hash, resolved_recipe
from halonet.benchmark.claims.plan import Row
from halonet.benchmark.claims.records import AGAIN, REMEDY
from halonet.benchmark.claims.schema import BENCHMARK, COMPLETE, DIVERGED
from halonet.benchmark.claims.shifts import classify, measure_shifts, share
from halonet.benchmark.record import describe_machine, describe_run
from halonet.classification.checkpoint import load_checkpoint
from halonet.classification.evaluation import preprocessing
from halonet.classification.module import Classifier
from halonet.classification.recipe import Recipe
from halonet.data import build_transform, load_source
from halonet.data.classification.image_source import labels_of
from halonet.engine.files import explain_full_disk
from halonet.engine.run import read_result, train
from halonet.errors import DivergedError, UserError
from halonet.interrupts import Interrupted, name_of
from halonet.models.halonet import HaloNet
from halonet.models.macs import count_macs

SPLITS = ("train", "validation", "test")


def execute(row: Row, seed: int, root: Path, code: dict[str, Any]) -> dict[str, Any]:
    """Train a row with one seed in this process, and return its record, see `halonet.benchmark.claims.schema`.

    `root` is the folder that holds CIFAR-10, and `code` what `describe_code` returns.

    Raises:
        UserError: The data cannot be read, or the disk is full.
        Interrupted: A signal ended it.
    """
    recipe = dataclasses.replace(
        row.recipe,
        data=dataclasses.replace(row.recipe.data, root=str(root)),
        engine=dataclasses.replace(row.recipe.engine, seed=seed),
    )
    record = _begin(row, seed, recipe, code)
    wall, process = time.monotonic(), time.process_time()
    with (
        explain_full_disk(Path(tempfile.gettempdir()), REMEDY),
        tempfile.TemporaryDirectory(prefix="halonet-claims-") as folder,
    ):
        run = Path(folder) / "run"
        try:
            train(recipe, run, advice=AGAIN)  # a folder that is removed cannot be resumed
            record |= {"status": COMPLETE, "reason": None} | _measure(recipe, run)
        except DivergedError as error:
            record |= {"status": DIVERGED, "reason": str(error), "test": None, "predictions": None, "shifts": None}
        except Interrupted as error:
            message = f"{name_of(error.number)}: the run of {row.name} with seed {seed} was stopped and left no record"
            raise Interrupted(f"{message}: {AGAIN}", error.number) from error
        record["epochs"] = _read_epochs(run)
    record["seconds"] = {"process": time.process_time() - process, "wall": time.monotonic() - wall}
    return record


def describe_data(recipe: Recipe, root: Path) -> dict[str, Any]:
    """Name the variant of the data, its checksums, and the images of each split."""
    sources = {
        split: load_source(recipe.data.source, split, root=root, train_images=recipe.data.train_images)
        for split in SPLITS
    }
    return {
        "variant": getattr(sources["test"], "variant", None),
        "checksums": {split: getattr(sources[split], "checksum", None) for split in ("train", "test")},
        "images": {split: len(source) for split, source in sources.items()},
    }


def _begin(row: Row, seed: int, recipe: Recipe, code: dict[str, Any]) -> dict[str, Any]:
    network = Classifier.of(recipe).network
    assert isinstance(network, HaloNet)
    machine = describe_machine()
    assert recipe.data.root is not None
    return {
        "benchmark": BENCHMARK,
        "row": row.name,
        "seed": seed,
        "recipe": resolved_recipe(recipe),
        "recipe_hash": experiment_hash(recipe),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "macs": count_macs(network, recipe.data.augmentation.image_size).total,
        "data": describe_data(recipe, Path(recipe.data.root)),
        "machine": {
            "processor": machine["processor"],
            "instructions": machine["instructions"],
            "cpu_backend": machine["cpu_backend"],
            "threads": str(torch.get_num_threads()),
        },
        "provenance": describe_run([]) | code | {"command": f"halonet benchmark claims --data DIR --row {row.name}"},
    }


def _measure(recipe: Recipe, run: Path) -> dict[str, Any]:
    """Measure the test images with the last weights, and every fifth of them moved."""
    result = read_result(run)
    network, information = load_checkpoint(run)
    source = load_source(recipe.data.source, recipe.data.test_split, root=Path(recipe.data.root or "."))
    transform = build_transform(preprocessing(information, str(run)), train=False)
    labels = labels_of(source)
    predictions = classify(network, source, transform)
    if abs(share(predictions, labels) - result["top1"]) > 1e-9:
        raise RuntimeError("the same weights gave two accuracies on the same images")
    return {
        "test": {name: result[name] for name in ("top1", "top5", "loss", "images")},
        "predictions": "".join(map(str, predictions)),
        "shifts": measure_shifts(network, source, transform, predictions, labels),
    }


def _read_epochs(run: Path) -> list[dict[str, Any]]:
    names = ("epoch", "train_loss", "train_top1", "validation_loss", "validation_top1")
    log = run / "log.jsonl"
    lines = map(json.loads, log.read_text(encoding="utf-8").splitlines()) if log.exists() else ()
    return [{name: line[name] for name in names} for line in lines if line["kind"] == "epoch"]


def check_variant(variant: str, expected: str, root: Path) -> None:
    """Refuse another variant of the data than the plan's."""
    if variant != expected:
        raise UserError(f"{root} holds {variant}, but the plan and its records are of {expected}: give --data another")
