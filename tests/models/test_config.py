import dataclasses

import pytest
import torch

from halonet import HALONETS, HaloNetConfig, create_model
from halonet.errors import UserError

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
        ({"stem": "conv5x5"}, "stem is 'conv5x5', but must be conv7x7, patch4x4, "),
        ({"activation": "gelu"}, "activation is 'gelu'.*silu"),
        ({"downsampling": "stride"}, "downsampling is 'stride', but must be attention or pool"),
        ({"border": "reflect"}, "border is 'reflect'.*mask"),
        ({"block_size": 0}, "block_size is 0, but must be from 1 to 1,024"),
        ({"block_size": True}, "block_size is True, but must be a whole number"),
        ({"halo_size": "3"}, "halo_size is '3', but must be a whole number"),
        ({"halo_size": -1}, "halo_size is -1, but must be from 0 to 1,024"),
        ({"bottleneck_ratio": 0}, "bottleneck_ratio is 0, but must be from 0.01 to 100"),
        ({"width_ratio": float("nan")}, "width_ratio is nan, but must be a finite number"),
        ({"value_ratio": 10**400}, "value_ratio is 10+.*, but must be a finite number"),
        ({"depths": ()}, r"depths is \(\), but must be 1 to 8 stages"),
        ({"depths": 1.5}, "depths is 1.5, but must be a list"),
        ({"depths": (1, 1.5)}, "depths.1 is 1.5, but must be a whole number"),
        ({"depths": (10**7,)}, "depths.0 is 10000000, but must be from 1 to 512"),
        ({"depths": (300, 300), "num_heads": (1, 1)}, r"depths is \(300, 300\), but must be at most 512 blocks in all"),
        ({"num_heads": (4, 8)}, r"num_heads is \(4, 8\), but must be as many numbers as depths .* has stages, .* 4"),
        ({"image_size": 10**7}, "image_size is 10000000, but must be from 1 to 16,384"),
        ({"final_width": 0}, "final_width is 0, but must be from 1 to 65,536"),
        ({"final_width": "wide"}, "final_width is 'wide', but must be a whole number, or null"),
        ({"centered": 1}, "centered is 1, but must be true or false"),
        ({"convolution_stages": (0,)}, "convolution_stages.0 is 0, but must be from 1 to 8"),
        ({"convolution_stages": (5,)}, r"convolution_stages is \(5,\), but must be stages, which count from 1 to 4"),
        (
            {"num_heads": (5, 8, 8, 8), "value_ratio": 1.25},
            "query_key_ratio is 1.0, which gives stage 1 64 channels, .* 5 heads",
        ),
        ({"value_ratio": 0.3}, "value_ratio is 0.3, which gives stage 1 19 channels"),
        ({"width_ratio": 100}, "bottleneck_ratio is 4.0, which gives stage 3 102,400 channels, .* from 1 to 65,536"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_a_row_that_cannot_be_built_is_refused(changes, message):
    with pytest.raises(UserError, match=f"HaloNetConfig: .*{message}") as caught:
        HaloNetConfig(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("untyped")
def test_all_that_is_wrong_with_a_row_is_said_at_once():
    with pytest.raises(UserError) as caught:
        HaloNetConfig(block_size=0, stem="conv5x5", depths=(0, 1.5, 1))
    assert str(caught.value).splitlines() == [
        "HaloNetConfig: 4 mistakes",
        "  block_size is 0, but must be from 1 to 1,024",
        "  depths.0 is 0, but must be from 1 to 512",
        "  depths.1 is 1.5, but must be a whole number",
        "  stem is 'conv5x5', but must be conv7x7, patch4x4, conv3x3, conv3x3_stride2 or patch2x2",
    ]


def test_lists_from_yaml_serve_as_tuples_and_rows_are_hashable():
    config = create_model("tiny28", depths=[1, 1], num_heads=[1, 1]).config
    assert config == dataclasses.replace(HALONETS["tiny28"], depths=(1, 1), num_heads=(1, 1))
    assert hash(dataclasses.replace(config, block_size=4)) != hash(config)
