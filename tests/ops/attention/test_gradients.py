"""Where gradients lie that a fused kernel writes."""

import pytest
import torch
from torch import Tensor

from halonet.ops.attention import gradients
from tests.ops.attention.backends import BACKENDS, Backend

FUSED = [backend for backend in BACKENDS if backend.name in ("cpu", "triton")]


def slices(x: Tensor, *channels: int) -> list[Tensor]:
    parts = x.split([2 * each for each in channels], -1)
    return [part.unflatten(-1, (2, each)) for part, each in zip(parts, channels, strict=True)]


def test_slices_of_one_tensor_are_counted_from_the_last_on() -> None:
    whole = slices(torch.empty(1, 4, 5, 32), 4, 4, 8)
    some = slices(torch.empty(1, 4, 5, 24), 4, 8)
    alone = torch.empty(1, 2, 3, 2, 4)
    assert gradients.count_joined(*whole) == 3
    assert gradients.count_joined(alone, *some) == 2
    assert gradients.count_joined(*(each.contiguous() for each in whole)) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda query, key, value: (query, value, key),  # in another order
        lambda query, key, value: (query, key[..., :3], value),  # with a gap
        lambda query, key, value: (query, key.flip(1), value),  # another tensor
        lambda query, key, value: (query, key[:, :, :3], value),  # of other sizes
        lambda query, key, value: (query, key.mT, value),  # channels apart
    ],
)
def test_what_only_looks_like_slices_of_one_tensor_is_not_joined(change) -> None:
    assert gradients.count_joined(*change(*slices(torch.empty(1, 4, 5, 24), 4, 4, 4))) == 0


@pytest.mark.parametrize("joined", [0, 2, 3])
def test_memory_is_seen_as_gradients_that_lie_side_by_side(joined: int) -> None:
    tensors = tuple(slices(torch.empty(1, 4, 5, 32), 4, 4, 8))
    memory = gradients.allocate(joined, *tensors)
    assert len(memory) == 3
    views = gradients.parts(joined, memory, tensors)
    assert [view.shape for view in views] == [each.shape for each in tensors]
    assert sum(each.numel() for each in memory) == sum(each.numel() for each in tensors)
    storages = [view.untyped_storage().data_ptr() for view in views]
    assert len(set(storages[3 - joined :])) <= 1
    assert len(set(storages)) == 3 - max(joined - 1, 0)
    if joined:
        assert gradients.count_joined(*views) == joined


@pytest.mark.parametrize("backend", FUSED, ids=lambda backend: backend.name)
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_slices_of_one_tensor_are_slices_of_one_and_right(backend: Backend, stride: int) -> None:
    whole = torch.randn(1, 5, 6, 32, dtype=torch.float64, device=backend.device, requires_grad=True)
    seen: list[Tensor] = []

    def gradient(attend, watched: bool) -> Tensor:
        query, key, value = slices(whole, 4, 4, 8)
        if watched:
            for each in (query, key, value):
                each.register_hook(seen.append)
        output = attend(query[:, ::stride, ::stride], key, value, None, None, block_size=4, halo_size=1, stride=stride)
        return torch.autograd.grad(output.square().sum(), whole)[0]

    torch.testing.assert_close(gradient(backend.attend, True), gradient(BACKENDS[0].attend, False))
    of_value, of_key, of_query = seen
    assert of_value.untyped_storage().data_ptr() == of_key.untyped_storage().data_ptr()
    assert (of_query.untyped_storage().data_ptr() == of_key.untyped_storage().data_ptr()) is (stride == 1)
