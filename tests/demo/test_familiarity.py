import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from halonet.data import load_source
from halonet.demo.familiarity import SHARE, calibrate, read_familiarity, similarity
from halonet.demo.model import CIFAR10, open_model
from halonet.demo.page import EXAMPLES
from halonet.engine.weights import read_weights, save_weights
from halonet.errors import UserError
from halonet.models.pretrained import FOLDER, weights_path

FASHION = FOLDER / "tiny28.fashion_mnist.safetensors"
STRANGE = "To the network it resembles its labels less than 90 % of the validation pictures do."


@pytest.fixture
def weights(tmp_path):
    """A copy of the Fashion-MNIST weights, without what belongs to them."""
    return shutil.copy(FASHION, tmp_path / "model.safetensors")


def test_similarity_is_the_largest_cosine_from_the_center():
    features, means = torch.randn(5, 7), torch.randn(3, 7)
    center = means.numpy().mean(0)
    expected = [
        max(
            np.dot(x - center, m - center) / np.linalg.norm(x - center) / np.linalg.norm(m - center)
            for m in means.numpy()
        )
        for x in features.numpy()
    ]
    np.testing.assert_allclose(similarity(features, means).numpy(), expected, rtol=1e-4)


def test_what_comes_with_the_package_is_what_calibrating_gives(weights):
    assert calibrate(weights) == weights.with_name("model.familiarity.json")
    found, packaged = read_familiarity(read_weights(weights)), read_familiarity(read_weights(FASHION))
    torch.testing.assert_close(found.means, packaged.means, atol=2e-3, rtol=1e-3)
    assert found.least == pytest.approx(packaged.least, abs=2e-3)
    assert found.means.shape[0] == 10


@pytest.mark.parametrize("name", ["mini32.cifar10", "tiny28.fashion_mnist"])
def test_all_weights_of_the_package_are_calibrated(name):
    assert read_familiarity(read_weights(weights_path(name))) is not None


def test_few_known_pictures_are_strange_and_nearly_all_others(tmp_path):
    model, source = open_model("fashion_mnist"), load_source("fashion-mnist", "test")

    def is_strange(picture):
        picture.save(tmp_path / "a.png")
        return STRANGE in model.answer(str(tmp_path / "a.png")).doubts

    known = [is_strange(source[index][0]) for index in range(120)]
    assert 0.5 * SHARE < np.mean(known) < 1.5 * SHARE
    nuclei = Image.open(EXAMPLES.parents[1] / "data/embedded/nuclei/test.png").convert("L")
    assert is_strange(nuclei.crop((0, 0, 64, 64)))
    assert all(is_strange(Image.open(EXAMPLES / f"{name}.jpg").convert("L")) for name in ("cat", "coffee", "rocket"))


def test_a_network_that_was_not_calibrated_answers_without_that_doubt(weights):
    answer = open_model(weights).answer(str(EXAMPLES / "cat.jpg"))
    assert len(answer.probabilities) == 10
    assert STRANGE not in answer.doubts


def test_a_run_is_calibrated_on_its_own_data(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    calibrate(run)
    assert open_model(run).familiarity.means.shape[0] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: "{", "is damaged"),
        (lambda content: json.dumps(content | {"least": "much"}), "is damaged .*least is 'much'"),
        (lambda content: json.dumps(content | {"means": [[1, 2], [1]]}), "is damaged"),
        (lambda content: json.dumps(content | {"weights": "00000000"}), "belongs to other weights than model.safetens"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_remedy(change, message, weights):
    file = weights.with_name("model.familiarity.json")
    content = json.loads(FASHION.with_suffix(".familiarity.json").read_text())
    file.write_text(json.dumps(content))
    assert open_model(weights).familiarity is not None
    file.write_text(change(content))
    with pytest.raises(UserError, match=f"{message}.*remove it, or call .*calibrate again") as caught:
        open_model(weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [(None, "does not say what data it was trained on"), ("hfds/someone/cats", "names hfds/someone")],
)
def test_data_that_are_not_here_are_refused(data, message, tmp_path):
    state, information, _ = read_weights(CIFAR10)
    save_weights(tmp_path / "a.safetensors", state, information | {"data": data})
    with pytest.raises(UserError, match=message):
        calibrate(tmp_path / "a.safetensors")


def test_a_file_that_cannot_be_written_is_told_before_the_work(weights, monkeypatch):
    monkeypatch.setattr("halonet.demo.familiarity.load_checkpoint", None)
    weights.with_name("model.familiarity.json").mkdir()
    with pytest.raises(UserError, match=r"model\.familiarity\.json: it is a folder"):
        calibrate(weights)
