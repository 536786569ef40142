"""What must hold of any inputs: layouts, bits, and who may influence whom."""

import random
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import halonet
from tests.ops.attention.backends import Backend
from tests.ops.attention.layouts import channels_first, every_other_channel, part_of_a_larger_image
from tests.ops.attention.oracle import assert_agree
from tests.ops.attention.sizes import BY_NAME, Inputs, Size
from tests.ops.attention.windows import sees

MIXED = ["prime_sides", "zeros_partial", "stride_3_block_4", "rectangular", "centered_zeros", "offset_stride_1"]
WINDOWED = [
    "prime_sides",
    "one_row",
    "block_over_image",
    "stride_2_odd_block",
    "stride_over_block",
    "rectangular",
    "zeros_partial",
    "zeros_stride_2",
]
# Large enough that PyTorch shares the work among its threads.
LARGE = Size("large", "", (33, 47), 8, 3, heads=2, d_qk=16, d_v=16)
CENTERED = ["centered", "centered_zeros", "centered_stride_3", "offset_stride_1_centered"]


@pytest.mark.many_calls
@pytest.mark.parametrize("layout", [channels_first, every_other_channel, part_of_a_larger_image])
@pytest.mark.parametrize("name", MIXED)
def test_memory_layout_does_not_change_the_result(
    backend: Backend, name: str, layout: Callable[[Tensor], Tensor]
) -> None:
    size = BY_NAME[name]
    inputs = size.inputs().requiring_grad()
    plain = backend.attend(*inputs, **size.options)
    plain_gradients = torch.autograd.grad(plain, inputs.tensors(), size.output_gradient())
    laid_out = [layout(tensor) for tensor in inputs.tensors()]
    assert any(not tensor.is_contiguous() for tensor in laid_out)
    assert_close(laid_out, inputs.tensors(), rtol=0, atol=0)
    output = backend.attend(*laid_out, **size.options)
    gradients = torch.autograd.grad(output, laid_out, layout(size.output_gradient()))
    assert_agree(output, plain)
    assert_agree(list(gradients), list(plain_gradients))


@pytest.mark.many_calls
def test_expanded_inputs_and_gradients_are_read_by_their_strides(backend: Backend) -> None:
    size = BY_NAME["prime_sides"]
    query, key, value, *tables = size.inputs()
    first_key = key[:1].requires_grad_()
    expanded = backend.attend(query, first_key.expand_as(key), value, *tables, **size.options)
    repeated_key = first_key.detach().repeat(2, 1, 1, 1, 1).requires_grad_()
    repeated = backend.attend(query, repeated_key, value, *tables, **size.options)
    assert_agree(expanded, repeated)
    expanded.sum().backward()
    repeated.backward(torch.ones_like(repeated))
    assert repeated_key.grad is not None
    assert_agree(first_key.grad, repeated_key.grad.sum(0, keepdim=True))


@pytest.mark.many_calls
def test_inputs_are_left_as_they_were(backend: Backend) -> None:
    for name in MIXED:
        size = BY_NAME[name]
        inputs, untouched = size.inputs().requiring_grad(), size.inputs()
        backend.attend(*inputs, **size.options).backward(size.output_gradient())
        assert_close(inputs.tensors(), untouched.tensors(), rtol=0, atol=0)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.many_calls
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_two_runs_with_as_many_threads_give_the_same_bits(backend: Backend, dtype: torch.dtype, count: int) -> None:
    torch.set_num_threads(count)
    torch.use_deterministic_algorithms(not backend.adds_in_order)  # the fixture that poisons memory restores it

    def run(size: Size) -> list[Tensor]:
        inputs = size.inputs(dtype).requiring_grad()
        output = backend.attend(*inputs, **size.options)
        return [output, *torch.autograd.grad(output, inputs.tensors(), size.output_gradient(dtype))]

    for size in [*(BY_NAME[name] for name in MIXED), LARGE]:
        for first, second in zip(run(size), run(size), strict=True):
            assert torch.equal(first, second), size.name


@pytest.mark.many_calls
@pytest.mark.usefixtures("untyped")  # many calls
@pytest.mark.parametrize("tensor", ["key", "value"])
@pytest.mark.parametrize("name", WINDOWED)
def test_nan_in_a_pixel_reaches_only_the_queries_that_see_it(backend: Backend, name: str, tensor: str) -> None:
    size = BY_NAME[name]
    window = sees(size)
    for row in range(size.image[0]):
        for column in range(size.image[1]):
            inputs = size.inputs()
            getattr(inputs, tensor)[0, row, column, 0, 0] = torch.nan
            reached = backend.attend(*inputs, **size.options).isnan().any(dim=-1)
            assert torch.equal(reached[0, :, :, 0], window[:, :, row, column]), (row, column)
            assert not reached[1:].any()
            assert not reached[:, :, :, 1:].any()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of NumPy in the interpreter
