from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import dynamic

import halonet
from halonet.layers.projection import Projection, project

SHAPES = [(2, 5, 6, 8), (1, 1, 1, 8), (0, 3, 4, 8), (2, 3, 8), (8,)]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def make(bias: bool = True, dtype: torch.dtype = torch.float32) -> Projection:
    return Projection(8, 12, bias=bias, dtype=dtype)


def routine_of(x: Tensor, weight: Tensor) -> str:
    """The function of PyTorch that computes a projection."""
    with patch.object(F, "conv2d", wraps=F.conv2d) as convolution, patch.object(F, "linear", wraps=F.linear) as linear:
        project(x, weight)
    assert convolution.call_count + linear.call_count == 1
    return "convolution" if convolution.called else "linear"


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_a_sum_over_channels(dtype, shape, bias):
    layer, x = make(bias, dtype), torch.randn(shape, dtype=dtype, requires_grad=True)
    exact = [each.detach().double().requires_grad_() for each in (x, *layer.parameters())]
    expected = torch.einsum("...i,oi->...o", *exact[:2]) + sum(exact[2:])
    output = layer(x)
    output_gradient = torch.randn_like(output)
    output.backward(output_gradient)
    expected.backward(output_gradient.double())
    close = {"rtol": TOLERANCES[dtype], "atol": 10 * TOLERANCES[dtype]}
    torch.testing.assert_close(output.double(), expected, **close)
    for tensor, reference in zip((x, *layer.parameters()), exact, strict=True):
        assert tensor.grad.dtype == dtype
        torch.testing.assert_close(tensor.grad.double(), reference.grad, **close)


def test_a_map_that_is_contiguous_in_nchw_gives_the_same_values():
    layer, image = make(), torch.randn(2, 8, 5, 6)
    expected = layer(image.permute(0, 2, 3, 1).contiguous())
    torch.testing.assert_close(layer(image.permute(0, 2, 3, 1)), expected)
    assert layer(image.permute(0, 2, 3, 1)).is_contiguous()


def test_a_float32_map_on_a_cpu_is_convolved():
    assert routine_of(torch.randn(2, 5, 6, 8), torch.randn(12, 8)) == "convolution"
    assert routine_of(torch.randn(2, 5, 6, 8), nn.Parameter(torch.randn(12, 8))) == "convolution"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_are_multiplied(dtype):
    assert routine_of(torch.randn(2, 5, 6, 8, dtype=dtype), torch.randn(12, 8, dtype=dtype)) == "linear"


def test_a_map_under_autocast_is_multiplied():
    with torch.autocast("cpu", torch.bfloat16):
        assert routine_of(torch.randn(2, 5, 6, 8), torch.randn(12, 8)) == "linear"


def test_a_weight_of_another_class_is_multiplied():
    class Quantized(Tensor):
        pass

    assert routine_of(torch.randn(2, 5, 6, 8), torch.randn(12, 8).as_subclass(Quantized)) == "linear"


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("strict", [True, False])
def test_exported_programs_have_matrix_products(stride, strict):
    layer = halonet.HaloAttention(8, num_heads=2, block_size=4, halo_size=1, stride=stride)
    program = torch.export.export(layer, (torch.randn(2, 8, 5, 6),), strict=strict)
    targets = {str(node.target) for node in program.graph.nodes}
    assert "aten.linear.default" in targets
    assert not any("conv" in target for target in targets)


@pytest.mark.usefixtures("untyped")
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_traced_programs_have_matrix_products():
    graph = str(torch.jit.trace(make(), torch.randn(2, 5, 6, 8)).inlined_graph)
    assert "aten::linear" in graph
    assert "conv" not in graph


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("stride", [1, 2])
def test_a_compiled_layer_computes_the_same(stride):
    layer = halonet.HaloAttention(8, num_heads=2, block_size=4, halo_size=1, stride=stride)
    x = torch.randn(2, 8, 5, 6)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x))


def test_repeated_runs_give_equal_bits():
    layer, x = make(), torch.randn(8, 16, 16, 8)
    runs = []
    for _ in range(5):
        layer.zero_grad()
        output = layer(x)
        output.square().sum().backward()
        runs.append((output.detach(), layer.weight.grad, layer.bias.grad))
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_layer_on_the_reference_can_be_differentiated_twice(stride):
    layer = halonet.HaloAttention(4, num_heads=2, block_size=2, halo_size=1, stride=stride, backend="reference")

    def second_derivative(layer: nn.Module, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(layer(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    x = torch.randn(1, 4, 3, 4)
    expected = second_derivative(layer.double(), x.double())  # which is multiplied, not convolved
    torch.testing.assert_close(second_derivative(layer.float(), x), expected.float(), rtol=1e-4, atol=1e-4)


def test_the_layer_is_a_linear_layer_to_other_tools():
    layer = make()
    assert isinstance(layer, nn.Linear)
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        "weight": (12, 8),
        "bias": (12,),
    }


@pytest.mark.filterwarnings("ignore:.*quantiz:Warning")  # it is deprecated, and says so
def test_dynamic_quantization_takes_the_mapping_of_the_documentation():
    class Quantized(dynamic.Linear):
        @classmethod
        def from_float(cls, layer, *options):
            layer.__class__ = nn.Linear
            return super().from_float(layer, *options)

    layer = halonet.HaloAttention(8, num_heads=2, block_size=4, halo_size=1, stride=2)
    found = torch.ao.quantization.quantize_dynamic(layer, {Projection}, mapping={Projection: Quantized})
    assert isinstance(found.query, Quantized)
    assert isinstance(found.key_value, Quantized)
    assert type(layer.query) is Projection
    x = torch.randn(2, 8, 5, 6)
    difference = (found(x) - layer(x)).norm() / layer(x).norm()
    assert 0 < difference < 0.1


def test_a_network_with_folded_norms_projects_the_same_way():
    network = halonet.create_model("tiny28", num_classes=2).eval()
    fused = halonet.fuse_batch_norm(network)
    names = ("qkv", "query", "key_value")
    kinds = [type(module) for name, module in fused.named_modules() if name.rpartition(".")[2] in names]
    assert kinds == [Projection] * 4  # two layers have one, the strided layer has two
