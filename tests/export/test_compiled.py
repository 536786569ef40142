"""Programs that AOTInductor compiled."""

import pytest
import torch
from torch._inductor import config as inductor
from torch.testing import assert_close

import halonet
from halonet.benchmark.networks import randomize_norms
from halonet.errors import UserError
from halonet.export import export_network
from halonet.export.compiled import check_compiler, open_compiled

# Whole and partial blocks, a single pixel, several blocks along either side.
SIZES = [(1, 1, 1), (3, 1, 9), (1, 28, 28), (1, 43, 44), (2, 61, 30), (1, 13, 70)]


@pytest.mark.slow
def test_a_compiled_program_gives_what_the_network_gives(tmp_path):
    check_compiler()
    torch.manual_seed(0)
    network = randomize_norms(halonet.create_model("tiny28", num_classes=5, depths=(1, 1))).eval()
    names = ["bag", "boot", "coat", "dress", "shirt"]
    exported = export_network(network, tmp_path / "tiny.pt2", format="aoti", class_names=names)
    assert len(exported.verified) == 3
    assert list(tmp_path.iterdir()) == [exported.path]
    compiled = open_compiled(exported.path)
    assert compiled.get_metadata()["class_names"] == '["bag", "boot", "coat", "dress", "shirt"]'
    for batch, *size in SIZES:
        image = torch.rand(batch, 3, *size)
        with torch.no_grad():
            assert_close(compiled(image), network(image), atol=1e-5, rtol=0)


def test_a_missing_compiler_is_named_with_its_remedy(tmp_path):
    network = halonet.create_model("tiny28")
    with (
        inductor.patch({"cpp.cxx": ("no-compiler-of-this-name",)}),
        pytest.raises(UserError, match="exporting to aoti needs a C.. compiler, but none was found: install GCC"),
    ):
        export_network(network, tmp_path / "tiny.pt2", format="aoti")
    assert list(tmp_path.iterdir()) == []