@pytest.mark.usefixtures("untyped")  # many calls
@pytest.mark.parametrize("tensor", ["key", "value"])
@pytest.mark.parametrize("name", CENTERED)
def test_centered_nan_and_infinity_reach_as_far_as_the_backend_says(backend: Backend, name: str, tensor: str) -> None:
    size = BY_NAME[name]
    sees_it, may_be_reached = sees(size, centered=True), sees(size, centered=backend.keeps_centered_apart)
    pixels = torch.cartesian_prod(*map(torch.arange, size.image)).tolist()
    for row, column in pixels[len(pixels) // 2 :][:1] if backend.interpreted else pixels:
        for number in (torch.nan, torch.inf, -torch.inf)[: 1 if backend.interpreted else 3]:
            inputs = size.inputs()
            getattr(inputs, tensor)[0, row, column, 0, 0] = number
            reached = ~backend.attend(*inputs, **size.options).isfinite().all(dim=-1)
            assert not (reached[0, :, :, 0] & ~may_be_reached[:, :, row, column]).any(), (row, column, number)
            assert not reached[1:].any()
            assert not reached[:, :, :, 1:].any()
            if number != number:
                assert reached[0, :, :, 0][sees_it[:, :, row, column]].all(), (row, column)


@pytest.mark.usefixtures("untyped")  # many calls
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", ["query", "key", "value", "gradient"])
@pytest.mark.parametrize("name", [*CENTERED, "prime_sides", "stride_2_odd_block"])
def test_nan_and_infinity_reach_the_same_numbers_as_in_the_specification(name: str, place: str, number: float) -> None:
    size = BY_NAME[name]
    of_queries = place in ("query", "gradient")
    generator = random.Random(name)
    for _ in range(6):
        row, column = (generator.randrange(side) for side in (size.query_grid if of_queries else size.image))
        tensors = {"gradient": size.output_gradient(), **size.inputs()._asdict()}
        tensors[place][0, row, column, 0, 0] = number
        gradient = tensors.pop("gradient")
        inputs = Inputs(**tensors)

        def reached(backend: str, inputs: Inputs = inputs, gradient: Tensor = gradient) -> list[Tensor]:
            leaves = inputs.requiring_grad()
            output = halonet.halo_attention(*leaves, **size.options, backend=backend)
            return [each.isfinite() for each in (output, *torch.autograd.grad(output, leaves[:3], gradient))]

        for found, expected in zip(reached("cpu"), reached("reference"), strict=True):
            assert torch.equal(found.all(-1), expected.all(-1)), (row, column)


@pytest.mark.many_calls
@pytest.mark.usefixtures("untyped")  # many calls
@pytest.mark.parametrize("name", WINDOWED)
def test_nan_in_a_gradient_reaches_only_the_pixels_of_its_window(backend: Backend, name: str) -> None:
    size = BY_NAME[name]
    window = sees(size)
    for row in range(size.query_grid[0]):
        for column in range(size.query_grid[1]):
            inputs = size.inputs().requiring_grad()
            gradient = size.output_gradient()
            gradient[0, row, column, 0] = torch.nan
            backend.attend(*inputs, **size.options).backward(gradient)
            for tensor in (inputs.key, inputs.value):
                assert tensor.grad is not None
                reached = tensor.grad.isnan().any(dim=-1)
                assert torch.equal(reached[0, :, :, 0], window[row, column]), (row, column)
                assert not reached[1:].any()
                assert not reached[:, :, :, 1:].any()


@pytest.mark.many_calls
@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize("stride", [1, 3])
def test_moving_the_image_by_whole_blocks_moves_the_inside_of_the_result(
    backend: Backend, border: str, stride: int
) -> None:
    size = Size("shifted", "", (15, 18), 3, 1, stride=stride, border=border)
    query, key, value, *tables = size.inputs()
    output = backend.attend(query, key, value, *tables, **size.options)
    shift = (3, 6)
    key, value = key.roll(shift, (1, 2)), value.roll(shift, (1, 2))
    query = query.roll((shift[0] // stride, shift[1] // stride), (1, 2))
    moved = backend.attend(query, key, value, *tables, **size.options)
    back = moved.roll((-shift[0] // stride, -shift[1] // stride), (1, 2))
    # blocks that touch neither the image's border nor, once moved, the seam of the roll
    inside = (slice(None), slice(3 // stride, 9 // stride), slice(3 // stride, 9 // stride))
    assert_agree(back[inside], output[inside])
    assert not torch.allclose(back[:, -1], output[:, -1])


@pytest.mark.many_calls
def test_heads_do_not_influence_one_another(backend: Backend) -> None:
    for name in ("prime_sides", "rectangular", "zeros", "many_heads"):
        size = BY_NAME[name]
        query, key, value, *tables = size.inputs()
        together = backend.attend(query, key, value, *tables, **size.options)
        for head in range(size.heads):
            one = slice(head, head + 1)
            alone = backend.attend(*[x[..., one, :] for x in (query, key, value)], *tables, **size.options)
            assert_agree(together[..., one, :], alone)


@pytest.mark.many_calls
def test_images_of_a_batch_do_not_influence_one_another(backend: Backend) -> None:
    for name in ("prime_sides", "many_heads"):
        size = BY_NAME[name]
        query, key, value, *tables = size.inputs()
        together = backend.attend(query, key, value, *tables, **size.options)
        for image in range(size.batch):
            one = slice(image, image + 1)
            alone = backend.attend(query[one], key[one], value[one], *tables, **size.options)
            assert_agree(together[one], alone)


@pytest.mark.many_calls
def test_no_gradient_is_kept_where_none_is_wanted(backend: Backend) -> None:
    size = BY_NAME["prime_sides"]
    assert not backend.attend(*size.inputs(), **size.options).requires_grad
    inputs = Inputs(*size.inputs()).requiring_grad()
    with torch.no_grad():
        assert not backend.attend(*inputs, **size.options).requires_grad
    with torch.inference_mode():
        assert_close(backend.attend(*inputs, **size.options), backend.attend(*size.inputs(), **size.options))
