"""Classifiers and feature extractors in files: they give what PyTorch gives, at sizes that the export never saw."""

import json
import re
import resource
import zipfile
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from timm.layers.halo_attn import HaloAttn
from torch import Tensor, nn
from torch.testing import assert_close

import halonet
from halonet.benchmark.networks import randomize_norms
from halonet.errors import ExportError, UserError
from halonet.export import Bounds, export_network
from halonet.export.formats import FORMATS, Run
from halonet.export.network import verify_file
from halonet.export.program import trace
from halonet.installation import command_for_extra

SMALL = {"num_classes": 5, "depths": (1, 3), "num_heads": (2, 4)}
# Whole and partial blocks, a single pixel, more than was traced along either side.
SIZES = [(1, 1, 1), (2, 2, 2), (3, 1, 9), (1, 28, 28), (2, 47, 30), (1, 13, 70)]
NAMES = ["bag", "boot", "coat", "dress", "shirt"]
PREPARED = {
    "input_size": [3, 28, 28],
    "mean": [0.1, 0.2, 0.3],
    "std": [0.5, 0.6, 0.7],
    "crop_pct": 1.0,
    "interpolation": "bilinear",
}


def make_network(**overrides: Any) -> nn.Module:
    torch.manual_seed(0)
    return randomize_norms(halonet.create_model("tiny28", **SMALL | overrides)).eval()


def run(path: Path, image: Tensor) -> list[Tensor]:
    return FORMATS["onnx" if path.suffix == ".onnx" else "pt2"].open(path)(image)


