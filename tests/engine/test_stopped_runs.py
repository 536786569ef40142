import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.engine.stopped_runs import SCENARIOS

# The exit status, the beginning of the line, and the step that is saved.
EXPECTED: dict[str, tuple[int, str, int]] = {
    "SIGTERM before the training": (143, "interrupted by SIGTERM: run the command again", 0),
    "SIGHUP in the first half of step 3": (129, "stopped by SIGHUP after step 3, which is saved: ", 3),
    "Ctrl-C in the last step of an epoch": (130, "stopped by Ctrl-C after step 6, which is saved: ", 6),
    "SIGTERM in a validation": (143, "stopped by SIGTERM after step 6, which is saved: ", 6),
    "SIGTERM and SIGHUP while a checkpoint is written": (143, "stopped by SIGTERM after step 6, which is saved: ", 6),
    "two Ctrl-C while a checkpoint is written": (
        130,
        "ended at once by a second Ctrl-C: the last saved state stands, ",
        4,
    ),
    "SIGTERM in the last step": (143, "stopped by SIGTERM after the last step, with only the measurement left", 18),
    "SIGHUP in the measurement": (129, "interrupted by SIGHUP: ", 18),
    "SIGTERM to all processes, with two workers": (143, "stopped by SIGTERM after step 5, which is saved: ", 5),
    "Ctrl-C to all processes, with two workers": (130, "stopped by Ctrl-C after step 5, which is saved: ", 5),
}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The final state of each scenario, from a process that forks before it has threads."""
    program = [sys.executable, "-m", "tests.engine.stopped_runs", str(tmp_path_factory.mktemp("stopped"))]
    finished = subprocess.run(
        program, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "left alone"])
def test_a_signal_saves_and_explains_the_end(left: dict, name: str):
    status, line, step = EXPECTED[name]
    stopped = left[name]["stopped"]
    assert stopped["status"] == status
    assert len(stopped["said"]) == 1
    assert stopped["said"][0].startswith(f"halonet: {line}")
    assert stopped["step"] == step
    if step:
        assert "continue with halonet train --resume '" in stopped["said"][0]
        assert stopped["said"][0].endswith(f"{name}'")


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "left alone"])
def test_a_signaled_run_resumes_to_the_same_bits(left: dict, name: str):
    assert left[name]["resumed"] == {"status": 0, "said": []}
    assert left[name]["traces"] == left["left alone"]["traces"]
    assert left[name]["partial"] == []


def test_starting_or_resuming_a_finished_run_succeeds(left: dict):
    assert left["left alone"]["resumed"] == {"status": 0, "said": []}


def test_a_signal_to_one_process_ends_all_of_them(left: dict):
    found = left["two processes"]
    assert [each["status"] for each in found["stopped"]] == [143, 143]
    first, second = ([line for line in each["said"] if "halonet" in line] for each in found["stopped"])
    assert len(first) == 1
    assert first[0].startswith("halonet: stopped by SIGTERM after step 3, which is saved: continue with ")
    assert second == []
    assert not any("Traceback" in line for each in found["stopped"] for line in each["said"])
    assert found["step"] == 3
    assert [each["status"] for each in found["resumed"]] == [0, 0]
