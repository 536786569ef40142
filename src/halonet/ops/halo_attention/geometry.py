"""The integers of halo attention: blocks, halos, strides and the offsets that the tables are indexed by.

Everything here is plain integers, checked once; the backends derive their index tensors from them inside
the operator and never cache them, so a call that is being traced leaves nothing behind.
"""

from typing import NamedTuple

BORDERS = ("mask", "zeros")


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
    """Derive the counts of one axis from its five numbers."""
    return Axis(
        size,
        block,
        halo,
        stride,
        offset_stride,
        num_queries=-(-size // stride),
        num_blocks=-(-size // block),
        window=block + 2 * halo,
        table_length=2 * (block + halo) - 1,
    )


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


def pair(name: str, value: int | tuple[int, int], least: int) -> tuple[int, int]:
    """Expand an int to (rows, columns) and check the least value allowed.

    Args:
        name: The argument's name, for the message.
        value: One int for both axes, or (rows, columns).
        least: The smallest value allowed.

    Raises:
        ValueError: If it is not an int or a pair of ints, or is below `least`.
    """
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or any(isinstance(number, bool) or not isinstance(number, int) for number in both):
        raise ValueError(f"{name} is {value!r}; it must be an int or a pair of ints (rows, columns)")
    if both[0] < least or both[1] < least:
        raise ValueError(f"{name} is {value!r}; it must be at least {least} along both axes")
    return both[0], both[1]


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
    """Check the integers of a call and put them in order.

    Args:
        height: H of the keys, in pixels.
        width: W of the keys, in pixels.
        block_size: The paper's b, int or (rows, columns), at least 1.
        halo_size: The paper's h, int or (rows, columns), at least 0.
        stride: Distance between queries in pixels, at least 1.
        offset_stride: Pixels one query step counts for in the offsets; None takes `stride`.
        border: "mask" or "zeros".
        centered: Whether each query keeps only its own centered window.

    Raises:
        ValueError: If a value breaks its rule; the message names the value and the rule.
    """
    if height < 1 or width < 1:
        raise ValueError(f"key is {height}x{width} pixels; both H and W must be at least 1")
    if border not in BORDERS:
        raise ValueError(f"border is {border!r}; it must be 'mask' or 'zeros'")
    blocks = pair("block_size", block_size, 1)
    halos = pair("halo_size", halo_size, 0)
    strides = pair("stride", stride, 1)
    offset_strides = strides if offset_stride is None else pair("offset_stride", offset_stride, 1)
    for block, step, offset_step in zip(blocks, strides, offset_strides, strict=True):
        if offset_step == step:
            continue
        if block % step != 0:
            raise ValueError(
                f"offset_stride {offset_stride!r} differs from stride {stride!r}, which is allowed only where "
                f"the stride divides the block; {step} does not divide {block}. Leave offset_stride out"
            )
        if (block // step - 1) * offset_step >= block:
            raise ValueError(
                f"offset_stride {offset_stride!r} puts the last query of a block of {block} outside it "
                f"(stride {step}); the table has no such offsets. Take an offset_stride of at most the stride"
            )
    axes = [
        make_axis(size, *numbers)
        for size, *numbers in zip((height, width), blocks, halos, strides, offset_strides, strict=True)
    ]
    return Geometry(axes[0], axes[1], border, bool(centered))
