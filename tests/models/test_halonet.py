import copy

import pytest
import torch
from torch import nn

from halonet import HALONETS, HaloAttention, create_model, use_backend
from halonet.models import count_macs

SMALL = ("tiny28", "small32", "small64")


def shrunk(name, **changes):
    """A row with its structure but narrow and shallow, for tests that run it."""
    stages = len(HALONETS[name].depths)
    return create_model(
        name, num_classes=5, **{"depths": (1,) * stages, "width_ratio": 0.25, "stem_width": 8} | changes
    )


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(28, 28), (32, 32), (64, 64), (33, 47), (1, 1)])
def test_small_rows_train_at_every_size(name, size):
    model = create_model(name, num_classes=3)
    loss = model(torch.randn(2, 3, *size)).square().sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_h0_trains_at_97_by_161():
    model = create_model("h0", num_classes=3)
    model(torch.randn(2, 3, 97, 161)).square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("name", HALONETS)
def test_every_row_builds_under_meta(name):
    with torch.device("meta"):
        model = create_model(name, num_classes=7)
    assert all(value.is_meta for value in model.state_dict().values())
    assert model.classifier.weight.shape == (7, model.config.final_width or model.feature_info[-1]["num_chs"])
    assert count_macs(model, HALONETS[name].image_size).total > 5e6


@pytest.mark.parametrize("name", ["h0", "halonet50", "r50se_halo_b32", "h4_21k_patch", "tiny28"])
def test_features_have_the_announced_channels_and_reductions(name):
    model = shrunk(name).eval()
    last, features = model.forward_intermediates(torch.randn(1, 3, 96, 65))
    assert len(features) == len(model.feature_info)
    for feature, info in zip(features, model.feature_info, strict=True):
        reduction = info["reduction"]
        assert feature.shape[1:] == (info["num_chs"], -(-96 // reduction), -(-65 // reduction))
        assert feature.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, model.forward_features(torch.randn(0, 3, 96, 65)).new_tensor(last.tolist()))


def test_attention_stands_where_the_hybrids_say():
    for name, stages in {"h7_c12": (2, 3), "h4_21k_conv12": (2, 3), "r50se_halo_b8": (3,), "resnet50_twin": ()}.items():
        with torch.device("meta"):
            model = create_model(name)
        found = tuple(
            index
            for index, stage in enumerate(model.stages)
            if any(isinstance(module, HaloAttention) for module in stage.modules())
        )
        assert found == stages


def test_only_attention_mixes_pixels_beyond_the_stem():
    for name in ("tiny28", "h1"):
        with torch.device("meta"):
            model = create_model(name)
        kernels = {module.kernel_size for module in model.stages.modules() if isinstance(module, nn.Conv2d)}
        assert kernels == {(1, 1)}


def test_heads_strides_and_windows_follow_the_row():
    with torch.device("meta"):
        layers = [module for module in create_model("h3").modules() if isinstance(module, HaloAttention)]
    assert [layer.num_heads for layer in layers] == [4] * 3 + [8] * 3 + [8] * 12 + [8] * 3
    assert [index for index, layer in enumerate(layers) if layer.stride == (2, 2)] == [3, 6, 18]
    assert {(layer.block_size, layer.halo_size) for layer in layers} == {((10, 10), (3, 3))}


@pytest.mark.parametrize("changes", [{"downsampling": "pool"}, {"centered": True}, {"position": "absolute"},
                                     {"position": "none"}, {"embedding": "full"}, {"border": "zeros"},
                                     {"squeeze_excitation_stages": (1, 2)}, {"final_width": 24}])  # fmt: skip
def test_every_knob_changes_the_function_and_trains(changes):
    torch.manual_seed(0)
    plain = create_model("tiny28", num_classes=3)
    torch.manual_seed(0)
    changed = create_model("tiny28", num_classes=3, **changes)
    for model in (plain, changed):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
    x = torch.randn(2, 3, 28, 28)
    expected, found = plain(x), changed(x)
    assert not torch.allclose(expected, found)
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in changed.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_every_module_with_parameters_is_called_as_a_module(training, backend):
    model = create_model(
        "tiny28", num_classes=3, final_width=16, squeeze_excitation_stages=(2,), downsampling="attention"
    ).train(training)
    called = set()
    with nn.modules.module.register_module_forward_hook(lambda module, *_: called.add(module)), use_backend(backend):
        model(torch.randn(2, 3, 28, 28))
    silent = [
        name
        for name, module in model.named_modules()
        if module not in called and any(True for _ in module.parameters())
    ]
    assert not silent


def test_a_hook_of_a_norm_fires_where_the_kernel_runs():
    model = create_model("tiny28", num_classes=3)
    called = []
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    model(torch.randn(2, 3, 28, 28))
    assert sorted(called) == sorted(
        name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)
    )


@pytest.mark.parametrize("training", [True, False])
def test_synchronized_norms_compute_the_same(training):
    torch.manual_seed(0)
    model = create_model("tiny28", num_classes=3, final_width=16)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)).train(training)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in converted.modules())
    x = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(converted(x), model.train(training)(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(converted.state_dict(), model.state_dict(), rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    model = create_model("tiny28", num_classes=3, depths=(2, 2))
    x = torch.randn(2, 3, 28, 28)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_other_channels_are_refused_by_name():
    with pytest.raises(ValueError, match=r"\[1, 1, 28, 28\].*\[batch, 3, height, width\]"):
        create_model("tiny28")(torch.randn(1, 1, 28, 28))


def test_the_model_compiles_whole_with_dynamic_sizes(untyped):
    model = create_model("tiny28", num_classes=3).eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in ((28, 28), (40, 24), (33, 57)):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(compiled(x), model(x))
