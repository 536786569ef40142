"""Candidates for the Triton kernels' configurations, in Triton's interpreter; their times mean nothing there."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size
from halonet.benchmark.triton.tune import Trial, candidates, propose, tune
from halonet.errors import UserError
from halonet.ops.attention.triton.configurations import Cell, Configuration
from halonet_cli.main import main

SIZE = Size(rows=4, columns=4, heads=1, query_channels=16, value_channels=16, block=4, halo=1)
SETTINGS = Settings(batch=1, repeats=2, threads=1)
interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU kernels are compiled")


def other(cell: Cell) -> list[Configuration]:
    return [Configuration(16, 4, 4, 1, 1)]


def test_without_a_gpu_there_is_nothing_to_tune() -> None:
    with pytest.raises(UserError, match="nothing to tune here: it runs on CUDA and ROCm devices"):
        list(tune(SIZE, SETTINGS))


def test_the_command_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "tune", "--device", "cpu", "--batch", "1", "--sizes", "h1/stage4"]) == 2
    assert "nothing to tune here" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["tune"], ["triton", "compile"], ["triton", "search"]])
def test_without_triton_the_commands_say_how_to_get_it(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # as it is after the test
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["benchmark", *words]) == 2
    assert (
        capsys.readouterr().err == "halonet: this benchmark needs Triton, which is not installed: pip install triton\n"
    )


@interpreted
def test_the_command_prints_proposals_and_keeps_what_it_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr("halonet.benchmark.triton.tune.candidates", other)
    monkeypatch.setattr("halonet_cli.run.tune.find_sizes", lambda names: {"tiny": SIZE})
    output = tmp_path / "tune.json"
    words = ["--device", "cpu", "--batch", "1", "--repeats", "2", "--dtype", "float32", "--output", str(output)]
    assert main(["benchmark", "tune", *words]) == 0
    assert "Cell(kernel='forward', itemsize=4, queries=16, channels=16): (16, " in capsys.readouterr().out
    (run,) = json.loads(output.read_text())["runs"]
    assert {row["size"] for row in run["rows"]} == {"tiny"}
    assert {row["cell"][0] for row in run["rows"]} == {"forward", "queries", "keys"}


@interpreted
def test_every_kernel_is_tried_in_its_configuration_and_in_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    trials = list(tune(SIZE, SETTINGS, other))
    assert [(trial.cell.kernel, trial.current) for trial in trials] == [
        (kernel, current) for kernel in ("forward", "queries", "keys") for current in (True, False)
    ]
    assert all(trial.reason is None and trial.milliseconds for trial in trials)


@interpreted
def test_a_candidate_with_wrong_results_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    from halonet.ops.attention.triton import launch

    real = launch.forward_launch

    def wrong(*arguments: object, configuration: Configuration | None = None) -> launch.Launch:
        launched = real(*arguments, configuration=configuration)  # pyright: ignore
        if configuration == Configuration(16, 4, 4, 1, 1):
            launched.arguments["problem"] = launched.arguments["problem"]._replace(unit=0.0)
        return launched

    monkeypatch.setattr("halonet.benchmark.triton.tune.forward_launch", wrong)
    trials = [trial for trial in tune(SIZE, SETTINGS, other) if trial.cell.kernel == "forward"]
    assert trials[0].reason is None
    assert trials[1].reason is not None
    assert "computes something else" in trials[1].reason
    assert trials[1].milliseconds is None


@interpreted
def test_a_candidate_that_leaves_memory_unwritten_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    from halonet.ops.attention.triton import launch

    real = launch.launch_for_queries

    def fewer(*arguments: object, configuration: Configuration | None = None) -> object:
        launched, *results = real(*arguments, configuration=configuration)  # pyright: ignore
        if configuration == Configuration(16, 4, 4, 1, 1):
            launched = launched._replace(programs=launched.programs - 1)
        return launched, *results

    monkeypatch.setattr("halonet.benchmark.triton.tune.launch_for_queries", fewer)
    size = dataclasses.replace(SIZE, rows=8)
    trials = [trial for trial in tune(size, SETTINGS, other) if trial.cell.kernel == "queries"]
    assert [trial.reason is None for trial in trials] == [True, False]


def test_candidates_are_legal_configurations() -> None:
    from halonet.ops.attention.triton.configurations import TABLE

    for cell, cuts in TABLE.items():
        tried = candidates(cell)
        assert len(tried) == len(set(tried)) <= 80
        for each in tried:
            assert each.key_rows * each.key_columns >= 16
            assert each.queries <= cell.queries
        for cut in cuts:
            assert cut in tried


def test_the_proposal_names_the_fastest_and_its_gain() -> None:
    slow, fast, none = (Configuration(16, 4, 4, warps, 1) for warps in (1, 2, 4))
    cell = Cell("keys", 2, 64, 16)
    trials = [
        Trial(cell, slow, [2.0, 3.0, 4.0], None, True),
        Trial(cell, fast, [1.0, 1.5, 2.0], None, False),
        Trial(cell, none, None, "OutOfResources: shared memory", False),
    ]
    told = propose(trials)
    assert told[0] == f"{cell}: {tuple(fast)} takes 1.500 ms, 2.00 x the table's speed"
    assert "1 of 3 candidates did not run" in told[1]
