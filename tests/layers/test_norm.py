import copy
from typing import Any

import pytest
import timm.layers
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import halonet
from halonet.layers.norm import BatchNormAct2d, normalize
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


def modules(channels: int = 16, **options: Any) -> tuple[BatchNormAct2d, nn.SiLU]:
    norm = BatchNormAct2d(channels, **options)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return norm, nn.SiLU(inplace=True)


@needs_kernel
@pytest.mark.parametrize(
    "options",
    [{}, {"affine": False}, {"track_running_stats": False}, {"eps": 0.1, "momentum": 0.9}, {"momentum": None}],
)
@pytest.mark.parametrize("training", [True, False])
def test_the_kernel_computes_what_the_modules_compute(options: dict, training: bool, kernel_calls: list[int]) -> None:
    norm, plain = BatchNormAct2d(16, **options).train(training), nn.BatchNorm2d(16, **options).train(training)
    for _ in range(3):
        x, residual = image(), image()
        torch.testing.assert_close(normalize(x, norm, nn.ReLU(), residual), nn.functional.relu(plain(x) + residual))
    assert len(kernel_calls) == 3
    torch.testing.assert_close(norm.state_dict(), plain.state_dict())


@needs_kernel
def test_statistics_that_are_no_longer_tracked_stay(kernel_calls: list[int]) -> None:
    norm, plain = BatchNormAct2d(16), nn.BatchNorm2d(16)
    norm.track_running_stats = plain.track_running_stats = False
    x = image()
    torch.testing.assert_close(normalize(x, norm, nn.SiLU()), nn.functional.silu(plain(x)))
    assert kernel_calls
    torch.testing.assert_close(norm.state_dict(), plain.state_dict())


def test_without_activation_it_is_batch_norm() -> None:
    x = image()
    torch.testing.assert_close(BatchNormAct2d(16)(x), nn.BatchNorm2d(16)(x))
    assert BatchNormAct2d(16).state_dict().keys() == nn.BatchNorm2d(16).state_dict().keys()


@needs_kernel
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_hook_of_the_norm_sees_input_and_result_of_the_whole_step(backend: str, kernel_calls: list[int]) -> None:
    norm, act = modules()
    seen = []
    norm.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    x, residual = image(), image()
    with halonet.use_backend(backend):
        result = normalize(x, norm, act, residual)
    ((given, returned),) = seen
    assert given is x
    assert returned is result
    assert len(kernel_calls) == (backend == "auto")


@needs_kernel
def test_a_hook_of_the_activation_sees_its_call(kernel_calls: list[int]) -> None:
    norm, act = modules()
    seen = []
    act.register_forward_hook(lambda module, inputs, output: seen.append(output))
    result = normalize(image(), norm, act)
    assert [each is result for each in seen] == [True]
    assert not kernel_calls


@needs_kernel
def test_a_global_hook_sees_norm_and_activation(kernel_calls: list[int]) -> None:
    norm, act = modules()
    seen = []
    with nn.modules.module.register_module_forward_hook(lambda module, inputs, output: seen.append(module)):
        normalize(image(), norm, act)
    assert seen == [act, norm]
    assert not kernel_calls


CONVERSIONS = {
    "synchronized": nn.SyncBatchNorm.convert_sync_batchnorm,
    "synchronized by timm": timm.layers.convert_sync_batchnorm,
    "frozen by timm": timm.layers.freeze_batch_norm_2d,
    "replaced": lambda _: nn.GroupNorm(4, 16),
    "folded": lambda _: nn.Identity(),
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_residual_and_activation_follow_a_replaced_norm(name: str) -> None:
    norm, act = modules()
    norm(image())
    converted = CONVERSIONS[name](copy.deepcopy(norm).eval()).eval()
    assert not isinstance(converted, BatchNormAct2d)
    x, residual = image(), image()
    expected = nn.functional.silu(converted(x) + residual)
    torch.testing.assert_close(normalize(x, converted, act, residual), expected)
    if "synchronized" in name or "frozen" in name:  # what still is this batch norm
        torch.testing.assert_close(normalize(x, norm.eval(), act, residual), expected)


@needs_kernel
def test_unsupported_modules_do_not_run_the_kernel(kernel_calls: list[int]) -> None:
    normalize(image(), BatchNormAct2d(16), nn.GELU())
    normalize(image(12), BatchNormAct2d(12), nn.SiLU())
    with halonet.use_backend("reference"):
        normalize(image(), *modules())
    with FlopCounterMode(display=False):
        normalize(image(), *modules())
    assert not kernel_calls


@needs_kernel
@pytest.mark.filterwarnings("ignore")  # what is deprecated still traces, and says much
def test_a_traced_program_holds_operators_of_pytorch_alone() -> None:
    norm, act = modules()

    def run(x: torch.Tensor) -> torch.Tensor:
        return normalize(x, norm.eval().requires_grad_(False), act)

    traced = torch.jit.trace(run, image())
    assert "aten::batch_norm" in str(traced.graph)
    x = image()
    torch.testing.assert_close(traced(x), run(x))


def test_the_input_is_not_changed() -> None:
    x = image()
    before = x.clone()
    normalize(x, *modules())
    assert torch.equal(x, before)
