"""`torch.func` on the operator, where "auto" must take a backend that can, and on what stands around it."""

import pytest
import torch
from timm.layers.halo_attn import HaloAttn
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacrev, jvp, vjp, vmap

import halonet
from halonet.ops import batch_norm, cpu_library
from halonet.ops.transforms import is_transformed

pytestmark = [
    # What PyTorch compiles for forward mode, and what it says of the derivatives of its own attention under vmap.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
]
needs_kernel = pytest.mark.skipif(cpu_library.MISSING is not None, reason="this installation has no kernel")
TABLES = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).unbind()


def attend(x: Tensor, backend: str = "auto") -> Tensor:
    return halonet.halo_attention(x, x, x, *TABLES, block_size=4, halo_size=1, backend=backend)


def loss(x: Tensor, backend: str = "auto") -> Tensor:
    return attend(x, backend).pow(3).sum()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 6, 5, 2, 8, dtype=torch.float64)


@pytest.fixture
def slope(image: Tensor) -> Tensor:
    x = image.clone().requires_grad_()
    return torch.autograd.grad(loss(x, "reference"), x)[0]


def test_grad_and_vjp_work(image: Tensor, slope: Tensor) -> None:
    torch.testing.assert_close(grad(loss)(image), slope)
    torch.testing.assert_close(vjp(loss, image)[1](torch.ones((), dtype=torch.float64))[0], slope)


def test_vmap_and_gradients_of_each_sample_work(image: Tensor, slope: Tensor) -> None:
    torch.testing.assert_close(vmap(attend)(image[:, None])[:, 0], attend(image))
    torch.testing.assert_close(vmap(grad(loss))(image[:, None])[:, 0], slope)


def test_forward_mode_works(image: Tensor, slope: Tensor) -> None:
    direction = torch.randn_like(image)
    expected = (slope * direction).sum()
    torch.testing.assert_close(jvp(loss, (image,), (direction,))[1], expected)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(image, direction)
        torch.testing.assert_close(forward_ad.unpack_dual(loss(dual)).tangent, expected)


def test_jacobians_and_second_derivatives_work(image: Tensor) -> None:
    def along(t: Tensor, backend: str = "auto") -> Tensor:
        return loss(image * t, backend)

    t = torch.ones((), dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(along(t, "reference"), t, create_graph=True)
    (second,) = torch.autograd.grad(first, t)
    point = t.detach()
    torch.testing.assert_close(jacrev(along)(point), first.detach())
    torch.testing.assert_close(hessian(along)(point), second)
    torch.testing.assert_close(grad(grad(along))(point), second)


@needs_kernel
def test_a_kernel_that_is_named_is_refused_with_the_remedy(image: Tensor) -> None:
    with pytest.raises(ValueError, match="'cpu' cannot run this call.*torch.func.*backend='auto'"):
        grad(lambda x: loss(x, "cpu"))(image)


@needs_kernel
def test_outside_of_transforms_the_kernels_run(image: Tensor) -> None:
    feature_map = torch.randn(1, 16, 3, 3).contiguous(memory_format=torch.channels_last)
    seen = []
    grad(lambda x: (seen.append(is_transformed()), x.sum())[1])(image)
    assert seen == [True]
    assert not is_transformed()
    assert batch_norm.unsupported_reason(feature_map) is None
    x = image.clone().requires_grad_()
    assert "cpu_attention" in type(attend(x).grad_fn).__name__


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    return {name: value.detach() for name, value in model.named_parameters()}


def test_gradients_of_a_network_are_those_of_autograd() -> None:
    model = halonet.create_model("micro32", num_classes=3).eval()
    parameters, images = parameters_of(model), torch.randn(2, 3, 16, 16)

    def objective(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(model, parameters, (images,)).square().sum()

    expected = torch.autograd.grad(objective(dict(model.named_parameters()), images), list(model.parameters()))
    found = grad(objective)(parameters, images)
    each = vmap(grad(lambda parameters, image: objective(parameters, image[None])), (None, 0))(parameters, images)
    for name, value in zip(found, expected, strict=True):
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4 * value.norm().item())
        torch.testing.assert_close(each[name].sum(0), value, rtol=1e-3, atol=1e-4 * value.norm().item())
    slope = sum((found[name] * parameters[name]).sum() for name in found)
    along = jvp(lambda parameters: objective(parameters, images), (parameters,), (parameters,))[1]
    torch.testing.assert_close(along, slope, rtol=1e-3, atol=1e-4)


def test_per_sample_gradients_in_training_need_norms_without_statistics() -> None:
    model = torch.func.replace_all_batch_norm_modules_(halonet.create_model("tiny28", num_classes=3))
    parameters, images = parameters_of(model), torch.randn(2, 3, 8, 8)

    def objective(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, parameters, (image[None],)).square().sum()

    each = vmap(grad(objective), (None, 0))(parameters, images)
    for index, image in enumerate(images):
        expected = torch.autograd.grad(objective(dict(model.named_parameters()), image), list(model.parameters()))
        for name, value in zip(each, expected, strict=True):
            torch.testing.assert_close(each[name][index], value, rtol=1e-3, atol=1e-4 * value.norm().item())


def test_an_accelerated_layer_of_timm_is_transformed_as_timms_own() -> None:
    layer = HaloAttn(8, dim_head=4, num_heads=2, block_size=4, halo_size=1).double().eval()
    for table in (layer.pos_embed.height_rel, layer.pos_embed.width_rel):
        nn.init.normal_(table)
    image = torch.randn(2, 8, 8, 8, dtype=torch.float64)
    direction = torch.randn_like(image)

    def results() -> list[Tensor]:
        return [
            grad(lambda x: layer(x).pow(3).sum())(image),
            jvp(layer, (image,), (direction,))[1],
        ]

    expected = results()
    halonet.accelerate(layer)
    torch.testing.assert_close(results(), expected)
    torch.testing.assert_close(vmap(layer)(image[:, None])[:, 0], layer(image))


@needs_kernel
@pytest.mark.usefixtures("untyped")  # the sizes of a map that is traced are tensors
@pytest.mark.filterwarnings("ignore")  # what is deprecated still traces, and says much
def test_a_traced_network_is_saved_and_loaded(tmp_path) -> None:
    model = halonet.create_model("tiny28", num_classes=3).eval()
    parameters_of(model)
    torch.jit.trace(model, torch.randn(2, 3, 16, 16)).save(tmp_path / "traced.pt")
    traced = torch.jit.load(tmp_path / "traced.pt")
    for shape in ((2, 3, 16, 16), (1, 3, 21, 13)):
        images = torch.randn(shape)
        torch.testing.assert_close(traced(images), model(images))
