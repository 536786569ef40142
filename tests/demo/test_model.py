import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from halonet import HaloNet, create_model
from halonet.classification.prediction import predict
from halonet.demo import model as demo
from halonet.demo.model import CIFAR10, open_model
from halonet.demo.page import EXAMPLES
from halonet.detection.prediction import predict as detect
from halonet.engine.weights import describe, read_weights, save_weights
from halonet.errors import UserError
from halonet.visual import attention


def test_the_answer_is_that_of_predict(cifar10):
    (row,) = predict(CIFAR10, [EXAMPLES / "cat.jpg"], top_k=10, device="cpu")
    answer = cifar10.answer(str(EXAMPLES / "cat.jpg"))
    expected = {guess["label"]: guess["probability"] for guess in row["top"]}
    assert answer.probabilities == pytest.approx(expected, abs=1e-5)
    assert answer.summary == f"{row['label']}, {100 * row['probability']:.1f} %"
    assert answer.layers[0].name == "stages.1.0.mixer"


@pytest.mark.parametrize("name", ["cat", "bird"])
def test_examples_of_what_the_network_knows_are_named_without_a_doubt(name, cifar10):
    answer = cifar10.answer(str(EXAMPLES / f"{name}.jpg"))
    assert answer.summary.startswith(f"{name}, ")
    assert answer.doubts == []


def test_the_page_says_what_the_network_knows(cifar10):
    assert "10 labels: <b>airplane, automobile, bird" in cifar10.knows
    assert "color pictures of CIFAR-10 (JPEG), and labels 84.5 % of 10,000 test pictures correctly" in cifar10.knows
    assert "32 x 32 pixels" in cifar10.knows


def test_a_run_says_what_its_result_says(finished_run):
    from halonet.engine.run import read_result

    result = read_result(finished_run)
    text = open_model(finished_run).knows
    assert "2 labels: <b>left, right</b>" in text
    assert f"labels {result['top1']:.1f} % of {result['images']:,} {result['split']} pictures correctly" in text


@pytest.fixture
def changed(tmp_path):
    """Saves the CIFAR-10 weights with another description."""

    def save(**changes):
        state, information, _ = read_weights(CIFAR10)
        save_weights(tmp_path / "a.safetensors", state, information | changes)
        return tmp_path / "a.safetensors"

    return save


def test_names_from_a_file_are_shown_and_not_run(changed):
    names = ["<img src=x onerror=alert(1)>", "![a](http://example.org/a.png)", "\x1b[31m", *"abcdefg"]
    knows = open_model(changed(class_names=names, figures=None, data="<script>")).knows
    assert "&lt;img src=x onerror=alert(1)&gt;, ![a](http://example.org/a.png), \\x1b[31m, a" in knows
    assert "pictures of &lt;script&gt;; how accurate it is, its file does not say." in knows
    assert "<" not in knows.replace("<b>", "").replace("</b>", "")


@pytest.mark.parametrize(
    ("figures", "message"), [({"top1": "84"}, "top1 is '84', but must be a finite number"), ([84.5], "must be a ")]
)
def test_figures_of_a_wrong_type_are_refused(figures, message, changed):
    with pytest.raises(UserError, match=message) as caught:
        open_model(changed(figures=figures))
    assert "\n" not in str(caught.value)


def test_two_visitors_at_once_get_their_own_answers(cifar10, monkeypatch):
    files = [str(EXAMPLES / "cat.jpg"), str(EXAMPLES / "coffee.jpg")]
    expected = [cifar10.answer(file) for file in files]
    both = threading.Barrier(2, timeout=0.2)
    kept = attention._kept_inputs

    @contextlib.contextmanager
    def kept_at_once(layers):
        with kept(layers) as inputs:
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait()  # until the hooks of both hang on the network, if it comes to that
            yield inputs

    monkeypatch.setattr(attention, "_kept_inputs", kept_at_once)
    with ThreadPoolExecutor(2) as pool:
        for answer, own in zip(pool.map(cifar10.answer, files), expected, strict=True):
            assert answer.summary == own.summary
            for layer, other in zip(answer.layers, own.layers, strict=True):
                torch.testing.assert_close(layer.features, other.features)


def picture(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("size", "gray", "doubt"),
    [
        ((300, 300), True, "The picture is gray, and the network learned from color pictures."),
        ((12, 15), False, "The picture has only 15 x 12 pixels, and is scaled up."),
        ((700, 680), False, "The picture has 680 x 700 pixels, and is scaled down by more than 20 times."),
        ((640, 640), False, None),
        ((16, 16), False, None),
    ],
)
@pytest.mark.parametrize("channels", ["as the file has them", "three"])
def test_a_picture_unlike_the_training_pictures_is_doubted(cifar10, tmp_path, size, gray, doubt, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 1 if gray else 3), dtype=np.uint8)
    pixels = pixels[:, :, 0] if gray and channels != "three" else np.broadcast_to(pixels, (*size, 3))
    doubts = cifar10.answer(picture(tmp_path, np.ascontiguousarray(pixels))).doubts
    doubts = [each for each in doubts if "best guess" not in each and "resembles" not in each]
    assert doubts == ([doubt] if doubt else [])


def test_an_unsure_answer_is_doubted_and_a_sure_one_is_not(cifar10, tmp_path, monkeypatch):
    file = str(EXAMPLES / "cat.jpg")
    best = max(cifar10.answer(file).probabilities.values())
    monkeypatch.setattr(demo, "UNSURE", best + 0.01)
    assert f"The best guess gets only {100 * best:.0f} %" in cifar10.answer(file).doubts[0]
    monkeypatch.setattr(demo, "UNSURE", best - 0.01)
    assert cifar10.answer(file).doubts == []


