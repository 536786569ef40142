import dataclasses
import sys
import types

import pytest
import torch

import halonet
from halonet.benchmark import peak as peak_module
from halonet.benchmark.peak import Peak, Work, count_work, measure_peak, visible_pairs
from halonet.benchmark.peers import make_inputs
from halonet.benchmark.sizes import SIZES, Size
from halonet.benchmark.timing import WARM_UPS
from halonet.errors import UserNote
from halonet.models import count_macs
from tests.benchmark.tiny import SETTINGS, SIZE


def sees(size, query, key):
    """Whether a query sees a key along one axis, said without arithmetic of blocks."""
    if size.centered:
        return abs(query - key) <= size.halo
    block = [pixel for pixel in range(1000) if pixel // size.block == query // size.block]
    return min(abs(key - pixel) for pixel in block) <= size.halo


@pytest.mark.parametrize(
    "change", [{}, {"rows": 13, "columns": 9}, {"stride": 2}, {"centered": True}, {"block": 32}, {"halo": 0}]
)
def test_visible_pairs_equal_a_loops_count(change):
    size = dataclasses.replace(SIZE, **change)
    pairs = 1
    for length in (size.rows, size.columns):
        pairs *= sum(sees(size, query, key) for query in range(0, length, size.stride) for key in range(length))
    assert visible_pairs(size) == pairs


def test_the_pairs_of_a_model_equal_its_multiply_adds():
    config = halonet.HALONETS["h0"]
    pairs = 0
    for stage, depth in enumerate(config.depths, 1):
        size, strided = SIZES[f"h0/stage{stage}"], SIZES.get(f"h0/stage{stage}-strided")
        pairs += size.heads * visible_pairs(size) * (depth - (strided is not None))
        pairs += size.heads * visible_pairs(strided) if strided else 0
    assert pairs == count_macs(halonet.create_model("h0"), 256).visible_pairs


def test_work_has_two_products_forward_and_five_backward():
    # One pixel that sees only itself: tables of one entry of one channel each.
    size = Size(rows=1, columns=1, heads=3, query_channels=2, value_channels=5, block=1, halo=0)
    scores, averages, positions = 2 * 2, 2 * 5, 2 * (1 + 1)
    forward = count_work(size, batch=7, training=False)
    assert forward == Work(21 * (scores + averages + positions), 21, forward.bytes)
    both = count_work(size, batch=7, training=True)
    assert both == Work(21 * (4 * scores + 3 * averages + 4 * positions), 42, both.bytes)


@pytest.mark.parametrize(("dtype", "log_sum"), [("float64", 8), ("float32", 4), ("bfloat16", 4), ("float16", 4)])
def test_bytes_are_each_tensor_read_and_written_once_a_pass(dtype, log_sum):
    size = dataclasses.replace(SIZE, rows=13, stride=2, value_channels=24)
    batch, settings = 3, dataclasses.replace(SETTINGS, batch=3, dtype=dtype)
    inputs = make_inputs(size, settings)
    output = halonet.halo_attention(inputs.query, inputs.key, inputs.value, **size.options)
    each = [tensor.numel() * tensor.element_size() for tensor in (inputs.query, inputs.key, inputs.value, output)]
    query, key, value, result = each
    assert count_work(size, batch, False, settings.torch_dtype).bytes == query + key + value + result
    read_or_written = query + key + value + result + log_sum * output.shape[:4].numel()
    gradients = result + query + key + value
    assert count_work(size, batch, True, settings.torch_dtype).bytes == 2 * read_or_written + gradients


def test_time_on_a_cpu_adds_products_and_exponentials():
    assert Peak(1e9, 1e8).milliseconds(Work(flops=10**9, exponentials=10**8)) == pytest.approx(2000)


def test_time_on_an_accelerator_is_that_of_the_largest_part():
    peak = Peak(1e9, 1e8, 1e7)
    for work in (Work(2 * 10**9, 1, 1), Work(1, 2 * 10**8, 1), Work(1, 1, 2 * 10**7)):
        assert peak.milliseconds(work) == pytest.approx(2000)
    assert peak.milliseconds(Work(10**9, 10**8, 10**7)) == pytest.approx(1000)


def test_the_peak_prints_the_formula_of_the_bound():
    assert "bound = FLOPs / the one + exponentials / the other" in str(Peak(1e9, 1e8))
    assert "10 GB/s in a copy; bound = the largest of FLOPs, exponentials and bytes" in str(Peak(1e9, 1e8, 1e10))


def test_a_peak_of_an_earlier_record_loads():
    assert Peak(flops_per_second=1e9, exponentials_per_second=1e8) == Peak(1e9, 1e8, None)


def test_an_accelerator_is_measured_at_larger_sizes_and_by_a_copy_too(monkeypatch):
    monkeypatch.setattr("halonet.benchmark.timing.synchronize", lambda device: None)
    monkeypatch.setattr("halonet.benchmark.peak.ATTEMPTS", 1)
    asked = []
    multiply = torch.mm
    monkeypatch.setattr(torch, "mm", lambda left, right, out: asked.append(left) or multiply(left, right, out=out))
    peak = measure_peak(dataclasses.replace(SETTINGS, device="meta", dtype="bfloat16"))
    assert asked[0].shape == (8192, 8192)
    assert asked[0].dtype == torch.bfloat16
    assert len(asked) > WARM_UPS + 1, "one call is too short for the clock"
    assert peak.bytes_per_second is not None
    assert peak.bytes_per_second > 0


def test_a_gpu_without_triton_times_torch_exp(monkeypatch):
    monkeypatch.setattr("halonet.benchmark.peak.ATTEMPTS", 1)
    monkeypatch.setattr("halonet.benchmark.timing.synchronize", lambda device: None)
    exponentials = types.ModuleType("exponentials")
    exponentials.NUMBERS, exponentials.ROUNDS, exponentials.exponentiate_in_registers = 8, 1, None
    monkeypatch.setitem(sys.modules, "halonet.benchmark.triton.exponentials", exponentials)
    monkeypatch.setattr(peak_module, "_runs_triton", lambda device: True)
    with pytest.warns(UserNote, match="timed by torch.exp, which is slower: Triton fails with TypeError"):
        assert peak_module._measure_exponentials(torch.float32, "cpu") > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU kernels are compiled")
def test_exponentials_in_registers_are_computed_round_after_round(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    from halonet.benchmark.triton import exponentials

    monkeypatch.setattr(exponentials, "ROUNDS", 3)
    numbers = torch.randn(2 * exponentials.BLOCK)
    expected = torch.exp2(-torch.exp2(-torch.exp2(-numbers.double())))
    exponentials.exponentiate_in_registers(numbers)
    torch.testing.assert_close(numbers.double(), expected, rtol=1e-5, atol=0)


def test_the_peak_is_measured(monkeypatch):
    monkeypatch.setattr("halonet.benchmark.peak.ATTEMPTS", 1)
    monkeypatch.setattr("halonet.benchmark.peak.SIDE_OF_PRODUCT", 64)
    peak = measure_peak(SETTINGS)
    assert peak.flops_per_second > 0
    assert peak.exponentials_per_second > 0
    assert peak.bytes_per_second is None, "the bound on a CPU counts no bytes"
