"""Trained weights by name, and the round trip through timm's folders."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from timm.models import save_for_hf

import halonet
from halonet.errors import UserError
from halonet.models.pretrained import FOLDER, TRAINED, tags_of, weights_path

NAMES = sorted(TRAINED)
each_name = pytest.mark.parametrize("name", NAMES)


def read(name: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The network of a file, and what the file says of it, read with safetensors alone."""
    with safe_open(str(FOLDER / f"{name}.safetensors"), framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
        information = json.loads(file.metadata()["halonet"])
    model = halonet.create_model(name.partition(".")[0], information["num_classes"], information["in_chans"])
    model.load_state_dict(state)
    return model.eval(), information


def images(model: torch.nn.Module) -> torch.Tensor:
    return torch.randn(2, model.in_chans, 37, 32, generator=torch.Generator().manual_seed(0))


def test_every_file_of_weights_is_in_the_table():
    assert sorted(path.stem for path in FOLDER.glob("*.safetensors")) == NAMES


@each_name
def test_the_table_says_what_the_file_says(name):
    _, information = read(name)
    trained, prepared = TRAINED[name], information["preprocessing"]
    assert list(trained.labels) == information["class_names"]
    assert (list(trained.mean), list(trained.std)) == (prepared["mean"], prepared["std"])
    assert (trained.image_size, 1.0, "bicubic") == tuple(
        prepared[key] for key in ("image_size", "crop_pct", "interpolation")
    )
    assert f"recipe {information['run']['recipe']}" in trained.description


@each_name
@pytest.mark.parametrize("prefix", ["", "halonet_paper_"])
def test_weights_are_found_by_row_and_tag_or_tag_alone(name, prefix):
    assert weights_path(prefix + name) == weights_path(name.partition(".")[2]) == FOLDER / f"{name}.safetensors"


def test_a_tag_that_two_rows_have_is_not_found_alone(monkeypatch):
    monkeypatch.setitem(TRAINED, "mini32.fashion_mnist", TRAINED["tiny28.fashion_mnist"])
    assert weights_path("fashion_mnist") is None
    assert weights_path("mini32.fashion_mnist") == FOLDER / "mini32.fashion_mnist.safetensors"


@each_name
def test_timm_lists_the_weights_and_loads_them_by_name(name):
    expected, information = read(name)
    assert f"halonet_paper_{name}" in timm.list_models("halonet_paper_*", pretrained=True)
    row = name.partition(".")[0]
    for model in (
        halonet.create_model(name, pretrained=True),
        halonet.create_model(row, pretrained=True),
        timm.create_model(f"halonet_paper_{name}", pretrained=True),
        timm.create_model(f"halonet_paper_{row}", pretrained=True),
    ):
        assert torch.equal(model.eval()(images(model)), expected(images(expected)))
        assert model.pretrained_cfg["label_names"] == tuple(information["class_names"])


def test_a_network_without_weights_has_a_thousand_classes_and_three_channels():
    for model in (halonet.create_model("mini32"), timm.create_model("halonet_paper_mini32")):
        assert (model.num_classes, model.in_chans) == (1000, 3)
        assert "file" not in model.pretrained_cfg


def test_other_classes_and_channels_adapt_head_and_stem():
    own = halonet.create_model("mini32.cifar10", pretrained=True)
    gray = halonet.create_model("mini32.cifar10", num_classes=7, in_chans=1, pretrained=True)
    assert gray.classifier.weight.shape == (7, 256)
    # timm adapts the weights in the half precision of the file.
    assert torch.allclose(gray.stem.conv.weight, own.stem.conv.weight.sum(1, keepdim=True), atol=2e-3)
    assert torch.equal(gray.stages.state_dict()["0.0.reduce.weight"], own.stages.state_dict()["0.0.reduce.weight"])
    assert halonet.create_model("mini32.cifar10", num_classes=0, pretrained=True).eval()(images(own)).shape == (2, 256)


def test_feature_extractors_take_the_weights():
    features = halonet.create_model("mini32.cifar10", pretrained=True, features_only=True).eval()
    own = halonet.create_model("mini32.cifar10", pretrained=True).eval()
    expected = own.forward_intermediates(images(own), intermediates_only=True)
    assert [torch.equal(*pair) for pair in zip(features(images(own)), expected, strict=True)] == [True] * 4


CHANGES = [
    {"centered": True, "num_classes": 7, "block_size": 6, "halo_size": 1, "depths": (1, 1, 2)},
    {"global_pool": "", "in_chans": 5, "num_classes": 0},
    {"border": "zeros", "drop_rate": 0.5, "drop_path_rate": 0.1},
]


@pytest.mark.parametrize("changes", CHANGES, ids=[next(iter(changes)) for changes in CHANGES])
@pytest.mark.parametrize("create", ["halonet", "timm"])
def test_a_network_with_overrides_comes_back_from_timms_folder(changes, create, tmp_path):
    torch.manual_seed(0)
    if create == "timm":
        model = timm.create_model("halonet_paper_mini32", **changes)
    else:
        model = halonet.create_model("mini32", **changes)
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert again.config == model.config
    assert torch.equal(again.eval()(images(model)), model.eval()(images(model)))


def test_a_pruned_network_in_a_folder_is_refused_on_one_line(tmp_path):
    """Timm's own networks fail likewise: the folder does not say which layers are gone."""
    model = halonet.create_model("mini32")
    model.prune_intermediate_layers([1])
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    with pytest.raises(UserError) as caught:
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    message = str(caught.value)
    assert message.startswith(
        f"the weights in {tmp_path} do not fit 'mini32': Missing key(s) in state_dict: \"stages.1"
    )
    assert message.endswith("that prune_intermediate_layers made smaller cannot be built again from its files")
    assert "\n" not in message
    assert len(message) < 400


def test_every_row_comes_back_from_timms_folder_as_itself(tmp_path):
    for row in halonet.HALONETS:
        with torch.device("meta"):
            model = halonet.create_model(row, num_classes=3, halo_size=1)
        folder = tmp_path / row
        folder.mkdir()
        timm.models._hub.save_config_for_hf(model, str(folder / "config.json"))
        saved = json.loads((folder / "config.json").read_text())
        assert str(Path(halonet.__file__).parent) not in json.dumps(saved)
        with torch.device("meta"):
            again = timm.create_model(f"local-dir:{folder}")
        assert (again.config, again.num_classes) == (model.config, 3)


def test_what_has_no_weights_says_which_have(untyped):
    for create in (
        lambda: halonet.create_model("h0", pretrained=True),
        lambda: timm.create_model("halonet_paper_h0", pretrained=True),
        lambda: timm.create_model("halonet_paper_h0.imagenet"),
    ):
        with pytest.raises(UserError, match="no trained weights of 'h0' exist, only .*mini32.cifar10.*halonet50ts"):
            create()
    with pytest.raises(UserError, match="unknown weights of 'mini32' 'cifar'. Did you mean 'cifar10'"):
        halonet.create_model("mini32.cifar", pretrained=True)
    assert tags_of("mini32") == ["cifar10"]
    assert tags_of("mini3") == []


def test_weights_of_the_user_are_loaded_as_timm_does(tmp_path):
    torch.manual_seed(0)
    own = halonet.create_model("micro32", num_classes=4).eval()
    torch.save(own.state_dict(), tmp_path / "own.pth")
    again = timm.create_model(
        "halonet_paper_micro32",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "own.pth"), "num_classes": 4},
    )
    assert torch.equal(again.eval()(images(own)), own(images(own)))


def test_overrides_that_the_weights_do_not_fit_are_named():
    with pytest.raises(UserError, match="the trained weights of 'mini32' do not fit block_size"):
        halonet.create_model("mini32", pretrained=True, block_size=5)