@pytest.mark.parametrize("kind", ["masks", "boxes"])
def test_a_detector_draws_what_predict_finds(kind, detectors, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "MIN_SCORE", 0.01)  # it was trained for seconds
    file = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file)
    (row,) = detect(detectors[kind], [file], min_score=0.01, device="cpu", pictures=tmp_path / "drawn")
    model = open_model(detectors[kind])
    answer = model.answer(str(file))
    assert row["instances"]
    np.testing.assert_array_equal(np.asarray(answer.instances), np.asarray(Image.open(row["picture"])))
    assert str(len(row["instances"])) in answer.summary or len({each["label"] for each in row["instances"]}) > 1
    assert answer.probabilities == {}
    assert ("boxes and masks" in model.knows) == (kind == "masks")
    assert all(layer.look((0, 0)).probabilities.sum() > 0 for layer in answer.layers)


def test_a_detector_that_finds_nothing_says_so(detectors, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "MIN_SCORE", 1.0)
    answer = open_model(detectors["boxes"]).answer(str(EXAMPLES / "cat.jpg"))
    assert answer.summary == "nothing found"
    assert answer.doubts[0] == "The network found nothing with a score of at least 100 %."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture", "a.png is not an image that can be read"),
        (b"", "image a.png is empty"),
        ((EXAMPLES / "cat.jpg").read_bytes()[:5000], "image a.png is damaged or truncated"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_name_alone(content, message, cifar10, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=f"^(image )?{message.removeprefix('image ')}") as caught:
        cifar10.answer(str(tmp_path / "a.png"))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


CAT = Image.open(EXAMPLES / "cat.jpg").resize((90, 60))
SIDEWAYS = Image.Exif()
SIDEWAYS[0x0112] = 6  # the camera was turned: show it a quarter to the right


@pytest.mark.parametrize(
    ("stored", "options", "shown"),
    [
        (CAT.convert("P"), {"format": "GIF", "save_all": True, "append_images": [Image.new("P", CAT.size)]}, "P"),
        (CAT.convert("CMYK"), {"format": "TIFF"}, "CMYK"),
        (CAT.convert("RGBA"), {"format": "PNG"}, "RGBA"),
        (CAT.transpose(Image.Transpose.ROTATE_90), {"format": "PNG", "exif": SIDEWAYS}, "RGB"),
    ],
)
def test_pictures_of_any_format_are_read_as_they_look(stored, options, shown, cifar10, tmp_path):
    stored.save(tmp_path / "a.picture", **options)
    upright = CAT.convert(shown).convert("RGB")
    upright.save(tmp_path / "upright.png")
    answer, expected = (cifar10.answer(str(tmp_path / name)) for name in ("a.picture", "upright.png"))
    assert answer.probabilities == expected.probabilities
    np.testing.assert_array_equal(np.asarray(answer.seen), np.asarray(expected.seen))


def test_a_single_pixel_gets_an_answer_and_a_doubt(cifar10, tmp_path):
    answer = cifar10.answer(picture(tmp_path, np.zeros((1, 1, 3), np.uint8)))
    assert "The picture has only 1 x 1 pixels, and is scaled up." in answer.doubts
    assert answer.layers[-1].look((31, 31)).probabilities.isfinite().all()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((60, 60), 40_000, np.uint16), r"image a\.png has more than 8 bits a channel"),
        (
            np.zeros((3000, 1, 3), np.uint8),
            r"image a\.png is refused: 1 x 3000 pixels is over 100 to 1\. Crop it first",
        ),
    ],
)
def test_pictures_of_odd_depth_or_shape_are_refused(pixels, message, cifar10, tmp_path):
    with pytest.raises(UserError, match=message):
        cifar10.answer(picture(tmp_path, pixels))


@pytest.mark.parametrize(("side", "words"), [(5001, "25,010,001 pixels, the limit is 25,000,000"), (10_000, "limit")])
def test_a_picture_of_too_many_pixels_is_refused(side, words, cifar10, tmp_path):
    Image.new("L", (side, side)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=words):
        cifar10.answer(str(tmp_path / "a.png"))


def test_a_network_without_attention_is_refused_at_once(tmp_path):
    network = create_model("resnet50_twin", depths=(1, 1, 1, 1), num_classes=2)
    assert isinstance(network, HaloNet)
    _, information, _ = read_weights(CIFAR10)
    about = describe(network) | {"preprocessing": information["preprocessing"]}
    save_weights(tmp_path / "a.safetensors", network.state_dict(), about)
    with pytest.raises(UserError, match="no attention layer"):
        open_model(tmp_path / "a.safetensors")


def test_the_attention_is_that_of_the_picture(cifar10):
    from halonet.classification.evaluation import preprocessing
    from halonet.data import build_transform, open_image
    from halonet.visual.attention import record_attention

    file = EXAMPLES / "rocket.jpg"
    image = build_transform(preprocessing(cifar10.information, ""), train=False)(open_image(file))[None]
    expected = record_attention(cifar10.network, image)
    for layer, other in zip(cifar10.answer(str(file)).layers, expected, strict=True):
        torch.testing.assert_close(layer.look((3, 4)).probabilities, other.look((3, 4)).probabilities)


@pytest.mark.parametrize("name", ["mini32.cifar10", "fashion_mnist"])
def test_weights_that_come_with_the_package_are_named(name):
    answer = open_model(name).answer(str(EXAMPLES / "cat.jpg"))
    assert answer.doubts[-1:] == (
        ["The picture is in color, and the network learned from gray pictures."] * ("fashion" in name)
    )
