import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import halonet
from halonet.layers.norm import norm_act
from halonet.ops import batch_norm, cpu_library

needs_kernel = pytest.mark.skipif(cpu_library.MISSING is not None, reason="this installation has no kernel")


def image(channels: int = 16) -> torch.Tensor:
    return torch.randn(2, channels, 5, 4).contiguous(memory_format=torch.channels_last)


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    kernel = batch_norm.batch_norm
    monkeypatch.setattr(
        batch_norm, "batch_norm", lambda *args, **options: (calls.append(1), kernel(*args, **options))[1]
    )
    return calls


def modules(channels: int = 16) -> tuple[nn.BatchNorm2d, nn.SiLU]:
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return norm, nn.SiLU(inplace=True)


@needs_kernel
@pytest.mark.parametrize(
    "options", [{}, {"affine": False}, {"track_running_stats": False}, {"eps": 0.1, "momentum": 0.9}]
)
@pytest.mark.parametrize("training", [True, False])
def test_the_kernel_stands_in_for_the_modules(options: dict, training: bool, kernel_calls: list[int]) -> None:
    norm = nn.BatchNorm2d(16, **options).train(training)
    plain = copy.deepcopy(norm)
    x, residual = image(), image()
    torch.testing.assert_close(norm_act(norm, nn.ReLU(), x, residual), nn.functional.relu(plain(x) + residual))
    assert kernel_calls
    torch.testing.assert_close(norm.state_dict(), plain.state_dict())


@needs_kernel
@pytest.mark.parametrize("place", ["norm", "act"])
def test_a_hook_sees_what_its_module_sees(place: str, kernel_calls: list[int]) -> None:
    norm, act = modules()
    seen = []
    {"norm": norm, "act": act}[place].register_forward_hook(lambda *given: seen.append(given))
    norm_act(norm, act, image())
    assert len(seen) == 1
    assert not kernel_calls


@needs_kernel
def test_modules_that_mean_something_else_run_themselves(kernel_calls: list[int]) -> None:
    class Doubling(nn.BatchNorm2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    norm = Doubling(16)
    torch.testing.assert_close(norm_act(norm, nn.SiLU(), image()), nn.functional.silu(norm(image())), rtol=9, atol=9)
    norm_act(nn.BatchNorm2d(16), nn.GELU(), image())
    norm_act(nn.BatchNorm2d(16, momentum=None), nn.SiLU(), image())
    norm_act(nn.BatchNorm2d(12), nn.SiLU(), image(12))
    with halonet.use_backend("reference"):
        norm_act(*modules(), image())
    with FlopCounterMode(display=False):
        norm_act(*modules(), image())
    assert not kernel_calls


@needs_kernel
@pytest.mark.filterwarnings("ignore")  # what is deprecated still traces, and says much
def test_a_traced_program_holds_operators_of_pytorch_alone() -> None:
    norm, act = modules()

    def run(x: torch.Tensor) -> torch.Tensor:
        return norm_act(norm.eval().requires_grad_(False), act, x)

    traced = torch.jit.trace(run, image())
    assert "aten::batch_norm" in str(traced.graph)
    x = image()
    torch.testing.assert_close(traced(x), run(x))


def test_x_is_left_alone_where_a_norm_reads_it() -> None:
    x = image()
    before = x.clone()
    norm_act(*modules(), x)
    assert torch.equal(x, before)
