"""`halonet evaluate`."""

import argparse

from halonet.classification.evaluation import describe_accuracy, evaluate
from halonet.classification.task import data_of
from halonet_cli.console import print_json, printable


def run_evaluate(options: argparse.Namespace) -> None:
    """Measure, then print the figures."""
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
