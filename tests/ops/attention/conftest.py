"""The fixtures of the operator's tests."""

import pytest
import torch

from tests.ops.attention.backends import BACKENDS, Backend


def _marked(backend: Backend) -> object:
    return pytest.param(backend, id=backend.name, marks=[pytest.mark.gpu] if backend.device == "cuda" else [])


@pytest.fixture(params=[_marked(backend) for backend in BACKENDS])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend in turn."""
    return request.param


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a backend does not compute, and many calls of an interpreted one."""

    def is_spared(item: pytest.Item) -> bool:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        backend = parameters.get("backend")
        if not isinstance(backend, Backend):
            return False
        asked = {each for each in parameters.values() if isinstance(each, torch.dtype)}
        many_calls = item.get_closest_marker("many_calls") is not None
        return not asked <= set(backend.dtypes) or (backend.interpreted and many_calls)

    spared = [item for item in items if is_spared(item)]
    config.hook.pytest_deselected(items=spared)
    items[:] = [item for item in items if not is_spared(item)]
