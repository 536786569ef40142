"""The fixtures of the operator's tests."""

import pytest

from tests.ops.halo_attention.backends import BACKENDS, Backend


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend in turn."""
    return request.param
