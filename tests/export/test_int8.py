"""Files that compute in int8: nearly as accurate as the network, on data that it was trained for."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

import halonet
from halonet.classification.prediction import TrainedClassifier
from halonet.data import load_source
from halonet.errors import ExportError, UserError
from halonet.export import Bounds, Exported, ImageFiles, export_network
from halonet.export.formats import FORMATS
from halonet.export.int8 import LEAST_IMAGES, MOST_IMAGES, batches
from halonet.installation import command_for_extra
from halonet_cli.main import main

WEIGHTS = "tiny28.fashion_mnist"
LAYERS = 1 + 3 * (1 + 3 + 1) + 2 + 1  # stem; reduce, query, key, value, expand of 3 blocks; shortcuts; classifier
TESTED = 1000


@pytest.fixture(scope="module")
def trained() -> TrainedClassifier:
    return halonet.load(WEIGHTS)


def read_images(trained, split: str, count: int) -> tuple[Tensor, Tensor]:
    source = load_source("fashion-mnist", split)
    pairs = [source[index] for index in range(count)]
    return torch.stack([trained.transform(image) for image, _ in pairs]), torch.tensor([label for _, label in pairs])


@pytest.fixture(scope="module", params=["onnx", "pt2"])
def exported(request: pytest.FixtureRequest, trained, tmp_path_factory) -> Exported:
    images, _ = read_images(trained, "train", 100)
    path = tmp_path_factory.mktemp("int8") / f"tiny.{request.param}"
    return export_network(trained.model, path, class_names=trained.labels, calibration=images)


@pytest.mark.slow
def test_int8_loses_at_most_half_a_point(exported, trained):
    images, labels = read_images(trained, "test", TESTED)
    run = FORMATS[exported.format].open(exported.path)
    with torch.no_grad():
        in_float = (trained.model(images).argmax(1) == labels).sum()
        found = torch.cat([run(some)[0] for some in images.split(200)])
    in_int8 = (found.argmax(1) == labels).sum()
    assert in_float > 0.85 * TESTED
    assert in_float - in_int8 <= 0.005 * TESTED


def test_it_was_verified_on_the_images_and_at_other_sizes(exported):
    assert exported.agreement.images == 100
    assert exported.agreement.labels >= 0.97
    assert 0 < exported.agreement.error < 0.1
    assert len(exported.verified) == 3
    assert list(exported.path.parent.iterdir()) == [exported.path]


def test_all_layers_but_those_without_weights_are_in_int8(exported):
    if exported.format == "onnx":
        graph = onnx.load(exported.path).graph
        dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
        quantized = [node for node in layers if set(node.input[:2]) <= dequantized]
        assert len(quantized) == LAYERS - 1  # not the stem
        assert not dequantized & {name for node in layers if node not in quantized for name in node.input}
        stored = [each for each in graph.initializer if each.data_type == onnx.TensorProto.INT8 and len(each.dims) == 2]
        assert len(stored) == LAYERS - 1
    else:
        program = torch.export.load(exported.path)
        nodes = list(program.graph.nodes)
        assert not [node.name for node in nodes if node.op == "placeholder" and not node.users]
        kinds = [each.dtype for each in program.state_dict.values() if each.numel() > 4000]
        assert kinds == [torch.int8] * len(kinds)
        per_channel = [node for node in nodes if "dequantize_per_channel" in str(node.target)]
        assert len(per_channel) == LAYERS
        products = [node for node in nodes if node.target == torch.ops.aten.matmul.default]
        assert len(products) == 3 * 4  # of rows, of columns, of keys, of values
        assert not any("quantize" in str(each.target) for node in products for each in node.all_input_nodes)


def test_the_file_says_that_it_is_in_int8(exported, trained):
    texts = {"class_names": "", "precision": ""}
    if exported.format == "onnx":
        model = onnx.load(exported.path)
        texts = {each.key: each.value for each in model.metadata_props}
        assert {each.domain for each in model.opset_import} == {""}
        assert sorted(texts) == ["class_names", "halonet_version", "outputs", "precision", "preprocessing"]
    else:
        torch.export.load(exported.path, extra_files=texts)
    assert json.loads(texts["class_names"]) == trained.labels
    assert texts["precision"] == "int8"


def test_a_file_that_gives_something_else_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("halonet.export.int8.TOLERANCE", 1e-4)
    network = halonet.create_model("tiny28", 5, 1, depths=(1,), num_heads=(1,))
    path = tmp_path / "tiny.pt2"
    path.write_bytes(b"the previous file")
    with pytest.raises(ExportError, match=r"tiny.pt2 was not written: in int8 .* differ by \d+ %") as caught:
        export_network(network, path, calibration=torch.rand(LEAST_IMAGES, 1, 28, 28))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"the previous file"


def make_pictures(folder: Path, count: int) -> Iterator[Path]:
    source = load_source("fashion-mnist", "train")
    folder.mkdir()
    for index in range(count):
        path = folder / f"{index:03}.png"
        source[index][0].save(path)
        yield path


def test_the_command_calibrates_on_a_folder_and_normalizes_inside(trained, tmp_path, capsys):
    files = list(make_pictures(tmp_path / "pictures", 12))
    path = tmp_path / "tiny.onnx"
    assert main(["export", WEIGHTS, str(path), "--normalize", "--int8", str(tmp_path / "pictures")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"onnx, 0.\d MiB, .* int8 calibrated with 12 images: the same label as PyTorch for [\d.]+ %", said)
    pixels = torch.stack([pil_to_tensor(Image.open(file)) for file in files])
    (logits,) = FORMATS["onnx"].open(path)(pixels / 255)
    with torch.no_grad():
        expected = trained.model(torch.stack([trained.transform(Image.open(file)) for file in files]))
    assert (logits - expected).square().mean() < 0.01 * expected.square().mean()


def test_at_most_256_images_are_read_evenly_spaced():
    read = []

    class Numbered:
        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: int) -> Tensor:
            read.append(index)
            return torch.full((1, 2, 2), float(index))

    assert [len(batch) for batch in batches(Numbered(), 100)] == [100, 100, 56]
    assert read[:3] == [0, 3, 7]
    assert (len(read), read[-1]) == (MOST_IMAGES, 996)


def test_a_compiled_program_in_int8_is_refused(trained, tmp_path):
    with pytest.raises(UserError, match="format is 'aoti', which has no int8: choose onnx or pt2"):
        export_network(trained.model, tmp_path / "a.pt2", format="aoti", calibration=torch.rand(10, 1, 28, 28))
    assert list(tmp_path.iterdir()) == []


def test_few_images_are_refused(trained, tmp_path):
    message = "int8 needs at least 10 images to calibrate with, but there are 9: give some 256"
    with pytest.raises(UserError, match=message) as caught:
        export_network(trained.model, tmp_path / "a.onnx", calibration=torch.zeros(LEAST_IMAGES - 1, 1, 28, 28))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("images", "bounds", "message"),
    [
        (
            torch.zeros(10, 3, 28, 28),
            None,
            r"is torch.float32 of shape \[3, 28, 28\], but must be .* \[1, height, width\]",
        ),
        (torch.zeros(10, 1, 28, 28).double(), None, r"is torch.float64 of shape"),
        (torch.zeros(10, 1, 28, 28), Bounds(min_size=40), "with sides of at least 40 pixels"),
        (torch.zeros(10, 1, 28, 28), Bounds(max_size=20), "with sides of 1 to 20 pixels"),
        ([torch.zeros(1, 28, 28 + index) for index in range(10)], None, "must all have one shape and dtype"),
        (torch.full((10, 1, 28, 28), torch.nan), None, "holds infinite numbers or NaN"),
    ],
    ids=["channels", "dtype", "too small", "too large", "several sizes", "nan"],
)
def test_images_that_do_not_fit_are_refused(images, bounds, message, tmp_path):
    network = halonet.create_model("tiny28", 5, 1, depths=(1,), num_heads=(1,))
    with pytest.raises(UserError, match=message) as caught:
        export_network(network, tmp_path / "a.pt2", calibration=images, bounds=bounds)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_torchao_is_named_with_its_remedy(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("halonet.export.int8.find_spec", lambda name: None if name == "torchao" else name)
    with pytest.raises(UserError, match=re.escape(f"pt2 in int8 needs torchao: {command_for_extra('export')}")):
        export_network(trained.model, tmp_path / "a.pt2", calibration=torch.zeros(LEAST_IMAGES, 1, 28, 28))


def test_a_damaged_picture_is_named(trained, tmp_path):
    files = list(make_pictures(tmp_path / "pictures", LEAST_IMAGES))
    files[3].write_bytes(b"no picture")
    with pytest.raises(UserError, match="003.png is not an image"):
        list(batches(ImageFiles(files, trained.transform), 4))


def test_a_folder_that_is_not_there_is_told_at_once(tmp_path, capsys):
    assert main(["export", WEIGHTS, str(tmp_path / "a.onnx"), "--int8", str(tmp_path / "none")]) == 2
    assert "none does not exist: name a folder of images to calibrate with" in capsys.readouterr().err
