"""torchao's `quantize_` on networks and layers."""

import pytest
import torch

import halonet
from halonet.layers.projection import Projection

quantization = pytest.importorskip("torchao.quantization")
pytestmark = pytest.mark.filterwarnings("ignore")  # torchao's own


@pytest.mark.parametrize("name", ["mini32.cifar10", "tiny28.fashion_mnist"])
def test_int8_weights_act_on_every_projection(name):
    model = halonet.create_model(name, pretrained=True).eval()
    images = torch.randn(4, model.in_chans, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(images)
    weights = {key: each.weight.detach().clone() for key, each in model.named_modules() if isinstance(each, Projection)}
    assert weights
    quantization.quantize_(
        model, quantization.Int8WeightOnlyConfig(), filter_fn=lambda module, _: isinstance(module, Projection)
    )
    for key, weight in weights.items():
        quantized = model.get_submodule(key).weight
        assert type(quantized) not in (torch.Tensor, torch.nn.Parameter)
        assert 0 < (quantized.dequantize() - weight).abs().max() <= weight.abs().max() / 100
    with torch.inference_mode():
        found = model(images)
    assert not torch.equal(found, expected)
    assert torch.allclose(found, expected, atol=0.05 * expected.abs().max().item())
    assert torch.equal(found.argmax(1), expected.argmax(1))


def test_torchaos_own_choice_of_layers_takes_every_projection():
    model = halonet.create_model("mini32", device="cpu").eval()
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    left = [
        key
        for key, each in model.named_modules()
        if isinstance(each, Projection) and type(each.weight) is torch.nn.Parameter
    ]
    assert left == []
