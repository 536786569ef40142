import pytest
import torch

from halonet import HALONETS, create_model

SIZES = [(224, 224), (97, 161), None]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=["224 px", "97 x 161 px", "own size"])
@pytest.mark.parametrize("name", HALONETS)
def test_a_row_has_a_finite_loss_and_finite_gradients(name, size):
    height, width = size or (HALONETS[name].image_size,) * 2
    model = create_model(name, num_classes=10)
    loss = torch.nn.functional.cross_entropy(model(torch.randn(1, 3, height, width)), torch.tensor([3]))
    loss.backward()
    assert torch.isfinite(loss)
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
