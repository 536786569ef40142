"""What only the C++ kernel promises: threads, processes, instruction sets, and plain words where it is missing."""

import ctypes
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import halonet
from halonet.errors import UserNote
from halonet.ops import cpu_library
from halonet.ops.attention import backends, cpu, describe_backends, registration
from halonet.ops.attention.geometry import make_geometry
from tests.ops.attention.sizes import BY_NAME, SIZES, Size

ROOT = Path(__file__).parents[3]
SIZE = BY_NAME["prime_sides"]


def outputs_and_gradients(size: Size, dtype: torch.dtype = torch.float32, backend: str = "cpu") -> list[Tensor]:
    tensors = [each.detach().to(dtype).requires_grad_() for each in size.inputs().tensors()]
    output = halonet.halo_attention(*tensors, backend=backend, **size.options)
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(dtype)
    return [output.detach(), *torch.autograd.grad(output, tensors, grad)]


def assert_same_bits(found: list[Tensor], expected: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_kernel_was_built_where_it_could_be() -> None:
    has_compiler = any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++"))
    assert cpu_library.MISSING is None or not has_compiler, cpu_library.MISSING


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_number_of_threads_gives_the_same_bits(size: Size, dtype: torch.dtype) -> None:
    torch.set_num_threads(1)
    expected = outputs_and_gradients(size, dtype)
    for count in (2, 3, 7):
        torch.set_num_threads(count)
        assert_same_bits(outputs_and_gradients(size, dtype), expected)


def test_python_threads_may_call_at_once() -> None:
    expected = outputs_and_gradients(SIZE)
    found: list[list[Tensor]] = []
    workers = [
        threading.Thread(target=lambda: found.extend(outputs_and_gradients(SIZE) for _ in range(20))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 80
    for each in found:
        assert_same_bits(each, expected)


FORKED = """
import os, sys, torch
import tests.ops.attention.test_cpu as this
torch.set_num_threads(2)
expected = this.outputs_and_gradients(this.SIZE)
child = os.fork()
if child == 0:
    torch.set_num_threads(int(sys.argv[1]))
    inputs = [each.detach().float() for each in this.SIZE.inputs().tensors()]
    output = this.halonet.halo_attention(*inputs, backend="cpu", **this.SIZE.options)
    os._exit(0 if torch.equal(output, expected[0]) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("count", [1, 2])
def test_a_forked_process_computes_the_same(count: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", FORKED, str(count)], check=True, env=environment, timeout=100)


class Attended(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return outputs_and_gradients(SIZE)[index]


def test_it_runs_in_processes_that_load_data() -> None:
    loader = torch.utils.data.DataLoader(Attended(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert_same_bits(list(loader), outputs_and_gradients(SIZE)[:4])


@pytest.mark.parametrize("name", ["avx2", "baseline"])
def test_lesser_instruction_sets_pass_the_suite(name: str) -> None:
    if cpu_library.library().halonet_choose(name.encode()) == 0:
        pytest.skip(f"this processor, or this build, has no {name}")
    try:
        for size in SIZES:
            for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
                found = outputs_and_gradients(size, dtype)
                expected = outputs_and_gradients(size, torch.float64, backend="reference")
                for a, b in zip(found, expected, strict=True):
                    largest = max([1.0, *b.abs().flatten().tolist()])
                    torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * largest)
    finally:
        cpu_library.library().halonet_choose(None)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck looks at it
def test_the_operators_are_registered_as_pytorch_wants_them() -> None:
    tensors = [each.detach().requires_grad_() for each in SIZE.inputs().tensors()]
    numbers = [3, 3, 2, 2, 1, 1, 1, 1, 0, 0]
    query, key, value = tensors[:3]
    table = torch.randn(9, query.shape[-1] // 2, dtype=query.dtype, requires_grad=True)
    other = torch.randn(9, query.shape[-1] - table.shape[1], dtype=query.dtype, requires_grad=True)
    torch.library.opcheck(
        torch.ops.halonet.cpu_attention.default, (query, key, value, table, other, numbers, 0.3, True)
    )
    torch.library.opcheck(torch.ops.halonet.cpu_attention.default, (query, key, value, None, None, numbers, 0.3, True))
    packed = torch.randn(*key.shape[:3], 2 * 8 + 4, requires_grad=True)
    query = torch.randn(*key.shape[:3], 2, 4, requires_grad=True)
    tables = [torch.randn(9, 2, requires_grad=True) for _ in range(2)]
    operator = torch.ops.halonet.cpu_packed_attention.default
    torch.library.opcheck(operator, (packed, None, *tables, 2, 8, 4, numbers, 0.3, True))
    torch.library.opcheck(
        operator, (packed[..., 8:].detach().clone().requires_grad_(), query, None, None, 2, 8, 4, numbers, 0.3, True)
    )


@pytest.mark.usefixtures("untyped")
def test_a_compiled_layer_calls_the_kernel_at_every_size() -> None:
    layer = halonet.HaloAttention(8, num_heads=2, block_size=4, halo_size=2, backend="cpu")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows, columns in ((9, 11), (12, 12), (7, 20)):
        image = torch.randn(2, 8, rows, columns)
        found, expected = (
            torch.autograd.grad(run(image).square().sum(), list(layer.parameters())) for run in (compiled, layer)
        )
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("untyped")
def test_slices_of_one_tensor_train_under_the_default_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # It asserts that gradients lie in memory as it was told. What it compiled in an earlier process proves nothing.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    joined = torch.randn(2, 9, 11, 3 * 2 * 8, requires_grad=True)

    def attend(joined: Tensor) -> Tensor:
        query, key, value = (part.unflatten(-1, (2, 8)) for part in joined.split(16, -1))
        return halonet.halo_attention(query, key, value, block_size=4, halo_size=2, backend="cpu")

    compiled = torch.compile(attend, fullgraph=True)
    (found,), (expected,) = (torch.autograd.grad(run(joined).square().sum(), joined) for run in (compiled, attend))
    torch.testing.assert_close(found, expected)


def test_only_the_first_derivative_exists_and_the_message_says_so() -> None:
    tensors = [each.detach().requires_grad_() for each in SIZE.inputs().tensors()]
    output = halonet.halo_attention(*tensors, backend="cpu", **SIZE.options)
    (slope,) = torch.autograd.grad(output.sum(), tensors[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="first derivatives only.*'reference'"):
        slope.square().sum().backward()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no C.. compiler .* when it was installed.*run `.*pip install .*--no-cache"),
        (b"no library", "does not load"),
    ],
)
def test_a_missing_or_broken_library_is_told(
    content: bytes | None, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / cpu_library.NAME).write_bytes(content)
    monkeypatch.delenv(cpu_library.LIBRARY, raising=False)
    monkeypatch.setattr(cpu_library, "FOLDER", tmp_path)
    monkeypatch.setattr(cpu_library, "MISSING", cpu_library.load()[1])
    tensors = [each.detach() for each in SIZE.inputs().tensors()]
    with pytest.raises(ValueError, match=f"backend 'cpu' cannot run this call: .*{message}"):
        halonet.halo_attention(*tensors, backend="cpu", **SIZE.options)
    expected = halonet.halo_attention(*tensors, backend="composite", **SIZE.options)
    with pytest.warns(UserNote, match=message):
        assert torch.equal(halonet.halo_attention(*tensors, **SIZE.options), expected)
    described = {row["backend"]: row for row in describe_backends()}
    assert "not here: " in described["cpu"]["summary"]
    assert described["composite"]["auto_devices"] == "cpu"


def test_auto_says_once_that_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_library, "MISSING", "it is not there")
    backends._note_once.cache_clear()
    tensors = [each.detach() for each in SIZE.inputs().tensors()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        halonet.halo_attention(*tensors, backend="composite", **SIZE.options)
        with halonet.use_backend("composite"):
            halonet.halo_attention(*tensors, **SIZE.options)
        describe_backends()
    with pytest.warns(UserNote, match="slower backend 'composite': it is not there") as caught:
        halonet.halo_attention(*tensors, **SIZE.options)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        halonet.halo_attention(*tensors, **SIZE.options)


def a_call(size: Size = SIZE) -> tuple[cpu_library.Call, list[Tensor]]:
    """A backward that the library accepts, and the tensors it would write to."""
    query, key, value, row_embedding, column_embedding = size.inputs(torch.float32)
    geometry = make_geometry(*size.image, **size.options)
    call = cpu._call(registration.Inputs(query, key, value, row_embedding, column_embedding), geometry, 0.5)
    output = torch.zeros(*query.shape[:4], value.shape[4])
    written = [output, torch.zeros(query.shape[:4]), *(torch.zeros_like(each) for each in (output, query, key, value))]
    written += [torch.zeros_like(table) for table in (row_embedding, column_embedding)]
    call.output, call.log_sum = cpu._image(written[0]), written[1].data_ptr()
    call.grad_output, call.grad_query, call.grad_key, call.grad_value = map(cpu._image, written[2:6])
    call.grad_row_table, call.grad_column_table = (each.data_ptr() for each in written[6:])
    return call, [query, key, value, row_embedding, column_embedding, *written]


def change(call: cpu_library.Call, fields: dict[str, int | None]) -> None:
    for name, number in fields.items():
        *path, field = name.split(".")
        setattr(getattr(call, path[0]) if path else call, field, number)


NO_MEMORY, BAD_CALL, TOO_LARGE = 1, 2, 3
BAD_NUMBERS = {
    "rows.size": [-1, 0, 2**62],
    "columns.block": [-1, 0, 2**62, -(2**63)],
    "rows.halo": [-1, 2**62, 2**63 - 1],
    "rows.stride": [-1, 0, 2, 2**62],
    "columns.offset_stride": [-1, 0, 2, 2**62],
    "rows.num_queries": [-1, 0, 6, 2**40],
    "columns.num_blocks": [-1, 0, 9],
    "batch": [-1, 0, 2**62],
    "heads": [-1, 0, 2**62],
    "query_channels": [-1, 0, 1, 2**62],
    "value_channels": [-1, 0, 2**62],
    "zeros": [-1, 2],
    "centered": [-1, 2],
    "threads": [-1, 0, 2**40],
    "query.data": [None],
    "key.batch_stride": [-1],
    "row_table.data": [None],
    "row_table.width": [-1, 5, 2**62],
    "column_table.width": [-1, 5],
}
BAD_FOR_THE_BACKWARD = {"log_sum": [None], "grad_row_table": [None], "grad_value.row_stride": [-1, -(2**63)]}


@pytest.mark.parametrize(
    ("name", "number"),
    [(name, each) for name, numbers in (BAD_NUMBERS | BAD_FOR_THE_BACKWARD).items() for each in numbers],
)
def test_the_library_refuses_contradicting_numbers_and_writes_nothing(name: str, number: int | None) -> None:
    call, tensors = a_call()
    before = [each.clone() for each in tensors]
    change(call, {name: number})
    for backward in (1,) if name in BAD_FOR_THE_BACKWARD else (0, 1):
        assert cpu_library.library().halonet_run(ctypes.byref(call), 0, backward) == BAD_CALL
    assert_same_bits(tensors, before)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"key.batch_stride": 2**62}, TOO_LARGE),
        ({"value.row_stride": 2**61}, TOO_LARGE),
        ({"rows.halo": 2**47, "columns.halo": 2**47, "zeros": 1}, TOO_LARGE),
        ({"rows.halo": 2**46, "zeros": 1}, NO_MEMORY),
        ({"rows.halo": 2**42}, NO_MEMORY),
    ],
)
def test_the_library_refuses_too_large_calls_and_writes_nothing(fields: dict[str, int | None], expected: int) -> None:
    call, tensors = a_call()
    before = [each.clone() for each in tensors]
    change(call, fields)
    assert cpu_library.library().halonet_run(ctypes.byref(call), 0, 1) == expected
    assert_same_bits(tensors, before)


def test_the_library_accepts_the_call_that_these_refusals_change() -> None:
    call, tensors = a_call()
    assert cpu_library.library().halonet_run(ctypes.byref(call), 0, 0) == 0
    expected = halonet.halo_attention(*tensors[:5], **SIZE.options, scale=0.5, backend="reference")
    torch.testing.assert_close(tensors[5], expected)


def test_a_call_that_contradicts_itself_is_no_mistake_of_the_user() -> None:
    call, _ = a_call()
    call.threads = -1
    with pytest.raises(RuntimeError, match="refused a call of halonet_run"):
        cpu_library.run("halonet_run", call, torch.float32, backward=False)


def test_an_unknown_instruction_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu_library.INSTRUCTION_SET, "mmx")
    library, reason = cpu_library.load()
    assert library is None
    assert reason is not None
    assert "'mmx'" in reason


def test_a_library_of_another_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Longer(ctypes.Structure):
        _fields_ = [("call", cpu_library.Call), ("more", ctypes.c_int64)]

    monkeypatch.setattr(cpu_library, "Call", Longer)
    library, reason = cpu_library.load()
    assert library is None
    assert reason is not None
    assert "another version of halonet" in reason
