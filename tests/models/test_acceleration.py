"""What `accelerate` keeps, says and refuses; that it keeps the numbers is in test_acceleration_numbers.py."""

import copy
import io
import logging
from typing import Any

import pytest
import timm
import torch
from timm.layers.halo_attn import HaloAttn
from timm.layers.lambda_layer import LambdaLayer
from timm.models import create_feature_extractor
from torch import Tensor, nn

import halonet
from halonet.models import acceleration
from tests.models.timm_networks import ANY_SIZE, WITH_BOTNET_LAYERS, small_layer


@pytest.mark.parametrize("name", ANY_SIZE)
def test_timm_models_run_at_sizes_that_timm_refuses(name: str) -> None:
    model = timm.create_model(name, num_classes=5).eval()
    image = torch.randn(1, 3, 224, 320)
    with torch.no_grad():
        with pytest.raises(AssertionError):
            model(image)
        assert halonet.accelerate(model)(image).isfinite().all()


def test_a_photograph_of_detection_runs() -> None:
    model = halonet.accelerate(timm.create_model("halonet26t", num_classes=5)).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 800, 1333)).shape == (1, 5)


def nested(**options: Any) -> nn.Sequential:
    """Two layers of timm among others."""
    inner = nn.Sequential(small_layer(), nn.ReLU())
    return nn.Sequential(nn.Conv2d(3, 16, 1).double(), inner, small_layer(**options))


def pixels(*size: int) -> Tensor:
    return torch.randn(2, 3, *(size or (8, 12)), dtype=torch.float64)


def test_modules_and_parameters_stay_the_same_objects() -> None:
    model = nested()
    modules, parameters = list(model.modules()), dict(model.named_parameters())
    keys = list(model.state_dict())
    assert halonet.accelerate(model) is model
    assert all(ours is theirs for ours, theirs in zip(model.modules(), modules, strict=True))
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert list(model.state_dict()) == keys
    assert halonet.accelerated_layers(model) == ["1.0", "2"]


def test_weights_go_between_timms_and_ours_in_both_directions() -> None:
    theirs, ours, image = nested(), halonet.accelerate(nested()), pixels()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(image), theirs(image))
    again = nested()
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again(image), theirs(image))


def test_hooks_modes_and_optimizers_survive() -> None:
    model, seen = nested(), []
    model[2].register_forward_hook(lambda *_: seen.append("after"))
    model[2].register_forward_pre_hook(lambda *_: seen.append("before"))
    model.train()[1].eval()
    modes = [module.training for module in model.modules()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    halonet.accelerate(model)
    assert [module.training for module in model.modules()] == modes
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(pixels()).square().sum().backward()
    optimizer.step()
    assert seen == ["before", "after"]
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_a_second_time_changes_nothing() -> None:
    model = halonet.accelerate(nested())
    classes = [type(module) for module in model.modules()]
    assert halonet.accelerate(model) is model
    assert [type(module) for module in model.modules()] == classes


def test_restoring_gives_timms_class_and_bits_back() -> None:
    model, image = nested(stride=2), pixels()
    expected, classes = model(image), [type(module) for module in model.modules()]
    assert halonet.restore(halonet.accelerate(model)) is model
    assert [type(module) for module in model.modules()] == classes
    assert torch.equal(model(image), expected)
    assert halonet.accelerated_layers(model) == []
    assert halonet.restore(model) is model


def test_a_layer_by_itself_is_replaced() -> None:
    layer = small_layer()
    assert halonet.accelerate(layer) is layer
    assert halonet.accelerated_layers(layer) == [""]
    assert isinstance(layer, HaloAttn)
    assert type(halonet.restore(layer)) is HaloAttn


def test_copies_and_pickles_are_accelerated_too() -> None:
    model, image, file = halonet.accelerate(nested()), pixels(5, 7), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert halonet.accelerated_layers(twin) == ["1.0", "2"]
        assert torch.equal(twin(image), model(image))


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format], ids=str)
def test_projections_reach_the_operator_without_a_copy(
    memory: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, made, taken = small_layer(), [], []
    for projection in (layer.q, layer.kv):
        projection.register_forward_hook(lambda _module, _inputs, output: made.append(output))

    def spy(*tensors: Tensor, **options: Any) -> Tensor:
        taken.extend(tensors)
        return halonet.halo_attention(*tensors, **options)

    monkeypatch.setattr(acceleration, "halo_attention", spy)
    image = torch.randn(2, 16, 8, 12).contiguous(memory_format=memory)
    output = halonet.accelerate(layer.float())(image)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert [each.untyped_storage().data_ptr() for each in taken[:3]] == [
        made[each].untyped_storage().data_ptr() for each in (0, 1, 1)
    ]
    assert all(each.stride(-1) == 1 for each in taken[:3])


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"stride": 2, "avg_down": True}], ids=str)
def test_layers_compile_without_a_graph_break(options: dict[str, Any]) -> None:
    layer = halonet.accelerate(small_layer(**options))
    image = torch.randn(2, 16, 7, 10, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(image), layer(image))


