import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from halonet.benchmark.claims import runner
from halonet.benchmark.claims.plan import Plan, Row
from halonet.benchmark.claims.records import read_records, write_record
from halonet.benchmark.claims.runner import parse_shard, run_claims
from halonet.errors import UserError
from halonet_cli.main import main
from tests.benchmark.claims.small_plan import write_plan
from tests.benchmark.claims.synthetic import make_record
from tests.data import cifar10_archives


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cifar10_archives.expect_small_archives(monkeypatch)
    return cifar10_archives.write_batches(tmp_path / "data", cifar10_archives.BINARY)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return write_plan(tmp_path)


class Execution:
    """Stands for the training; notes what it was asked for."""

    def __init__(self, plan: Plan, process: float = 60.0, wall: float = 60.0) -> None:
        self.plan = plan
        self.seconds = {"process": process, "wall": wall}
        self.runs: list[str] = []

    def __call__(self, row: Row, seed: int, root: Path, code: dict[str, Any]) -> dict[str, Any]:
        self.runs.append(f"{row.name} {seed}")
        record = make_record(self.plan, row.name, seed, seconds=self.seconds)
        record["data"]["variant"] = self.plan.variant
        return record


@pytest.fixture
def execution(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> Execution:
    execution = Execution(plan)
    monkeypatch.setattr(runner, "execute", execution)
    return execution


def run(plan: Plan, data: Path, folder: Path, **options: Any) -> list[Path]:
    return run_claims(plan, data, folder, **{"report": lambda line: None} | options)


def test_all_runs_are_done_in_the_order_of_the_plan(plan, data, tmp_path, execution):
    written = run(plan, data, tmp_path / "records")
    assert execution.runs == [f"{row.name} {seed}" for row, seed in plan.pairs()]
    assert [path.name for path in written[:2]] == ["halonet-seed0.json", "halonet-seed1.json"]
    assert sum(map(len, read_records(tmp_path / "records", plan).values())) == 13


def test_a_run_with_a_record_is_not_done_again(plan, data, tmp_path, execution):
    run(plan, data, tmp_path / "records", row="halonet")
    (tmp_path / "records/halonet-seed1.json").unlink()
    execution.runs.clear()
    run(plan, data, tmp_path / "records", row="halonet")
    assert execution.runs == ["halonet 1"]


def test_one_row_can_be_asked_for(plan, data, tmp_path, execution):
    run(plan, data, tmp_path / "records", row="no_halo")
    assert execution.runs == ["no_halo 0", "no_halo 1", "no_halo 2"]
    with pytest.raises(UserError, match="unknown row of the plan 'no_hallo'. Did you mean 'no_halo'"):
        run(plan, data, tmp_path / "records", row="no_hallo")


def test_shards_share_the_runs(plan, data, tmp_path, execution):
    for index in (1, 2, 3):
        run(plan, data, tmp_path / f"records{index}", shard=(index, 3))
    assert sorted(execution.runs) == sorted(f"{row.name} {seed}" for row, seed in plan.pairs())
    assert execution.runs[:2] == ["halonet 0", "resnet 0"]


def test_a_run_that_would_not_end_in_time_is_not_begun(plan, data, tmp_path, execution):
    lines: list[str] = []
    run(plan, data, tmp_path / "records", minutes=3.0, report=lines.append)
    assert execution.runs == ["no_halo 0", "no_halo 1", "no_halo 2", "small 0", "small 1", "small 2", "small 3"]
    assert lines[-1] == "6 runs were not begun: they would not end in time"


def test_a_busy_machine_makes_runs_longer(plan, data, tmp_path, monkeypatch):
    execution = Execution(plan, process=60.0, wall=600.0)
    monkeypatch.setattr(runner, "execute", execution)
    run(plan, data, tmp_path / "records", minutes=5.0)
    assert execution.runs == ["no_halo 0"]


def test_a_killed_run_loses_no_other_record(plan, data, tmp_path, monkeypatch):
    execution = Execution(plan)

    def interrupt(row: Row, seed: int, root: Path, code: dict[str, Any]) -> dict[str, Any]:
        if len(execution.runs) == 2:
            raise KeyboardInterrupt
        return execution(row, seed, root, code)

    monkeypatch.setattr(runner, "execute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(plan, data, tmp_path / "records")
    assert [len(found) for found in read_records(tmp_path / "records", plan).values()] == [2, 0, 0, 0]


def test_a_full_disk_is_one_line_and_costs_no_record(plan, data, tmp_path, execution, monkeypatch):
    run(plan, data, tmp_path / "records", row="halonet")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left to write .*resnet-seed0.json"):
        run(plan, data, tmp_path / "records")
    assert len(read_records(tmp_path / "records", plan)["halonet"]) == 3


def test_a_damaged_record_stops_the_runner_before_it_trains(plan, data, tmp_path, execution):
    run(plan, data, tmp_path / "records", row="halonet")
    (tmp_path / "records/halonet-seed1.json").write_text("{")
    execution.runs.clear()
    with pytest.raises(UserError, match=r"halonet-seed1.json"):
        run(plan, data, tmp_path / "records")
    assert execution.runs == []


def test_data_of_another_variant_are_refused_before_training(plan, data, tmp_path, execution):
    for path in data.iterdir():
        path.unlink()
    cifar10_archives.write_parquet(data, "JPEG")
    with pytest.raises(UserError, match=r"holds CIFAR-10 \(JPEG\), but the plan and its records are of CIFAR-10"):
        run(plan, data, tmp_path / "records")
    assert execution.runs == []


def test_a_folder_that_takes_no_records_is_refused_before_training(plan, data, tmp_path, execution):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write into .*file/records: .*file is a file"):
        run(plan, data, tmp_path / "file" / "records")
    assert execution.runs == []


def test_a_shard_is_a_part_of_a_number():
    assert parse_shard("2/3") == (2, 3)
    for text in ("0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"):
        with pytest.raises(UserError, match="--shard is .*, but must be I/N"):
            parse_shard(text)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, plan: Plan, execution: Execution) -> None:
    monkeypatch.setattr("halonet_cli.run.claims.read_plan", lambda: plan)
    monkeypatch.setattr(runner, "require_committed_code", lambda: None)
    monkeypatch.setattr(runner, "run_quietly", lambda: None)


@pytest.mark.usefixtures("command")
def test_the_command_prints_a_line_for_each_run(data, tmp_path, capsys):
    words = ["benchmark", "claims", "--data", str(data), "--output", str(tmp_path / "records"), "--row", "halonet"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0 of 3 runs have a record"
    assert len(lines) == 4
    assert main(words) == 0
    assert capsys.readouterr().out == "3 of 3 runs have a record\n"


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--row", "nothing"], "unknown row of the plan 'nothing'"),
        (["--shard", "3/2"], "--shard is 3/2"),
        (["--minutes", "0"], "--minutes is 0.0, but must be a finite number above 0"),
        (["--minutes", "nan"], "--minutes is nan"),
        (["--data", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(data, tmp_path, capsys, words, message):
    start = ["benchmark", "claims", "--data", str(data), "--output", str(tmp_path / "records")]
    assert main([*start, *words]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"commit": "abc", "modified": True}, "the code was changed since its last commit"),
        ({"commit": None}, "the code is in no git checkout"),
    ],
)
def test_uncommitted_code_is_refused(monkeypatch, run, message):
    monkeypatch.setattr(runner, "describe_run", lambda words: run)
    with pytest.raises(UserError, match=message):
        runner.require_committed_code()


def test_committed_code_is_accepted(monkeypatch):
    monkeypatch.setattr(runner, "describe_run", lambda words: {"commit": "abc", "modified": False})
    runner.require_committed_code()


def test_no_run_is_begun_after_the_checkout_changed(plan, data, tmp_path, monkeypatch):
    commits = iter(["old", "old", "new", "new"])
    monkeypatch.setattr(runner, "describe_run", lambda words: {"commit": next(commits), "modified": False})
    execution = Execution(plan)
    monkeypatch.setattr(runner, "execute", execution)
    with pytest.raises(UserError, match="the checkout changed while it ran .*old.*new"):
        run(plan, data, tmp_path / "records")
    assert execution.runs == ["halonet 0"]


def test_a_run_of_another_process_is_not_repeated(plan, data, tmp_path, monkeypatch):
    execution = Execution(plan)

    def execute(row: Row, seed: int, root: Path, code: dict[str, Any]) -> dict[str, Any]:
        if execution.runs == []:
            write_record(tmp_path / "records", execution(row, 1, root, code))
        return execution(row, seed, root, code)

    monkeypatch.setattr(runner, "execute", execute)
    run(plan, data, tmp_path / "records", row="halonet")
    assert execution.runs == ["halonet 1", "halonet 0", "halonet 2"]


def test_the_runner_takes_one_thread_and_the_lowest_priority(monkeypatch):
    seen: list[object] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    monkeypatch.setattr(os, "nice", lambda change: seen.append(("nice", change)))
    runner.run_quietly()
    assert seen == [1, ("nice", 19)]
