"""Run many cases of a seed: `python -m tests.wrong_inputs --seed 7 --count 500`."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.wrong_inputs.case import failure
from tests.wrong_inputs.kinds import KINDS, make_cases


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500, help="cases, over all kinds")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    options = parser.parse_args()
    failures, slowest = 0, (0.0, "")
    per_kind = -(-options.count // len(options.kinds))
    for kind in options.kinds:
        cases = make_cases(kind, options.seed, per_kind)
        failed = 0
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                begin = time.monotonic()
                found = failure(case, Path(folder))
                slowest = max(slowest, (time.monotonic() - begin, f"{kind}: {case.text}"))
            if found is not None:
                failed += 1
                print(f"{kind}: {case.text}\n    {found}")
        valid = sum(not case.expected for case in cases)
        print(f"{kind}: {per_kind} inputs ({valid} valid), {failed} failures")
        failures += failed
    print(f"seed {options.seed}: {per_kind * len(options.kinds)} inputs, {failures} failures")
    print(f"slowest: {slowest[0]:.1f} s, {slowest[1]}")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