@pytest.mark.usefixtures("untyped")
def test_models_compile_without_a_graph_break() -> None:
    model = halonet.accelerate(timm.create_model("halonet26t", num_classes=5)).eval()
    image = torch.randn(1, 3, 72, 96)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(image), model(image))


def test_timms_feature_extraction_by_fx_takes_layers_whole() -> None:
    model = halonet.accelerate(timm.create_model("halonet26t", num_classes=0)).eval()
    extractor = create_feature_extractor(model, {"stages.2": "map"})
    with torch.no_grad():
        assert extractor(torch.randn(1, 3, 80, 112))["map"].shape == (1, 1024, 5, 7)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="halonet")
    return caplog


def test_one_line_says_what_was_replaced(log: pytest.LogCaptureFixture) -> None:
    halonet.accelerate(nested())
    assert log.record_tuples == [
        ("halonet", logging.INFO, "Sequential: accelerated 2 of 2 HaloAttn layers: 1.0, 2"),
    ]


def test_accelerating_twice_reports_nothing_new(log: pytest.LogCaptureFixture) -> None:
    model = halonet.accelerate(nested())
    log.clear()
    halonet.accelerate(model)
    assert log.messages == ["Sequential: nothing new to accelerate, 2 of 2 HaloAttn layers are"]


def test_a_layer_by_itself_is_named_so(log: pytest.LogCaptureFixture) -> None:
    halonet.accelerate(small_layer())
    assert log.messages == ["HaloAttn: accelerated 1 of 1 HaloAttn layers: the module itself"]


def test_a_model_with_nothing_to_replace_warns(log: pytest.LogCaptureFixture) -> None:
    halonet.accelerate(nn.Linear(2, 2))
    assert log.record_tuples == [
        ("halonet", logging.WARNING, "Linear: nothing to accelerate, it has no HaloAttn layer of timm"),
    ]


@pytest.mark.parametrize("name", WITH_BOTNET_LAYERS)
def test_the_line_names_layers_that_keep_the_model_at_one_size(name: str, log: pytest.LogCaptureFixture) -> None:
    model = halonet.accelerate(timm.create_model(name)).eval()
    assert log.messages[0].endswith("; still of fixed size: stages.3.1.self_attn (BottleneckAttn, 8 x 8)")
    with pytest.raises(AssertionError), torch.no_grad():
        model(torch.randn(1, 3, 224, 320))


def test_the_line_names_a_lambda_layer_only_if_its_size_is_fixed(log: pytest.LogCaptureFixture) -> None:
    fixed: dict[str, Any] = {"r": None, "feat_size": (4, 6)}
    halonet.accelerate(nn.Sequential(LambdaLayer(16, r=3), LambdaLayer(16, **fixed), small_layer()))
    (message,) = log.messages
    assert message.endswith("; still of fixed size: 1 (LambdaLayer, 4 x 6)")


class OwnHaloAttn(HaloAttn):
    """A user's layer, which computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_subclass_is_left_alone_and_named(log: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(OwnHaloAttn(16, num_heads=2), small_layer())
    halonet.accelerate(model)
    assert type(model[0]) is OwnHaloAttn
    (message,) = log.messages
    assert message.endswith("accelerated 1 of 1 HaloAttn layers: 1; left alone, as subclasses: 0 (OwnHaloAttn)")


def test_a_layer_that_was_wrapped_after_is_not_torn_out() -> None:
    model = halonet.accelerate(nested())
    layer = model.get_submodule("2")
    layer.__class__ = type("Sharded", (type(layer),), {})
    assert halonet.accelerated_layers(model) == ["1.0", "2"]
    with pytest.raises(ValueError, match="layer '2' is a Sharded.*restore the model before it is wrapped"):
        halonet.restore(model)
    assert halonet.accelerated_layers(model) == ["1.0", "2"]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("function", [halonet.accelerate, halonet.restore, halonet.accelerated_layers])
def test_only_modules_are_accepted(function: Any) -> None:
    with pytest.raises(TypeError, match="model is of type str, but must be a torch.nn.Module, such as timm"):
        function("halonet26t")
