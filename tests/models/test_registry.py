import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.optim import create_optimizer_v2, param_groups_layer_decay

from halonet import HALONETS, HaloNet, create_model
from halonet.errors import UserError


def test_every_row_is_registered_with_timm():
    assert set(timm.list_models("halonet_paper_*")) == {f"halonet_paper_{name}" for name in HALONETS}


def test_timm_builds_the_same_model():
    torch.manual_seed(0)
    ours = create_model("tiny28", num_classes=4, in_chans=1)
    torch.manual_seed(0)
    theirs = timm.create_model("halonet_paper_tiny28", num_classes=4, in_chans=1)
    x = torch.randn(1, 1, 28, 28)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_timm_resolves_how_images_are_prepared():
    with torch.device("meta"):
        config = resolve_model_data_config(timm.create_model("halonet_paper_h3"))
    assert config["input_size"] == (3, 320, 320)
    assert config["interpolation"] == "bicubic"
    assert config["mean"] == (0.485, 0.456, 0.406)


def test_timms_feature_extractor_accepts_the_model():
    model = timm.create_model("halonet_paper_small32", features_only=True, out_indices=(1, 3)).eval()
    assert model.feature_info.channels() == [128, 512]
    assert model.feature_info.reduction() == [1, 4]
    assert [feature.shape[1:] for feature in model(torch.randn(1, 3, 20, 36))] == [(128, 20, 36), (512, 5, 9)]


def test_the_default_features_are_the_stem_and_every_stage():
    with torch.device("meta"):
        model = create_model("h0", features_only=True)
    assert model.feature_info.reduction() == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("levels", [None, (0, 2), (1,)])
def test_features_by_hooks_are_the_maps_that_were_asked_for(levels, checkpointing):
    chosen = {} if levels is None else {"out_indices": levels}
    torch.manual_seed(0)
    hooked = create_model("small32", features_only=True, feature_cls="hook", **chosen)
    torch.manual_seed(0)
    model = create_model("small32")
    hooked.body.set_grad_checkpointing(checkpointing)
    x = torch.randn(2, 3, 16, 16)
    found = hooked(x)
    expected = model.forward_intermediates(x, indices=levels, intermediates_only=True)
    assert [each.shape[1] for each in found] == hooked.feature_info.channels()
    assert len(found) == 4 if levels is None else len(levels)
    torch.testing.assert_close(found, expected)


def test_h0_hands_out_five_maps_by_hooks():
    model = create_model("h0", features_only=True, feature_cls="hook").eval()
    with torch.no_grad():
        assert [each.shape[1] for each in model(torch.randn(1, 3, 32, 32))] == [64, 32, 64, 128, 256]


def test_the_classifier_can_be_replaced_and_removed():
    model = create_model("tiny28", num_classes=4)
    assert model.get_classifier(name_only=True) == "classifier"
    model.reset_classifier(9)
    assert model(torch.randn(1, 3, 28, 28)).shape == (1, 9)
    model.reset_classifier(0)
    assert model(torch.randn(1, 3, 28, 28)).shape == (1, model.head_hidden_size)
    model.reset_classifier(0, "")
    assert model(torch.randn(1, 3, 28, 28)).dim() == 4


def pruned():
    model = create_model("tiny28", num_classes=4)
    model.prune_intermediate_layers([1])
    return model


def classify(model):
    model.reset_classifier(4)  # which timm's tests allow, before the pooling is chosen
    return model(torch.randn(1, 3, 28, 28))


@pytest.mark.parametrize(
    "make",
    [
        lambda: create_model("tiny28", num_classes=4, global_pool=""),
        lambda: timm.create_model("halonet_paper_tiny28", num_classes=4, global_pool=""),
        lambda: HaloNet(HALONETS["tiny28"], num_classes=4, global_pool=""),
        lambda: create_model("tiny28").reset_classifier(4, ""),
        lambda: classify(create_model("tiny28", num_classes=0, global_pool="")),
        lambda: classify(pruned()),
    ],
)
def test_classes_without_pooling_are_refused(make):
    with pytest.raises(
        UserError, match="global_pool is '', but 4 classes need 'avg': take global_pool='avg', or num_c"
    ):
        make()


