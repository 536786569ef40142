"""A named backend is obeyed or refused, and "auto" never fails."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

import halonet
from halonet.errors import UserError
from halonet.ops.attention import backends
from tests.ops.attention.small_calls import attend, mentions, zeros

pytestmark = pytest.mark.usefixtures("untyped")


@pytest.mark.parametrize(
    ("unknown", "nearest"), [("refernce", "reference"), ("composit", "composite"), ("compsite", "composite")]
)
def test_an_unknown_backend_is_refused_with_the_nearest_name(unknown: str, nearest: str) -> None:
    for call in (lambda: attend(backend=unknown), lambda: halonet.use_backend(unknown).__enter__()):
        with pytest.raises(UserError, match=mentions("backend", f"'{unknown}'", f"Did you mean '{nearest}'")):
            call()


@pytest.mark.parametrize("backend", [None, 1, ["cpu"]])
def test_a_backend_that_is_no_word_is_refused(backend: Any) -> None:
    for call in (lambda: attend(backend=backend), lambda: halonet.use_backend(backend).__enter__()):
        with pytest.raises(UserError, match=mentions("backend", str(backend), "auto")):
            call()


def test_auto_never_fails() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        tensors = {
            "query": zeros(1, 6, 5, 2, 4, dtype=dtype),
            "key": zeros(1, 6, 5, 2, 4, dtype=dtype),
            "value": zeros(1, 6, 5, 2, 3, dtype=dtype),
        }
        for border in ("mask", "zeros"):
            output = attend(**tensors, row_embedding=None, column_embedding=None, border=border, backend="auto")
            assert output.dtype == dtype


def test_shapes_are_worked_out_without_data() -> None:
    for backend in ("auto", "reference", "composite"):
        output = attend(
            query=zeros(2, 3, 3, 2, 4, device="meta"),
            key=zeros(2, 6, 5, 2, 4, device="meta"),
            value=zeros(2, 6, 5, 2, 3, device="meta"),
            row_embedding=zeros(5, 2, device="meta"),
            column_embedding=zeros(5, 2, device="meta"),
            stride=2,
            backend=backend,
        )
        assert output.device.type == "meta"
        assert output.shape == (2, 3, 3, 2, 3)


def is_differentiable_twice(**options: Any) -> bool:
    """Which backend ran shows in this: of the plain ones, only `reference` differentiates twice."""
    query = torch.randn(1, 3, 3, 1, 2, dtype=torch.float64, requires_grad=True)
    output = halonet.halo_attention(query, query, query, block_size=2, halo_size=1, **options)
    (first,) = torch.autograd.grad(output.square().sum(), query, create_graph=True)
    try:
        first.square().sum().backward()
    except (RuntimeError, NotImplementedError):
        return False
    return True


def test_a_named_backend_is_obeyed() -> None:
    assert is_differentiable_twice(backend="reference")
    assert not is_differentiable_twice(backend="composite")


def test_the_backend_in_use_is_obeyed_nested_and_restored() -> None:
    assert not is_differentiable_twice()
    with halonet.use_backend("reference"):
        assert is_differentiable_twice()
        with halonet.use_backend("composite"):
            assert not is_differentiable_twice()
        assert is_differentiable_twice()
    assert not is_differentiable_twice()


def test_the_backend_in_use_is_restored_after_an_exception() -> None:
    with pytest.raises(KeyError), halonet.use_backend("reference"):
        raise KeyError
    assert not is_differentiable_twice()


def test_the_backend_in_use_is_that_of_the_thread() -> None:
    with halonet.use_backend("reference"), ThreadPoolExecutor(1) as pool:
        assert not pool.submit(is_differentiable_twice).result()
        assert is_differentiable_twice()


def test_an_explicit_backend_wins_over_the_one_in_use() -> None:
    with halonet.use_backend("reference"):
        assert not is_differentiable_twice(backend="composite")
    with halonet.use_backend("composite"):
        assert is_differentiable_twice(backend="reference")


def test_a_backend_that_cannot_run_here_is_refused_by_name() -> None:
    with pytest.raises((ValueError, RuntimeError), match=mentions("triton")):
        attend(backend="triton")


def test_auto_skips_a_backend_that_refuses_a_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("cpu", "composite"):
        picky = replace(backends.BACKENDS[name], unsupported_reason=lambda *_: "it takes no Mondays")
        monkeypatch.setitem(backends.BACKENDS, name, picky)
    with pytest.raises(ValueError, match=mentions("composite", "it takes no Mondays")):
        attend(backend="composite")
    with halonet.use_backend("composite"), pytest.raises(ValueError, match="it takes no Mondays"):
        attend()
    assert is_differentiable_twice(backend="auto")
