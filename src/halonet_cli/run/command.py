"""Run a command with `halonet` imported, and report its mistakes, notes and interruptions on one line each."""

import argparse
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from halonet.errors import UserError, UserNote
from halonet.installation import command_for_extra
from halonet.interrupts import Interrupted, interruptible
from halonet_cli.console import printable, tell
from halonet_cli.parser import Parser

TRAIN_MODULES = ("lightning", "matplotlib", "pydantic", "tensorboard", "torchmetrics", "torchvision")
DETECTION_MODULES = ("faster_coco_eval", "pycocotools")
DEMO_MODULES = ("gradio",)


def run_command(options: argparse.Namespace) -> int:
    """Import and run the function of a command, and return the exit status, see `main`."""
    with interruptible():
        try:
            with _notes_on_stderr():
                return pkgutil.resolve_name(options.run)(options) or 0
        except KeyboardInterrupt as error:
            stop = error if isinstance(error, Interrupted) else Interrupted("interrupted")
            if str(stop):  # of several processes of a run, the first speaks
                with suppress(OSError):  # the terminal may be gone
                    print(f"halonet: {stop}", file=sys.stderr, flush=True)
            return stop.status
        except UserError as error:
            tell(_message(error, options.parser))
            return 2
        except ModuleNotFoundError as error:
            module = (error.name or "").partition(".")[0]
            if module not in TRAIN_MODULES + DETECTION_MODULES + DEMO_MODULES:
                raise
            if options.command == "demo":
                extra = "demo"
            else:
                extra = "detection" if options.command == "detect" or module in DETECTION_MODULES else "train"
            tell(f"{options.command} needs {error.name}: {command_for_extra(extra)}")
            return 2


def _message(error: Exception, parser: Parser) -> str:
    """What to tell of a `UserError`; an argument of a call is named by the flag that it comes from."""
    complaints = getattr(error, "complaints", ())
    dests = {action.dest for action in parser._actions}
    source = getattr(error, "source", "")
    is_about_a_call = not source or source.isidentifier()  # a call, or the class that holds its arguments, not a file
    if complaints and is_about_a_call and dests.issuperset(each.key for each in complaints):
        text = "; ".join(f"{parser.flag_of(each.key)} {each.text}" for each in complaints)
        # Names of two words are no words of a sentence.
        return re.sub(r"\b[a-z0-9]+_\w+", lambda name: parser.flag_of(name[0]) if name[0] in dests else name[0], text)
    # From a process that loads images, the message comes at the end of that process's traceback.
    return re.split(r"halonet\.(?:errors|complaints)\.\w+: ", str(error))[-1].rstrip()


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
