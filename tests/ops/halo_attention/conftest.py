"""The fixtures of the operator's tests."""

from collections.abc import Iterator

import jaxtyping
import pytest

from tests.ops.halo_attention.backends import BACKENDS, Backend


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend in turn."""
    return request.param


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """Switch the run-time shape checks off: the compiler cannot trace them, and they would speak before our errors."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
