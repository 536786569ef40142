"""Where the gradients of query, key and value lie: those of slices of one tensor are slices of one tensor.

A layer projects to queries, keys and values at once, and cuts the result up. Its backward wants their gradients side by
side again: kernels that write them so spare it a copy of all three.
"""

from torch import Tensor


def count_joined(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Say how many of them, from the last on, are slices of one tensor: 3, 2 or 0.

    It goes by strides and offsets alone, which tensors without memory have too. A coincidence costs whoever wants the
    gradients contiguous a copy.
    """
    if not _are_neighbors(key, value):
        return 0
    return 3 if _are_neighbors(query, key) else 2


def allocate(joined: int, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """Make memory for the gradients, `joined` of them in one tensor.

    Returns:
        Three tensors: [batch, rows, columns, heads, channels] of one that stands alone; of several one of
        [batch, rows, columns, channels], all heads', and an empty one after it for each of the others.
    """
    alone, together = _divide(joined, (query, key, value))
    memory = [each.new_empty(each.shape) for each in alone]
    if together:
        width = sum(each.shape[3:].numel() for each in together)
        memory.append(together[0].new_empty(*together[0].shape[:3], width))
        memory += [memory[-1].new_empty(0) for _ in together[1:]]
    return tuple(memory)


def parts(joined: int, memory: tuple[Tensor, ...], like: tuple[Tensor, ...]) -> list[Tensor]:
    """See the gradients in that memory, each in its own shape."""
    alone, together = _divide(joined, like)
    views = list(memory[: len(alone)])
    if together:
        # The axis by its number, as the derivative of `split` has it: the compiler then drops the split and the join.
        slices = memory[len(alone)].split([each.shape[3:].numel() for each in together], 3)
        views += [part.unflatten(3, each.shape[3:]) for part, each in zip(slices, together, strict=True)]
    return views


def _divide(joined: int, tensors: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    return tensors[: 3 - joined], tensors[3 - joined :]


def _are_neighbors(first: Tensor, second: Tensor) -> bool:
    heads, channels = first.shape[3:]
    return bool(
        first.shape[:3] == second.shape[:3]
        and first.stride()[:3] == second.stride()[:3]
        and first.stride()[3:] == (channels, 1)
        and second.stride(4) == 1
        and first.storage_offset() + heads * channels == second.storage_offset()
    )
