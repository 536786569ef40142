import subprocess
import sys

import pytest
import timm
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


@pytest.mark.parametrize("name", ["mini32.cifar10", "fashion_mnist"])
def test_the_network_is_one_of_timms(name, tmp_path):
    """Timm prepares its images, and saves it with its labels."""
    trained = halonet.load(name)
    picture = Image.radial_gradient("L").convert("L" if trained.model.in_chans == 1 else "RGB")
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(trained.model))
    assert torch.allclose(transform(picture), trained.transform(picture), atol=1e-6)
    timm.models.save_for_hf(trained.model, str(tmp_path), safe_serialization=True)
    again = halonet.load(tmp_path)
    images = trained.transform(picture)[None]
    assert torch.equal(again.model(images), trained.model(images))
    assert torch.equal(again.transform(picture), trained.transform(picture))
    assert again.labels == trained.labels


def test_what_is_no_checkpoint_is_told_with_the_names_of_weights():
    with pytest.raises(UserError, match=r"there is no checkpoint mini32.cifar: .* or one of .*mini32.cifar10"):
        halonet.load("mini32.cifar")


def test_a_missing_extra_is_named():
    code = "import sys; sys.modules['pydantic'] = None; import halonet; halonet.load('mini32.cifar10')"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UserError: halonet.load needs pydantic" in shown.stderr
    assert "[train]" in shown.stderr
