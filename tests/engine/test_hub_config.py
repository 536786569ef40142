"""The config.json of a Hub folder comes from anybody."""

import json

import pytest
import torch
from timm.models import save_for_hf

import halonet
from halonet.engine.hub_config import read_hub_config
from halonet.engine.weights import read_weights
from halonet.errors import UserError


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "config.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


OURS = {"architecture": "halonet_paper_mini32", "num_classes": 10}
COLOR = {"input_size": [3, 32, 32]}
GRAY = {"input_size": [1, 28, 28], "mean": [0.3], "std": [0.4]}


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        ("[1]", r"holds \[1\], but must hold keys and values"),
        ("{", "is not a JSON file"),
        ("[" * 100_000, "is not a JSON file"),
        ({"architectures": ["ResNet"]}, "is not a config.json of timm: it has no architecture"),
        ({"architecture": "resnet50"}, "unknown architecture 'resnet50'"),
        ({"architecture": "mini32"}, "unknown architecture 'mini32'. Known: halonet_paper_h0"),
        (OURS | {"model_args": []}, r"is not a config.json of timm: its model_args is \[\]"),
        (OURS | {"model_args": {"block_size": -1}}, "model_args.block_size is -1, but must be from 1"),
        (OURS | {"model_args": {"global_pool": ""}}, "global_pool is '', but must be 'avg'"),
        (OURS | {"model_args": {"halo_sise": 2}}, "unknown model argument 'halo_sise'. Did you mean 'halo_size'"),
        (OURS | {"pretrained_cfg": 3}, "its pretrained_cfg is 3"),
        ({"architecture": "halonet_paper_mini32"}, "num_classes is None, but must be"),
        (OURS | {"num_classes": 10**12}, "num_classes is 1000000000000, but must be from 0 to 1,000,000"),
        (OURS | {"model_args": {"in_chans": "3"}}, "in_chans is '3', but must be"),
        (OURS | {"label_names": ["cat", "dog"]}, "names 2 classes, but its num_classes is 10: correct its label_names"),
        (OURS | {"label_names": [*"abcdefghi", 3]}, "label_names.9 is 3, but must be"),
        (OURS | {"label_names": {"0": "cat", "5": "dog"}}, "label_names is {.*}, but must be a list"),
        (OURS | {"pretrained_cfg": COLOR | {"std": [0.2, 0.2, float("nan")]}}, "pretrained_cfg.std.2 is nan"),
        (OURS | {"pretrained_cfg": COLOR | {"mean": [0.5]}}, r"pretrained_cfg.mean is .0.5,., but must be 3 number"),
        (OURS | {"pretrained_cfg": {"input_size": [3, 10**9, 10**9]}}, "pretrained_cfg.image_size is 1000000000"),
    ],
)
def test_a_wrong_config_is_refused_on_one_line(write, content, refusal):
    path = write(content)
    with pytest.raises(UserError, match=refusal) as caught:
        read_hub_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_huge_config_is_not_read(write):
    with pytest.raises(UserError, match="has 17,000,002 bytes, but must have at most 16,777,216"):
        read_hub_config(write(json.dumps("x" * 17_000_000)))


@pytest.mark.parametrize(
    ("prepared", "expected"),
    [
        ({"input_size": [3, 32, 32], "crop_pct": 0.9}, {"image_size": 32, "in_chans": 3, "crop_pct": 0.9}),
        (GRAY, {"image_size": 28, "in_chans": 1, "mean": [0.3], "std": [0.4]}),
        ({"input_size": [3, 32, 48]}, None),
        ({"input_size": [5, 32, 32]}, None),
        ({"input_size": "large"}, None),
        ({"input_size": [3, 32, 32], "crop_mode": "squash"}, None),
        ({}, None),
    ],
)
def test_preprocessing_is_taken_if_our_transforms_do_the_same(write, prepared, expected):
    found = read_hub_config(write(OURS | {"pretrained_cfg": prepared}))["preprocessing"]
    assert found == (None if expected is None else expected | {"train_crop": "none"})


@pytest.mark.parametrize("key", ["label_names", "id2label"])
def test_names_by_number_are_listed_in_order(write, key):
    names = {str(number): f"class {number}" for number in reversed(range(10))}
    assert read_hub_config(write(OURS | {key: names}))["class_names"] == [f"class {number}" for number in range(10)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"pretrained_cfg": {"label_names": ["old"]}}, ["old"]),
        ({"pretrained_cfg": {"label_names": ["old"]}, "id2label": {"0": "new"}}, ["new"]),
        ({"pretrained_cfg": {"label_names": ["old"]}, "label_names": ["new"]}, ["new"]),
    ],
)
def test_names_at_the_root_overrule_those_of_the_weights_before(write, values, expected):
    assert read_hub_config(write(OURS | {"num_classes": 1} | values))["class_names"] == expected


def test_channels_are_those_of_the_images_unless_stated_as_in_timm(write):
    gray = OURS | {"pretrained_cfg": GRAY}
    assert read_hub_config(write(gray))["in_chans"] == 1
    assert read_hub_config(write(gray | {"model_args": {"in_chans": 4}}))["in_chans"] == 4


def test_a_file_with_empty_sections_and_a_byte_order_mark_is_read(write):
    path = write("\ufeff" + json.dumps(OURS | {"model_args": None, "pretrained_cfg": None}))
    assert read_hub_config(path)["config"] == read_hub_config(write(OURS))["config"]


def test_pickled_weights_are_refused_with_the_remedy(tmp_path):
    save_for_hf(halonet.create_model("micro32"), str(tmp_path))
    with pytest.raises(UserError, match="holds pytorch_model.bin, .* with safe_serialization=True"):
        read_weights(tmp_path)


def test_a_folder_that_timm_wrote_is_a_checkpoint(tmp_path):
    torch.manual_seed(0)
    model = halonet.create_model("mini32.cifar10", pretrained=True, centered=True).eval()
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    information = read_weights(tmp_path).information
    assert information["config"]["centered"]
    loaded = halonet.load(tmp_path)
    images = torch.randn(2, 3, 32, 40)
    assert torch.equal(loaded.model(images), model(images))
    assert loaded.labels[:2] == ["airplane", "automobile"]
