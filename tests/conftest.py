"""Fixtures for all tests."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import jaxtyping
import pytest
import torch

# Older PyTorch multiplies no matrices on a GPU in its deterministic mode without it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# Triton decides whether to interpret a kernel when the kernel is defined, its own library at import. It also reads a
# kernel's source, which the run-time shape checks would wrap.
INTERPRETER = patch.dict(os.environ, {"TRITON_INTERPRET": "0" if torch.cuda.is_available() else "1"})
NO_CHECKS = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("jaxtyping")]
with INTERPRETER:
    from triton.runtime import interpreter

    # A third of the interpreter's time goes into looking for integers that overflow.
    object.__setattr__(interpreter.interpreter_builder.options, "sanitize_overflow", False)

    import halonet  # noqa: F401

    with patch.object(sys, "meta_path", NO_CHECKS):
        from halonet.ops.attention.triton import launch  # noqa: F401


@pytest.fixture(autouse=True)
def seed() -> None:
    """Start every test from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def untyped() -> Iterator[None]:
    """Disable the run-time shape checks: `torch.compile` cannot trace them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Restore default handlers for signals that a background job ignores, in this process and its children."""
    defaults = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# Imported in the fixtures: few tests need Lightning, and it takes seconds to import.
@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set for classification."""
    from tests.engine.tiny import make_images

    return make_images(tmp_path_factory.mktemp("images") / "two_sides")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A finished run of classification; tests must not write into it."""
    from halonet.training import train
    from tests.engine.tiny import tiny_recipe

    return train(tiny_recipe(images), tmp_path_factory.mktemp("runs") / "finished")
