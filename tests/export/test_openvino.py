"""Files in OpenVINO, which expands tensors of seven dimensions wrongly: the files have none."""

import onnx
import pytest
import torch
from torch.testing import assert_close

import halonet
from halonet.benchmark.networks import randomize_norms
from halonet.export import export_network

openvino = pytest.importorskip("openvino")

# Whole and partial blocks, a single pixel, more than was traced along either side.
SIZES = [(1, 1, 1), (3, 1, 9), (1, 28, 28), (2, 47, 30), (1, 13, 70)]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    small = halonet.create_model("tiny28", num_classes=5, depths=(1, 3), num_heads=(2, 4))
    return randomize_norms(small).eval()


@pytest.fixture(scope="module")
def path(network, tmp_path_factory):
    return export_network(network, tmp_path_factory.mktemp("exported") / "tiny.onnx").path


def test_a_file_gives_in_openvino_what_the_network_gives(network, path):
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch, *size in SIZES:
        image = torch.rand(batch, 3, *size)
        with torch.no_grad():
            expected = network(image)
        assert_close(torch.tensor(compiled(image.numpy())[0]), expected, atol=1e-5, rtol=0)


def test_no_tensor_has_more_than_five_dimensions(path):
    model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    assert max(len(each.type.tensor_type.shape.dim) for each in model.graph.value_info) == 5
