"""What a trace asks PyTorch is answered as outside of it."""

import pytest
import torch

from halonet.ops.tracing import is_autocast_available, is_exporting

pytestmark = pytest.mark.usefixtures("untyped")


def doubled_by_a_compiler(x: torch.Tensor) -> torch.Tensor:
    return x if is_exporting() or not is_autocast_available("cpu") else 2 * x


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return doubled_by_a_compiler(x)


def test_a_compiled_program_is_not_exported() -> None:
    x = torch.ones(2)
    torch.compiler.reset()
    compiled = torch.compile(doubled_by_a_compiler, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), 2 * x)


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_is(strict: bool) -> None:
    x = torch.ones(2)
    program = torch.export.export(Doubled(), (x,), strict=strict).module()
    torch.testing.assert_close(program(x), x)
