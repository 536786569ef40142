"""Each implementation agrees with ours, says what it cannot run, and says when it is not installed."""

import dataclasses
import importlib.util
import subprocess
import sys

import pytest
import torch

from halonet.benchmark.operator import prepare_checked
from halonet.benchmark.peers import IMPLEMENTATIONS, disagreement, make_inputs
from halonet.benchmark.peers.neighborhood import _interior
from halonet.benchmark.peers.ours import attend
from halonet.benchmark.settings import Settings
from halonet.ops.attention.backends import BACKENDS
from tests.benchmark.tiny import SETTINGS, SIZE

ODD = dataclasses.replace(SIZE, rows=13)
STRIDED = dataclasses.replace(SIZE, stride=2)
WIDE_VALUES = dataclasses.replace(SIZE, value_channels=24)


def agreement(name, size, settings=SETTINGS):
    with torch.no_grad():
        return disagreement(*IMPLEMENTATIONS[name].prepare(make_inputs(size, settings)).compare())


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", ["composite", "reference", "timm", "cpu"])
def test_an_implementation_agrees_with_ours(name, dtype):
    settings = dataclasses.replace(SETTINGS, dtype=dtype)
    if IMPLEMENTATIONS[name].unsupported_reason(SIZE, settings, True):
        pytest.skip("not built here")
    assert agreement(name, SIZE, settings) is None


@pytest.mark.parametrize("size", [STRIDED, WIDE_VALUES], ids=["strided", "wide values"])
def test_timm_agrees_with_strides_and_wide_values(size):
    assert IMPLEMENTATIONS["timm"].unsupported_reason(size, SETTINGS, True) is None
    assert agreement("timm", size) is None


def test_composite_is_not_compared_with_itself(monkeypatch):
    monkeypatch.setattr("halonet.benchmark.peers.ours.select_backend", lambda *tensors: "composite")
    asked = []
    monkeypatch.setattr("halonet.benchmark.peers.ours.attend", lambda inputs, backend: asked.append(backend))
    IMPLEMENTATIONS["composite"].prepare(make_inputs(SIZE, SETTINGS)).compare()
    assert asked == ["composite", "reference"]


