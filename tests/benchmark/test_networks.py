import dataclasses

import pytest
import timm
import torch
from torch import nn

import halonet
from halonet.benchmark.model import IMAGE_SCALE, LOGIT_TOLERANCE
from halonet.benchmark.networks import (
    VALUES_ONLY,
    attention_replaced_by_values,
    create_network,
    has_halo_attention,
    randomize_norms,
)
from halonet.benchmark.peers import relative_error
from halonet.errors import UserError
from halonet.ops.attention import backends
from halonet.ops.attention.calls import packed_attention
from halonet.ops.attention.packed import Packed
from tests.models.timm_networks import small_layer


@pytest.fixture
def calls(monkeypatch):
    """Names of the backends that are called."""
    called = []

    def count(name, backend):
        def counted(run):
            return lambda *tensors, **numbers: (called.append(name), run(*tensors, **numbers))[1]

        packed = backend.run_packed and counted(backend.run_packed)
        return dataclasses.replace(backend, run=counted(backend.run), run_packed=packed)

    for name, backend in list(backends.BACKENDS.items()):
        monkeypatch.setitem(backends.BACKENDS, name, count(name, backend))
    return called


def test_the_bound_of_a_model_calls_no_attention_and_trains_every_projection(calls):
    network, images = create_network("tiny28").train(), torch.randn(2, 3, 28, 28)
    network(images)
    assert len(calls) == sum(halonet.HALONETS["tiny28"].depths)
    calls.clear()
    with attention_replaced_by_values():
        network(images).sum().backward()
    assert calls == []
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == name.endswith("_embedding"), name
    network(images)
    assert calls


def test_the_bound_of_an_accelerated_layer_is_its_values_where_queries_stand(calls):
    layer = halonet.accelerate(small_layer(stride=2))
    image = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    with attention_replaced_by_values():
        output = layer(image)
    assert calls == []
    values = layer.kv(image).unflatten(1, (layer.num_heads, -1))[:, :, layer.dim_head_qk :].flatten(1, 2)
    torch.testing.assert_close(output, values[:, :, ::2, ::2])


def test_the_backend_of_the_bound_is_gone_afterwards_even_after_an_error():
    with pytest.raises(KeyError, match=VALUES_ONLY), attention_replaced_by_values():
        raise KeyError(*(name for name in backends.BACKENDS if name == VALUES_ONLY))
    assert list(backends.BACKENDS) == ["cpu", "triton", "composite", "reference"]


def test_queries_and_keys_of_the_bound_have_zero_gradients():
    query = torch.randn(1, 2, 3, 2, 4, requires_grad=True)
    key, value = (torch.randn(1, 4, 5, 2, 4, requires_grad=True) for _ in range(2))
    with attention_replaced_by_values():
        output = halonet.halo_attention(query, key, value, stride=(2, 2), block_size=2, halo_size=1)
    assert torch.equal(output, value[:, ::2, ::2])
    output.backward(torch.ones_like(output))
    assert query.grad.count_nonzero() == key.grad.count_nonzero() == 0
    assert value.grad.sum() == output.numel()
    assert (value.grad[:, ::2, ::2] == 1).all()


def test_zero_gradients_of_the_bound_are_packed_as_those_of_the_kernels():
    projected = torch.randn(1, 4, 5, 24, requires_grad=True)
    options = {"block_size": 2, "halo_size": 1, "scale": None, "backend": "auto"}
    with attention_replaced_by_values():
        output = packed_attention(Packed(projected, None, 2, 8, 8), None, None, **options)
    output.backward(torch.ones_like(output))
    assert output.grad_fn.name() == "_PackedValuesBackward"
    assert torch.equal(projected.grad, torch.cat([torch.zeros(1, 4, 5, 16), torch.ones(1, 4, 5, 8)], -1))


def test_blocks_show_in_a_network_with_random_norms():
    network, images = halonet.create_model("tiny28").eval(), torch.randn(1, 3, 28, 28)
    with torch.no_grad(), attention_replaced_by_values():
        hidden = network(images)
    with torch.no_grad():
        assert torch.equal(network(images), hidden), "a new network's blocks begin as the identity"
        shown = randomize_norms(network)(images)
        with attention_replaced_by_values():
            assert not torch.allclose(network(images), shown)


def test_attention_shows_in_the_logits_of_a_deep_network():
    network, images = create_network("h1").eval(), IMAGE_SCALE * torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        right = network(images)
        with attention_replaced_by_values():
            assert relative_error(network(images), right) > 100 * LOGIT_TOLERANCE
        network.stages[0][0].mixer.row_embedding.zero_()
        assert relative_error(network(images), right) > LOGIT_TOLERANCE


GPU_NETWORKS = [
    "timm/halonet_h1", "timm/halonet50ts", "timm/resnet50", *(f"timm/efficientnet_b{size}" for size in range(8)),
    "timm/vit_large_patch16_384", "timm/resnetv2_152x4_bit", "h4_21k", "h4_21k_patch", "h4_21k_conv12",
]  # fmt: skip


@pytest.mark.parametrize("name", GPU_NETWORKS)
def test_the_networks_of_the_suite_exist(name):
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in create_network(name).parameters())


def test_networks_of_one_name_have_the_same_weights():
    first, second = (create_network("tiny28").state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_networks_with_halo_attention_are_recognized():
    assert has_halo_attention(create_network("tiny28"))
    assert has_halo_attention(nn.Sequential(small_layer()))
    assert not has_halo_attention(timm.create_model("resnet18"))


@pytest.mark.parametrize("name", ["h9", "timm/resnet51x", "resnet50"])
def test_an_unknown_network_is_refused(name):
    with pytest.raises(UserError, match=f"(?i)unknown model '{name}'"):
        create_network(name)
