"""Tools that trace, script or profile a network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import halonet
from halonet.errors import UserError

ROWS = ("mini32", "tiny28", "micro32")
WHAT = ("loss", "gradients", "timm", "torchvision", "attention")


@pytest.fixture(scope="module")
def traced():
    script = Path(__file__).with_name("fx_script.py")
    shown = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    return json.loads(shown.stdout)


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("row", ROWS)
def test_traced_networks_agree_with_their_networks(traced, row, what):
    assert traced[f"{row} {what}"]


def test_all_comparisons_were_made(traced):
    assert set(traced) == {f"{row} {what}" for row in ROWS for what in WHAT}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize(
    "make",
    [
        lambda: halonet.create_model("resnet50_twin"),
        lambda: halonet.HaloAttention(16, num_heads=2, block_size=4, halo_size=1),
    ],
)
def test_torchscript_is_refused_in_words(make):
    with torch.device("meta"):
        module = make()
    with pytest.raises(UserError, match="torch.jit.script is deprecated .* use torch.export"):
        torch.jit.script(module)


@pytest.mark.filterwarnings("ignore:.*profil")
def test_the_profiler_names_the_operator():
    model = halonet.create_model("tiny28").eval()
    with torch.inference_mode(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        with halonet.use_backend("composite"):
            model(torch.randn(1, 3, 28, 28))
        model(torch.randn(1, 3, 28, 28))
    names = {event.key for event in profile.key_averages()}
    assert [name for name in names if name.startswith("halonet::")], sorted(names)
    assert not [name for name in names if name.startswith("_")], sorted(names)


def test_a_dtype_and_a_device_are_those_of_every_tensor():
    model = halonet.create_model("mini32", device="meta", dtype=torch.bfloat16)
    tensors = [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())]
    assert {(tensor.device.type, tensor.dtype) for tensor in tensors} == {("meta", torch.bfloat16)}


def test_an_unknown_argument_is_a_type_error_too():
    with pytest.raises(TypeError, match="unknown model argument"):
        halonet.create_model("mini32", not_a_model_argument=1)