def test_a_backend_is_asked_with_dtype_device_and_size(monkeypatch):
    asked = []
    backend = dataclasses.replace(BACKENDS["triton"], unsupported_reason=lambda *call: asked.append(call) or "too wide")
    monkeypatch.setitem(BACKENDS, "triton", backend)
    settings = Settings(batch=10**9, threads=1, dtype="bfloat16")
    size = dataclasses.replace(WIDE_VALUES, stride=2)
    assert IMPLEMENTATIONS["triton"].unsupported_reason(size, settings, True) == "too wide"
    ((query, key, value, geometry),) = asked
    assert query.shape == (10**9, 6, 6, 2, 16)
    assert key.shape == (10**9, 12, 12, 2, 16)
    assert value.shape == (10**9, 12, 12, 2, 24)
    assert {each.dtype for each in (query, key, value)} == {torch.bfloat16}
    assert {each.device.type for each in (query, key, value)} == {"cpu"}
    assert geometry == size.geometry


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU kernels are compiled")
def test_triton_agrees_with_composite(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    size = dataclasses.replace(SIZE, rows=4, columns=4, heads=1, halo=1)
    inputs = make_inputs(size, SETTINGS)
    assert IMPLEMENTATIONS["triton"].unsupported_reason(size, SETTINGS, True) is None
    assert callable(prepare_checked("triton", inputs, SETTINGS, training=True))
    wrong = lambda inputs, backend, **options: attend(inputs, backend) * (1.01 if backend == "triton" else 1)  # noqa: E731
    monkeypatch.setattr("halonet.benchmark.peers.ours.attend", wrong)
    assert "something else" in str(prepare_checked("triton", inputs, SETTINGS, training=True))


def test_timm_with_the_masked_border_would_be_refused(monkeypatch):
    masked = lambda inputs, border, **options: attend(inputs, border="mask", **options)  # noqa: E731
    monkeypatch.setattr("halonet.benchmark.peers.timm.attend", masked)
    assert "something else" in str(agreement("timm", SIZE))


@pytest.mark.parametrize("name", ["relaxed", "centered", "strided", "pooled"])
def test_variants_agree_between_backends(name):
    assert agreement(name, STRIDED) is None


@pytest.mark.slow
def test_compiled_implementations_agree_with_ours():
    # In a process without the run-time checks of shapes: the compiler reads the functions that they wrap.
    code = f"""
from halonet.benchmark.peers import make_inputs
from halonet.benchmark.operator import prepare_checked
from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size
settings = Settings(**{vars(SETTINGS)!r})
inputs = make_inputs(Size(**{vars(SIZE)!r}), settings)
for name, training in (("flex_attention", False), ("timm-compiled", True)):
    prepared = prepare_checked(name, inputs, settings, training)
    print("ready" if callable(prepared) else prepared)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["ready", "ready"]


@pytest.mark.parametrize("size", [SIZE, dataclasses.replace(SIZE, heads=1)], ids=["heads", "one head"])
def test_halonet_pytorch_agrees_with_ours(size):
    pytest.importorskip("halonet_pytorch")
    assert agreement("halonet-pytorch", size) is None
    inputs = make_inputs(size, SETTINGS)
    before = inputs.query.detach().clone()
    assert callable(prepare_checked("halonet-pytorch", inputs, SETTINGS, training=True))
    assert torch.equal(inputs.query, before)


@pytest.mark.filterwarnings("ignore")
def test_natten_agrees_with_ours_in_the_interior():
    pytest.importorskip("natten")
    assert agreement("natten", SIZE) is None


def test_the_interior_has_the_blocks_whose_windows_lie_in_the_image():
    assert _interior(SIZE) == (slice(4, 8), slice(4, 8))
    assert _interior(dataclasses.replace(SIZE, rows=14, columns=17)) == (slice(4, 12), slice(4, 12))
    assert _interior(dataclasses.replace(SIZE, rows=8)) is None


@pytest.mark.parametrize(("name", "module"), [("halonet-pytorch", "halonet_pytorch"), ("natten", "natten")])
def test_a_peer_that_is_not_installed_says_so(name, module, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda each: None if each == module else found(each))
    prepared = prepare_checked(name, make_inputs(SIZE, SETTINGS), SETTINGS, training=False)
    assert prepared == f"it is not installed: pip install {name}"


@pytest.mark.parametrize(
    ("name", "size", "settings", "training", "reason"),
    [
        ("timm", ODD, SETTINGS, False, "maps that blocks of 4 divide"),
        ("timm", dataclasses.replace(SIZE, centered=True), SETTINGS, False, "no centered windows"),
        ("timm", dataclasses.replace(SIZE, stride=3), SETTINGS, False, "no stride of 3"),
        ("timm", SIZE, Settings(batch=10**9, threads=1), False, "GiB"),
        ("flex_attention", SIZE, SETTINGS, True, "no backward on a CPU"),
        ("flex_attention", dataclasses.replace(SIZE, query_channels=8), SETTINGS, False, "at least 16 channels"),
        ("flex_attention", dataclasses.replace(SIZE, rows=4000), SETTINGS, False, "million pairs"),
        ("strided", SIZE, SETTINGS, False, "no stride"),
        ("cpu", SIZE, Settings(threads=1, device="meta"), False, "the tensors are on meta"),
        ("triton", SIZE, SETTINGS, False, "the tensors are on cpu"),
    ],
)
def test_an_unsupported_size_is_refused_with_the_reason(name, size, settings, training, reason):
    found = IMPLEMENTATIONS[name].unsupported_reason(size, settings, training)
    assert found is not None
    assert reason in found
