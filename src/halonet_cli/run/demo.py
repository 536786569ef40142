"""`halonet demo`."""

import argparse
import threading

from halonet.demo.model import CIFAR10, open_model
from halonet.demo.page import launch


def run_demo(options: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C or a signal."""
    page = launch(open_model(CIFAR10 if options.checkpoint is None else options.checkpoint), options.port)
    try:
        print(f"halonet demo at {page.local_url} (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
    finally:
        page.close(verbose=False)
