"""The integers of halo attention: blocks, halos, strides and the offsets that the tables are indexed by.

They are plain integers, checked once. The backends derive index tensors from them inside the operator and never cache
those, because a tensor cached while tracing would break later eager calls.
"""

from typing import Any, NamedTuple

from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from halonet.errors import UserError
from halonet.ops.arguments import choice, flag, pair

BORDERS = ("mask", "zeros")
# With border="zeros" every pixel of a window takes part, however far outside the image it is.
MOST_ZEROS = 2**24


class Axis(NamedTuple):
    """One image axis: `size` pixels cut into blocks of `block` with a halo of `halo` on either side.

    Attributes:
        size: Pixels of the keys along this axis (H or W).
        block: The paper's b.
        halo: The paper's h.
        stride: Query i stands at pixel `stride * i`.
        offset_stride: Pixels one query step counts for in the relative offsets.
        num_queries: ceil(size / stride).
        num_blocks: ceil(size / block), a partial last one included.
        window: Keys that a block sees, border included: b + 2h.
        table_length: Relative offsets that occur, -(b+h-1) to b+h-1: 2(b+h) - 1.
    """

    size: int
    block: int
    halo: int
    stride: int
    offset_stride: int
    num_queries: int
    num_blocks: int
    window: int
    table_length: int


def make_axis(size: int, block: int, halo: int, stride: int, offset_stride: int) -> Axis:
    """Derive the counts of one axis."""
    # Not -(-size // stride): ONNX divides integers by truncation.
    num_queries, num_blocks = (size + stride - 1) // stride, (size + block - 1) // block
    window, table_length = block + 2 * halo, 2 * (block + halo) - 1
    return Axis(size, block, halo, stride, offset_stride, num_queries, num_blocks, window, table_length)


def power_of_2(number: int, least: int = 16) -> int:
    """The smallest power of 2 that holds `number` and `least`; 16 is the least side of a matrix unit's product."""
    return max(least, 1 << (number - 1).bit_length())


class Geometry(NamedTuple):
    """Both axes, and what happens at the border.

    Attributes:
        rows: The vertical axis.
        columns: The horizontal axis.
        border: "mask" (keys outside the image do not exist) or "zeros" (they are zeros that take weight).
        centered: Each query keeps only the keys within the halo of itself (SASA's window).
    """

    rows: Axis
    columns: Axis
    border: str
    centered: bool


def make_geometry(
    height: int,
    width: int,
    *,
    block_size: int | tuple[int, int],
    halo_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    offset_stride: int | tuple[int, int] | None = None,
    border: str = "mask",
    centered: bool = False,
) -> Geometry:
    """Check the integers of a call of `halonet.halo_attention`, whose keys are H x W pixels, and derive both axes.

    Raises:
        UserError: If a value breaks its rule.
    """
    if height < 1 or width < 1:
        raise UserError(f"key is {height}x{width} pixels; both H and W must be at least 1")
    choice("border", border, BORDERS)
    blocks = pair("block_size", block_size, 1)
    halos = pair("halo_size", halo_size, 0)
    strides = pair("stride", stride, 1)
    offset_strides = strides if offset_stride is None else pair("offset_stride", offset_stride, 1)
    for block, step, offset_step in zip(blocks, strides, offset_strides, strict=True):
        if offset_step == step:
            continue
        if block % step != 0:
            raise UserError(
                f"offset_stride {offset_stride!r} differs from stride {stride!r}, which is allowed only where "
                f"the stride divides the block; {step} does not divide {block}. Leave offset_stride out"
            )
        if (block // step - 1) * offset_step >= block:
            raise UserError(
                f"offset_stride {offset_stride!r} puts the last query of a block of {block} outside it "
                f"(stride {step}); the table has no such offsets. Take an offset_stride of at most the stride"
            )
    rows, columns = map(make_axis, (height, width), blocks, halos, strides, offset_strides)
    if border == "zeros" and rows.window * columns.window > MOST_ZEROS:
        raise UserError(
            f"block_size {block_size!r} and halo_size {halo_size!r} make windows of {rows.window} x {columns.window} "
            f"pixels; with border='zeros' they can hold at most {MOST_ZEROS}. Take a smaller halo, or border='mask'"
        )
    return Geometry(rows, columns, border, flag("centered", centered))


def clip(geometry: Geometry) -> Geometry:
    """Reduce blocks, halos and strides that reach beyond the image, where the result stays the same.

    So the time and memory of a backend may grow with block and halo. `calls` cuts the tables to the offsets that are
    left. With `border="zeros"` blocks and halos stay, because pixels outside the image take weight. Symbolic sizes of a
    trace are not clipped.
    """
    zeros = geometry.border == "zeros"
    rows, columns = _clip(geometry.rows, zeros), _clip(geometry.columns, zeros)
    if rows is geometry.rows and columns is geometry.columns:
        return geometry
    return Geometry(rows, columns, geometry.border, geometry.centered)


def _is_certain(condition: Any) -> bool:
    """Whether a condition on sizes holds for all that a trace leaves open; `torch.jit.trace` makes sizes tensors."""
    return not isinstance(condition, Tensor) and statically_known_true(condition)


def _clip(axis: Axis, zeros: bool) -> Axis:
    size, block, halo, stride, offset_stride = axis[:5]
    if _is_certain(stride > size):  # there is one query, at pixel 0
        stride, offset_stride = size, size
    # A block up to twice as large stays as it is: small maps meet it all the time.
    whole = size if stride == offset_stride else axis.num_queries * stride
    if not zeros and _is_certain(block > 2 * whole):
        block = whole
    if not zeros and _is_certain(halo > size):
        halo = size
    if _is_certain(block == stride):  # each block has one query, and no step to the next
        offset_stride = stride
    if (block, halo, stride, offset_stride) == axis[1:5]:
        return axis
    return make_axis(size, block, halo, stride, offset_stride)
