"""Queries, keys and values in one tensor: the same numbers, and a gradient that nothing copies."""

import os
from contextlib import AbstractContextManager, nullcontext
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import halonet
from halonet.ops.attention.calls import packed_attention
from halonet.ops.attention.packed import Packed, unpack
from tests.ops.attention.backends import BACKENDS, Backend

every_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
OPTIONS = {"block_size": (4, 3), "halo_size": (1, 2)}
HEADS, KEY_CHANNELS, VALUE_CHANNELS = 2, 8, 16


def allowed(backend: Backend) -> AbstractContextManager[object]:
    return patch.dict(os.environ, {"TRITON_INTERPRET": "1"}) if backend.interpreted else nullcontext()


def make_packed(stride: int = 1, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Packed:
    torch.manual_seed(4)
    channels = KEY_CHANNELS + VALUE_CHANNELS + (KEY_CHANNELS if stride == 1 else 0)
    query = None
    if stride > 1:
        query = torch.randn(2, -(-5 // stride), -(-6 // stride), HEADS, KEY_CHANNELS // HEADS, dtype=dtype)
    tensor = torch.randn(2, 5, 6, channels, dtype=dtype)
    tensor, query = (None if each is None else each.to(device).requires_grad_() for each in (tensor, query))
    assert tensor is not None
    return Packed(tensor, query, HEADS, KEY_CHANNELS, VALUE_CHANNELS)


def make_tables(dtype: torch.dtype = torch.float64, device: str = "cpu") -> list[Tensor]:
    return [torch.randn(length, 2, dtype=dtype, device=device, requires_grad=True) for length in (9, 9)]


def leaves(packed: Packed) -> list[Tensor]:
    return [each for each in packed[:2] if each is not None]


def test_unpacking_splits_queries_keys_and_values() -> None:
    tensor = torch.arange(32.0).expand(1, 1, 1, -1)
    query, key, value = unpack(Packed(tensor, None, HEADS, KEY_CHANNELS, VALUE_CHANNELS))
    assert query.flatten().tolist() == list(range(8))
    assert key[0, 0, 0].tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]
    assert value[0, 0, 0, 1].tolist() == list(range(24, 32))


def test_unpacking_keeps_separate_queries() -> None:
    packed = make_packed(stride=2)
    query, key, value = unpack(packed)
    assert query is packed.query
    assert torch.equal(torch.cat([key.flatten(3), value.flatten(3)], -1), packed.tensor)


def test_unpacking_refuses_a_tensor_of_other_channels() -> None:
    with pytest.raises(RuntimeError, match="split"):
        unpack(Packed(torch.randn(1, 4, 4, 33), None, HEADS, KEY_CHANNELS, VALUE_CHANNELS))


@every_backend
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("scale", [None, -0.5, 1e-9])
def test_packed_attention_has_the_bits_of_attention(backend: Backend, stride: int, scale: float | None) -> None:
    packed, tables = make_packed(stride, device=backend.device), make_tables(device=backend.device)
    options = OPTIONS | {"stride": stride, "scale": scale, "backend": backend.name}

    with allowed(backend):
        outputs = [
            packed_attention(packed, *tables, **options),
            halonet.halo_attention(*unpack(packed), *tables, **options),
        ]
        gradients = [torch.autograd.grad(output.square().sum(), [*leaves(packed), *tables]) for output in outputs]
    assert torch.equal(*outputs)
    for found, expected in zip(*gradients, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("backend", [each for each in BACKENDS if not each.plain_pytorch], ids=lambda each: each.name)
@pytest.mark.parametrize("stride", [1, 2])
def test_packed_gradients_are_right(backend: Backend, stride: int) -> None:
    packed, tables = make_packed(stride, device=backend.device), make_tables(device=backend.device)
    wanted = [*leaves(packed), *tables]
    options = OPTIONS | {"stride": stride, "scale": None}
    with allowed(backend):
        found = packed_attention(packed, *tables, backend=backend.name, **options)
        gradients = torch.autograd.grad(found.square().sum(), wanted)
    expected = packed_attention(packed, *tables, backend="reference", **options)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), wanted))


class Recorder(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("backend", [each for each in BACKENDS if not each.plain_pytorch], ids=lambda each: each.name)
@pytest.mark.parametrize("stride", [1, 2])
def test_the_backward_of_a_layer_copies_no_gradient(backend: Backend, stride: int) -> None:
    layer = halonet.HaloAttention(8, num_heads=2, block_size=4, halo_size=1, stride=stride, backend=backend.name)
    layer = layer.to(backend.device)
    image = torch.randn(1, 8, 5, 6, device=backend.device).contiguous(memory_format=torch.channels_last)
    with allowed(backend):
        output = layer(image)
        with Recorder() as recorder:
            output.sum().backward()
    assert f"{backend.name}_packed_attention_backward" in recorder.names
    assert not {"cat", "copy_", "clone", "contiguous"} & set(recorder.names), recorder.names


def test_packed_attention_under_autocast_has_its_dtype() -> None:
    packed = make_packed(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = packed_attention(packed, None, None, scale=None, backend="auto", **OPTIONS)
        expected = halonet.halo_attention(*unpack(packed), **OPTIONS)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, expected)
