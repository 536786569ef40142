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


OURS = {"architecture": "halonet_paper_mini32"}


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        ("[1]", r"holds \[1\], but must hold the configuration"),
        ("{", "is not a JSON file"),
        ("[" * 100_000, "is not a JSON file"),
        ({"architectures": ["ResNet"]}, "is not a config.json of timm: it has no architecture"),
        ({"architecture": "resnet50"}, "unknown architecture 'resnet50'"),
        ({"architecture": "mini32"}, "unknown architecture 'mini32'. Known: halonet_paper_h0"),
        (OURS | {"model_args": []}, "is not a config.json of timm"),
        (OURS | {"model_args": {"block_size": -1}}, "block_size is -1, but must be from 1"),
        (OURS | {"model_args": {"global_pool": ""}}, "global_pool is '', but must be 'avg'"),
        (OURS | {"pretrained_cfg": 3}, "its pretrained_cfg is 3"),
    ],
)
def test_a_wrong_config_is_refused_on_one_line(write, content, refusal):
    with pytest.raises(UserError, match=refusal) as caught:
        read_hub_config(write(content))
    assert "\n" not in str(caught.value)


def test_a_huge_config_is_not_read(write):
    with pytest.raises(UserError, match="has 5,000,002 bytes, but must have at most 4,194,304"):
        read_hub_config(write(json.dumps("x" * 5_000_000)))


@pytest.mark.parametrize(
    ("prepared", "expected"),
    [
        ({"input_size": [3, 32, 32], "crop_pct": 0.9}, {"image_size": 32, "in_chans": 3, "crop_pct": 0.9}),
        ({"input_size": [1, 28, 28]}, {"image_size": 28, "in_chans": 1}),
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
