"""What reaches beyond the image, and what cannot be counted."""

from typing import Any

import pytest
import torch
from torch import Tensor

import halonet
from halonet.errors import UserError
from halonet.ops.arguments import MOST
from halonet.ops.attention.geometry import MOST_ZEROS, clip, make_geometry
from tests.ops.attention import oracle
from tests.ops.attention.backends import Backend
from tests.ops.attention.oracle import assert_agree
from tests.ops.attention.sizes import Inputs, Size

IMAGE = (6, 7)
HALOS = [8, 33554432, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 10**9, MOST]


def outputs_and_gradients(backend: Backend, size: Size, **options: Any) -> list[Tensor]:
    """Run a size whose inputs do not depend on the options, with some of these replaced."""
    inputs = size.inputs(torch.float32).requiring_grad()
    output = backend.attend(*inputs, **(size.options | options))
    grad = size.output_gradient(torch.float32)
    return [output.detach(), *torch.autograd.grad(output, inputs.tensors(), grad)]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.many_calls
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("block", [2, (3, 20)])
def test_a_halo_beyond_the_image_is_a_halo_of_its_size(
    backend: Backend, block: int | tuple[int, int], centered: bool
) -> None:
    size = Size("far_halo", "", IMAGE, block, IMAGE, heads=2, tables="none", centered=centered)
    expected = outputs_and_gradients(backend, size)
    for halo in HALOS:
        assert_same(outputs_and_gradients(backend, size, halo_size=halo), expected)


@pytest.mark.many_calls
def test_a_block_far_beyond_the_image_is_a_block_of_its_size(backend: Backend) -> None:
    size = Size("far_block", "", IMAGE, IMAGE, 1, stride=(1, 2), heads=2, tables="none")
    expected = outputs_and_gradients(backend, size)
    for block in HALOS[1:]:
        assert_same(outputs_and_gradients(backend, size, block_size=block), expected)


@pytest.mark.many_calls
@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_a_stride_beyond_the_image_leaves_one_query(backend: Backend, border: str) -> None:
    size = Size("far_stride", "", IMAGE, 3, 1, stride=7, tables="none", border=border)
    expected = outputs_and_gradients(backend, size)
    for stride in HALOS:
        assert_same(outputs_and_gradients(backend, size, stride=stride), expected)


FAR = [
    Size("halo", "", (3, 2), 2, (9, 4), tables="full"),
    Size("halo_centered", "", (3, 4), 2, 9, centered=True),
    Size("block", "", (3, 5), (17, 11), 1, heads=2),
    Size("block_and_halo", "", (3, 2), (40, 3), (1, 30), stride=2),
    Size("block_offset_stride_1", "", (5, 7), 16, 1, stride=2, offset_stride=1),
    Size("block_offset_stride_over_stride", "", (5, 6), 24, 2, stride=12, offset_stride=20, tables="full"),
    Size("stride", "", (3, 2), 2, 1, stride=90),
    Size("stride_in_a_block", "", (3, 2), 200, 1, stride=50, offset_stride=20),
    Size("offset_stride_of_one_query", "", (3, 7), (2, 3), 1, stride=(2, 3), offset_stride=MOST),
    Size("zeros", "", (3, 2), (9, 2), (1, 5), border="zeros"),
    Size("zeros_stride", "", (3, 2), 2, 1, border="zeros", stride=90),
]


@pytest.mark.parametrize("size", FAR, ids=lambda size: size.name)
def test_tables_keep_their_offsets_when_windows_are_clipped(backend: Backend, size: Size) -> None:
    inputs = size.inputs().requiring_grad()
    expected = oracle.halo_attention(*inputs, **size.options).output
    expected_gradients = torch.autograd.grad(expected, inputs.tensors(), size.output_gradient())
    output = backend.attend(*inputs, **size.options)
    assert_agree(output, expected)
    gradients = torch.autograd.grad(output, inputs.tensors(), size.output_gradient())
    assert_agree(list(gradients), list(expected_gradients))


def test_attention_weights_look_no_further_than_the_image() -> None:
    size = Size("far_halo", "", IMAGE, 2, IMAGE, tables="none")
    query, key, *_ = size.inputs()
    positions = torch.tensor([[0, 0], [5, 6]])
    found, expected = (
        halonet.attention_weights(query, key, positions=positions, block_size=2, halo_size=halo) for halo in (MOST, 7)
    )
    assert_same(list(found), list(expected))


@pytest.mark.parametrize("options", [{"block_size": 2, "halo_size": 2**32}, {"block_size": 2**32, "halo_size": 1}])
def test_too_large_windows_with_border_zeros_are_refused(backend: Backend, options: dict[str, int]) -> None:
    query, key, value, *_ = Size("zeros", "", IMAGE, 2, 1, tables="none").inputs()
    with pytest.raises(UserError, match=r"pixels; with border='zeros' they can hold at most 16777216.*border='mask'"):
        backend.attend(query, key, value, border="zeros", **options)


def test_the_most_zeros_are_accepted() -> None:
    side = int(MOST_ZEROS**0.5)
    assert make_geometry(6, 7, block_size=side, halo_size=0, border="zeros").rows.window == side
    with pytest.raises(UserError, match="4097 x 4096"):
        make_geometry(6, 7, block_size=(side + 1, side), halo_size=0, border="zeros")


@pytest.mark.parametrize("name", ["block_size", "halo_size", "stride", "offset_stride"])
def test_sizes_beyond_64_bits_are_refused(backend: Backend, name: str) -> None:
    query, key, value, *_ = Size("plain", "", IMAGE, 2, 1, tables="none").inputs()
    for number in (MOST + 1, 2**63, 10**5000):
        with pytest.raises(UserError, match=rf"{name} is .*, but must be at most 2\*\*60") as caught:
            backend.attend(query, key, value, **({"block_size": 2, "halo_size": 1} | {name: number}))
        assert len(str(caught.value)) < 200


def test_common_geometries_are_left_as_they_are() -> None:
    for height in (7, 14, 28, 56):
        geometry = make_geometry(height, height, block_size=8, halo_size=3, stride=2)
        assert clip(geometry) == geometry
    zeros = make_geometry(2, 2, block_size=8, halo_size=3, border="zeros")
    assert clip(zeros) == zeros


def test_a_compiled_program_for_all_sizes_clips_when_it_runs(untyped: None) -> None:
    def attend(x: Tensor) -> Tensor:
        return halonet.halo_attention(x, x, x, block_size=2, halo_size=2**32, backend="cpu")

    compiled = torch.compile(attend, dynamic=True, fullgraph=True, backend="aot_eager")
    for shape in ((1, 6, 7, 1, 4), (1, 9, 5, 1, 4)):
        x = torch.randn(shape)
        torch.testing.assert_close(compiled(x), attend(x))


def test_work_space_that_no_machine_has_is_refused() -> None:
    sizes = {"no memory for": 2**21, "cannot count, in 64 bits": 2**31}
    for message, side in sizes.items():
        pixel = torch.zeros(1, 1, 1, 1, 1)
        image = pixel.expand(1, side, side, 1, 1)
        inputs = Inputs(pixel, image, image, None, None)
        with pytest.raises(UserError, match=f"the CPU kernel .*{message}.*take smaller blocks"):
            halonet.halo_attention(*inputs, block_size=side, halo_size=0, stride=side, backend="cpu")
