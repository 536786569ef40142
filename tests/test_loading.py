import subprocess
import sys

import pytest
import torch
from PIL import Image

import halonet
from halonet.errors import UserError
from halonet.training import predict


@pytest.mark.parametrize(("name", "channels"), [("mini32.cifar10", 3), ("fashion_mnist", 1)])
def test_a_name_gives_network_labels_and_transform(name, channels, tmp_path):
    loaded = halonet.load(name)
    picture = Image.radial_gradient("L")
    picture.save(tmp_path / "picture.png")
    images = loaded.transform(picture)[None]
    assert images.shape[1] == channels
    with torch.inference_mode():
        probabilities = loaded.model(images).softmax(1)[0]
    (row,) = predict(name, [tmp_path / "picture.png"])
    assert row["label"] == loaded.labels[int(probabilities.argmax())]
    assert row["probability"] == pytest.approx(probabilities.max().item(), abs=1e-6)


def test_what_is_no_checkpoint_is_told_with_the_names_of_weights():
    with pytest.raises(UserError, match=r"there is no checkpoint mini32.cifar: .* or one of .*mini32.cifar10"):
        halonet.load("mini32.cifar")


def test_a_missing_extra_is_named():
    code = "import sys; sys.modules['pydantic'] = None; import halonet; halonet.load('mini32.cifar10')"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UserError: halonet.load needs pydantic" in shown.stderr
    assert "[train]" in shown.stderr
