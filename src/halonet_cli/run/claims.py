"""`halonet benchmark claims`."""

import argparse
from functools import partial

from halonet.benchmark.claims import runner
from halonet.benchmark.claims.plan import read_plan
from halonet.engine.files import check_output_folder
from halonet_cli.parser import UsageError


def run_claims(options: argparse.Namespace) -> None:
    """Train what has no record yet, and print a line about each run."""
    check_output_folder(options.output)
    shard = runner.parse_shard(options.shard)
    if options.minutes is not None and not 0 < options.minutes < float("inf"):
        raise UsageError(f"--minutes is {options.minutes}, but must be a finite number above 0")
    runner.require_committed_code()
    runner.run_quietly()
    report = partial(print, flush=True)
    runner.run_claims(
        read_plan(), options.data, options.output, minutes=options.minutes, row=options.row, shard=shard, report=report
    )
