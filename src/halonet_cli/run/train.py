"""`halonet train`, and what it shares with `halonet detect train`."""

import argparse
from collections.abc import Callable
from typing import Any

from halonet.classification.task import Classification
from halonet.data.classification.sources import require_asked_for
from halonet.engine.run import read_result, resume, train
from halonet.engine.session import is_first_process
from halonet.recipes.load import resolve
from halonet_cli.console import printable
from halonet_cli.train import as_dictionary


def run_train(options: argparse.Namespace) -> None:
    """Train or resume, then say what was written."""

    def read() -> Any:
        recipe = resolve(options.recipe, options.changes, task="classification")
        asked = as_dictionary(options.changes).get("data.source")
        require_asked_for(recipe.data.source, asked, f"recipe {options.recipe}")
        return recipe

    run_training(options, read, Classification.describe)


def run_training(
    options: argparse.Namespace, read: Callable[[], Any], describe: Callable[[dict[str, Any]], str]
) -> None:
    """Train what `read` gives, or resume, then say what was written, in the first of several processes."""
    if options.resume is not None:
        folder = resume(options.resume, task=options.parser.task, **options.changes_on_resume)
    else:
        folder = train(read(), options.run_dir, or_resume=options.resume_or_start)
    if not is_first_process():
        return
    print(printable(describe(read_result(folder))))
    print(printable(f"written to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}"))
