import dataclasses

import pytest
import torch

from halonet import HALONETS, HaloNetConfig, create_model

# Paper, Tables A2, 3 and section 4.5: millions of parameters, as printed.
PRINTED = {
    "h0": "5.5", "h1": "8.1", "h2": "9.4", "h4": "19.1", "h5": "30.7", "h6": "43.4", "h7": "67",
    "halonet50": "18.0", "h4_21k": "85", "h4_21k_patch": "85", "h4_21k_conv12": "87",
    "h3": "11.8",  # the paper prints 12.3; its own columns give this
    "h7_c1": "67", "h7_c12": "67",
}  # fmt: skip


def millions(name, **overrides):
    with torch.device("meta"):
        model = create_model(name, **overrides)
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


@pytest.mark.parametrize(("name", "printed"), PRINTED.items())
def test_parameters_equal_the_papers_to_the_printed_digit(name, printed):
    digits = len(printed.partition(".")[2])
    assert f"{millions(name):.{digits}f}" == printed


def test_h7_has_67_4_million_parameters():
    assert f"{millions('h7'):.1f}" == "67.4"


def test_the_resnet_twin_is_torchvisions_resnet_50():
    from torchvision.models import resnet50

    with torch.device("meta"):
        theirs = sum(parameter.numel() for parameter in resnet50().parameters())
    assert round(millions("resnet50_twin") * 1e6) == theirs


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [({"depths": (3, 4, 22, 3)}, 29.6), ({"value_ratio": 3.0}, 30.6), ({"width_ratio": 1.25}, 27.5),
     ({"bottleneck_ratio": 6.5}, 29.7), ({"query_key_ratio": 6.5}, 31.9)],
)  # fmt: skip
def test_the_scaling_study_has_the_computed_sizes(overrides, expected):
    assert millions("halonet50", **overrides) == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize(
    ("name", "layers"),
    [("h0", 50), ("h1", 59), ("h2", 62), ("h3", 65), ("h4", 65), ("h5", 98), ("h6", 101), ("h7", 107),
     ("halonet50", 50), ("r101se", 101)],
)  # fmt: skip
def test_layers_are_counted_as_the_paper_counts_them(name, layers):
    assert HALONETS[name].layers == layers


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": "conv5x5"}, "stem is 'conv5x5'.*conv7x7"),
        ({"activation": "gelu"}, "activation is 'gelu'.*silu"),
        ({"downsampling": "stride"}, "downsampling is 'stride'.*attention"),
        ({"border": "reflect"}, "border is 'reflect'.*mask"),
        ({"block_size": 0}, "block_size is 0.*at least 1"),
        ({"halo_size": -1}, "halo_size is -1.*at least 0"),
        ({"depths": ()}, r"depths is \(\)"),
        ({"num_heads": (4, 8)}, "num_heads is .*as many stages"),
        ({"convolution_stages": (0,)}, r"convolution_stages is \(0,\); stages count from 1 to 4"),
        ({"num_heads": (5, 8, 8, 8)}, "query_key_ratio 1.0 gives stage 1 64 channels for 5 heads"),
        ({"value_ratio": 0.3}, "value_ratio 0.3 gives stage 1 19 channels"),
    ],
)
def test_a_row_that_cannot_be_built_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        HaloNetConfig(**changes)


def test_lists_from_yaml_serve_as_tuples_and_rows_are_hashable():
    config = create_model("tiny28", depths=[1, 1], num_heads=[1, 1]).config
    assert config == dataclasses.replace(HALONETS["tiny28"], depths=(1, 1), num_heads=(1, 1))
    assert hash(dataclasses.replace(config, block_size=4)) != hash(config)
