import pytest
import torch

from halonet.benchmark import memory
from halonet.errors import UserError
from tests.benchmark.tiny import SETTINGS, SIZE

ON_LINUX = pytest.mark.skipif(not memory.can_measure("cpu"), reason="needs Linux")


@ON_LINUX
def test_the_peak_counts_freed_memory():
    def step():
        torch.ones(40 * 2**18).sum()  # 40 MiB

    assert 39 < memory.measure_here(step, "cpu") < 60
    assert memory.measure_here(lambda: None, "cpu") < 10


@ON_LINUX
@pytest.mark.slow
def test_a_fresh_process_measures_a_pass():
    request = {"size": vars(SIZE), "training": True}
    peak = memory.peak_mebibytes("halonet.benchmark.operator:prepare", SETTINGS, name="composite", **request)
    assert 0 <= peak < 200


def test_an_accelerator_reports_its_own_peak(monkeypatch):
    allocated = {"now": 5 * 2**20, "peak": 900 * 2**20}
    calls = []

    def forget(device):
        calls.append(device)
        allocated["peak"] = allocated["now"]

    def step():
        allocated["peak"] = max(allocated["peak"], allocated["now"] + 40 * 2**20)

    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", forget)
    monkeypatch.setattr(torch.accelerator, "memory_allocated", lambda device: calls.append(device) or allocated["now"])
    monkeypatch.setattr(
        torch.accelerator, "max_memory_allocated", lambda device: calls.append(device) or allocated["peak"]
    )
    monkeypatch.setattr(torch.accelerator, "synchronize", calls.append)
    assert memory.measure_here(step, "cuda:1") == 40
    assert calls == ["cuda:1"] * 4


def test_a_failing_process_says_why(monkeypatch):
    monkeypatch.setattr(memory, "can_measure", lambda device: True)
    monkeypatch.setattr(memory.sys, "executable", "false")
    with pytest.raises(RuntimeError, match="the process that measures memory failed: exit status 1"):
        memory.peak_mebibytes("nowhere:nothing", SETTINGS)


def test_other_systems_are_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "nothing")
    with pytest.raises(UserError, match="peak memory on a CPU needs Linux's"):
        memory.peak_mebibytes("nowhere:nothing", SETTINGS)