@pytest.fixture(scope="module", params=["onnx", "pt2"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    network = make_network().train()
    path = tmp_path_factory.mktemp("exported") / f"tiny.{request.param}"
    found = export_network(network, path, normalize=True, softmax=True, class_names=NAMES, preprocessing=PREPARED)
    assert network.training
    assert (found.path, found.format, found.bytes) == (path, request.param, path.stat().st_size)
    assert len(found.verified) == 3
    assert found.error < 1e-5
    return network.eval(), path


@pytest.fixture(scope="module")
def opened(exported: tuple[nn.Module, Path]) -> Run:
    path = exported[1]
    return FORMATS[path.suffix[1:]].open(path)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_file_gives_what_the_network_gives(exported, opened, size):
    network, _ = exported
    image = torch.rand(size[0], 3, *size[1:])
    mean, std = (torch.tensor(PREPARED[name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        expected = network((image - mean) / std).softmax(-1)
    (found,) = opened(image)
    assert_close(found, expected, atol=1e-5, rtol=0)
    assert not (expected == expected[0, 0]).all()


def test_layers_on_one_map_share_its_windows(exported):
    _, path = exported
    if path.suffix == ".onnx":
        kinds = [node.op_type for node in onnx.load(path).graph.node]
        *_, before_last, last = (index for index, kind in enumerate(kinds) if kind == "Softmax")
        assert last - before_last < 50
        assert "Range" not in kinds[before_last:last]


def test_nothing_else_is_written(exported):
    assert list(exported[1].parent.iterdir()) == [exported[1]]


def test_the_file_says_what_it_expects_and_gives(exported):
    _, path = exported
    if path.suffix == ".onnx":
        model = onnx.load(path)
        texts = {each.key: each.value for each in model.metadata_props}
        shapes = [
            [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim]
            for each in (*model.graph.input, *model.graph.output)
        ]
        assert shapes == [["batch", 3, "height", "width"], ["batch", 5]]
        assert [each.name for each in (*model.graph.input, *model.graph.output)] == ["image", "probabilities"]
        assert {each.domain for each in model.opset_import} == {""}
    else:
        with zipfile.ZipFile(path) as archive:
            extra = {name.rpartition("/")[2]: name for name in archive.namelist() if "/extra/" in name}
            texts = {name: archive.read(place).decode() for name, place in extra.items()}
    assert json.loads(texts["class_names"]) == NAMES
    assert texts["halonet_version"] == halonet.__version__
    assert json.loads(texts["outputs"]) == ["probabilities"]
    preprocessing = json.loads(texts["preprocessing"])
    assert preprocessing == PREPARED | {"channels": 3, "done_inside": ["normalize"]}


def test_the_file_has_no_paths_of_this_machine(exported):
    assert str(Path(halonet.__file__).parent).encode() not in exported[1].read_bytes()


def test_features_of_all_levels_are_exported_within_bounds(tmp_path):
    network = make_network(depths=(1,), num_heads=(1,))  # one head and one block are what PyTorch takes for constants
    path = tmp_path / "levels.pt2"
    export_network(network, path, features=True, bounds=Bounds(min_size=2, max_size=64, max_batch=4))
    image = torch.rand(2, 3, 21, 34)
    with torch.no_grad():
        expected = network.forward_intermediates(image, intermediates_only=True)
    assert_close(run(path, image), expected, atol=1e-5, rtol=1e-5)
    texts = {"outputs": ""}
    ranges = torch.export.load(path, extra_files=texts).range_constraints.values()
    assert json.loads(texts["outputs"]) == ["features_0", "features_1"]
    assert sorted((int(each.lower), int(each.upper)) for each in ranges) == [(1, 4), (2, 64), (2, 64)]
    with pytest.raises(UserError, match="min_size is 9, but must be less than max_size, which is 9"):
        Bounds(min_size=9, max_size=9)


@pytest.mark.parametrize(
    "overrides",
    [
        {"downsampling": "pool"},
        {"final_width": 24, "num_heads": (1, 1)},
        {"block_size": 3, "convolution_stages": (2,)},
        {"centered": True, "position": "none"},
        {"stem": "patch4x4", "position": "absolute"},
        {"stem": "patch2x2", "position": "none", "border": "zeros"},
    ],
    ids=str,
)
def test_every_kind_of_network_can_be_traced_for_all_sizes(overrides):
    program = trace(make_network(depths=(1, 1), **overrides), 3, 28)
    assert [int(each.lower) for each in program.range_constraints.values()] == [1, 1, 1]


class TimmLayer(nn.Sequential):
    """A layer of timm between a convolution and a classifier."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 16, 3, 2, 1), HaloAttn(16, block_size=4, halo_size=1, num_heads=2, stride=2))


def test_a_layer_of_timm_is_exported_after_accelerate(tmp_path):
    torch.manual_seed(0)
    network = TimmLayer().eval()
    path = tmp_path / "timm.onnx"
    with pytest.raises(UserError, match=r"1 is timm's own HaloAttn.*call halonet.accelerate"):
        export_network(network, path)
    export_network(halonet.accelerate(network), path)
    for size in [(1, 1), (16, 16), (43, 9)]:
        image = torch.rand(2, 3, *size)
        with torch.no_grad():
            assert_close(run(path, image)[0], network(image), atol=1e-5, rtol=1e-5)


class OneSize(nn.Sequential):
    """Takes images of 28 x 28 pixels."""

    def forward(self, input: Tensor) -> Tensor:
        assert input.shape[2:] == (28, 28)
        return super().forward(input)


def test_a_network_for_one_size_is_refused(tmp_path):
    with pytest.raises(UserError, match="OneSize fails on images of 1 x 2 to 128 x 256 pixels: only networks"):
        export_network(OneSize(nn.Conv2d(3, 4, 1)), tmp_path / "a.pt2")
    assert list(tmp_path.iterdir()) == []


class Magnifier(nn.Module):
    """Magnifies rounding: nearly all of its input cancels."""

    def forward(self, image: Tensor) -> Tensor:
        return ((image + 2000) - 2000).mean((2, 3))


@pytest.mark.parametrize(("deviation", "is_kept"), [(0.5, True), (20.0, False)])
def test_a_file_may_differ_from_a_network_that_magnifies_rounding_as_much_as_the_network_from_itself(
    deviation, is_kept, tmp_path
):
    network, sizes = Magnifier(), [(4, 1, 1)]

    def run_file(image: Tensor) -> list[Tensor]:
        exact = network(image.double())
        return [(exact - deviation * (network(image) - exact)).float()]

    if is_kept:
        assert verify_file(run_file, network, 3, sizes, tmp_path / "a.pt2") < 1e-2
    else:
        with pytest.raises(ExportError, match=r"a.pt2 was not written"):
            verify_file(run_file, network, 3, sizes, tmp_path / "a.pt2")


@pytest.mark.parametrize("suffix", ["pt2"])
def test_a_file_that_gives_something_else_is_not_kept(suffix, tmp_path, monkeypatch):
    network = make_network(depths=(1,), num_heads=(2,))
    monkeypatch.setattr("halonet.ops.attention.portable.MASKED", 0.0)
    path = tmp_path / f"wrong.{suffix}"
    path.write_bytes(b"the previous file")
    with pytest.raises(ExportError, match=r"wrong.* was not written.* 1 images of 1 x 3 pixels") as caught:
        export_network(network, path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"the previous file"


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_full_disk_is_told_and_leaves_nothing(suffix, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=f"no space left to write .*a.{suffix}: make room"):
            export_network(make_network(depths=(1,), num_heads=(1,)), tmp_path / f"a.{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"path": "a.txt"},
            "cannot tell the format of a.txt: name it with the suffix .onnx or .pt2, or give --format",
        ),
        ({"format": "onx"}, "format is 'onx', but must be onnx, pt2 or aoti. Did you mean 'onnx'"),
        ({"format": "pt2"}, "cannot write a.onnx: the name of a file of format pt2 must end in .pt2"),
        ({"path": "no/a.onnx"}, "cannot write no/a.onnx: there is no folder no"),
        (
            {"path": "a.pt2", "format": "aoti", "bounds": Bounds(max_size=64)},
            "max_size is 64, but must be left out for aoti, whose programs take images of any size",
        ),
        ({"class_names": NAMES[:2]}, "2 class names for 5 classes"),
        ({"normalize": True, "preprocessing": {"mean": [0.5]}}, "normalizing needs a mean of 3 numbers"),
        ({"normalize": True, "preprocessing": {"mean": 0.5, "std": 0.5}}, "a mean of 3 numbers, but .* has 0.5"),
        (
            {"normalize": True, "preprocessing": {"mean": [0.5] * 3, "std": [0.5, 0.0, 0.5]}},
            r"a std of 3 positive numbers, but .* has \[0.5, 0.0, 0.5\]",
        ),
        ({"features": True, "softmax": True}, "a feature extractor has no probabilities"),
    ],
)
def test_mistakes_are_told_on_one_line(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        export_network(make_network(), options.pop("path", "a.onnx"), **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_remedy(package, monkeypatch, tmp_path):
    monkeypatch.setattr("halonet.export.formats.find_spec", lambda name: None if name == package else name)
    with pytest.raises(UserError, match=re.escape(f"needs {package}: {command_for_extra('export')}")):
        export_network(make_network(), tmp_path / "a.onnx")
