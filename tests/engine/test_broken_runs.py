import subprocess
import sys

import pytest


@pytest.mark.slow
def test_broken_runs_lose_nothing():
    counts = {"--kills": 2, "--double-resumes": 1, "--damages": 4, "--full-disks": 2}
    words = [
        sys.executable,
        "-m",
        "tests.engine.broken_runs",
        *(str(word) for pair in counts.items() for word in pair),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()[1:]] == [
        "2 kills",
        "1 double resumes",
        "4 damaged checkpoints",
        "2 full disks",
    ]