def test_a_refused_classifier_changes_nothing():
    model = create_model("tiny28", num_classes=3)
    with pytest.raises(UserError):
        model.reset_classifier(4, "")
    assert (model.num_classes, model.global_pool.pool_type) == (3, "avg")
    assert model(torch.randn(1, 3, 28, 28)).shape == (1, 3)
    smaller = pruned()
    smaller.reset_classifier(4, "avg")
    assert smaller(torch.randn(1, 3, 28, 28)).shape == (1, 4)


@pytest.mark.parametrize("feature_cls", ["getter", "hook"])
def test_features_need_no_pooling(feature_cls, untyped):
    model = create_model("tiny28", features_only=True, feature_cls=feature_cls, global_pool="", out_indices=[2])
    assert model(torch.randn(1, 3, 28, 28))[0].dim() == 4


def test_pruning_keeps_the_features_that_were_asked_for():
    model = create_model("small32").eval()
    x = torch.randn(1, 3, 32, 32)
    expected = model.forward_intermediates(x, indices=[1], intermediates_only=True)
    assert model.prune_intermediate_layers([1]) == [1]
    assert len(model.stages) == 1
    torch.testing.assert_close(model.forward_intermediates(x, indices=[1], intermediates_only=True), expected)
    torch.testing.assert_close(model(x), expected[0])


def test_stopping_early_gives_the_same_features():
    model = create_model("small32").eval()
    x = torch.randn(1, 3, 32, 32)
    full = model.forward_intermediates(x, indices=[0, 2], intermediates_only=True)
    early = model.forward_intermediates(x, indices=[0, 2], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early, full)
    assert len(model.forward_intermediates(x, indices=2, intermediates_only=True)) == 2


def test_timms_optimizers_leave_tables_norms_and_biases_undecayed():
    model = create_model("tiny28")
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1, weight_decay=0.05)
    undecayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in undecayed}
    assert model.no_weight_decay() <= names
    assert not any(name.endswith(("qkv.weight", "query.weight", "key_value.weight")) for name in names)


def test_timms_layer_decay_orders_the_blocks():
    model = create_model("tiny28")
    groups = param_groups_layer_decay(model, layer_decay=0.5, no_weight_decay_list=model.no_weight_decay())
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    by_name = {name: scales[id(parameter)] for name, parameter in model.named_parameters()}
    assert by_name["stem.conv.weight"] < by_name["stages.0.0.reduce.weight"] < by_name["stages.1.0.reduce.weight"]
    assert by_name["classifier.weight"] == 1.0


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(UserError, match="unknown model 'halonet5'.*Did you mean 'halonet50'"):
        create_model("halonet5")


def test_an_unknown_argument_names_the_nearest():
    with pytest.raises(UserError, match="unknown model argument 'block'.*Did you mean 'block_size'"):
        create_model("h0", block=4)


def test_a_bad_override_is_a_user_error():
    with pytest.raises(UserError, match="model 'h0': block_size is 0, but must be from 1 to 1,024"):
        create_model("h0", block_size=0)


def test_arguments_of_the_wrong_type_or_range_are_told_all_at_once(untyped):
    with pytest.raises(UserError) as caught:
        create_model("h0", num_classes=-1, in_chans=0, drop_rate=2)
    assert str(caught.value).splitlines() == [
        "3 mistakes",
        "  num_classes is -1, but must be from 0 to 1,000,000",
        "  in_chans is 0, but must be from 1 to 1,024",
        "  drop_rate is 2, but must be at least 0 and below 1",
    ]
    with pytest.raises(UserError, match="model 'h0': halo_size is '3', but must be a whole number"):
        timm.create_model("halonet_paper_h0", halo_size="3")
