import shutil
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from halonet.classification import prediction
from halonet.classification.evaluation import preprocessing
from halonet.data import build_transform, open_image
from halonet.engine.weights import read_weights, save_weights
from halonet.errors import UserError
from halonet.training import load_checkpoint, predict
from halonet.visual.attention import record_attention
from halonet_cli.main import main


def test_each_image_is_labeled_as_the_network_says(finished_run: Path, images: Path):
    files = sorted((images / "test").rglob("*.png"))
    rows = predict(finished_run, files, device="cpu", batch_size=3)
    network, information = load_checkpoint(finished_run)
    transform = build_transform(preprocessing(information, ""), train=False)
    with torch.no_grad():
        expected = network(torch.stack([transform(open_image(file)) for file in files])).softmax(1)
    assert [row["file"] for row in rows] == [str(file) for file in files]
    for row, probabilities in zip(rows, expected, strict=True):
        assert row["label"] == ["left", "right"][probabilities.argmax()]
        assert row["probability"] == pytest.approx(probabilities.max().item(), abs=1e-5)
        assert row["top"][0] == {"label": row["label"], "probability": row["probability"]}
        assert len(row["top"]) == 2
        assert sum(guess["probability"] for guess in row["top"]) == pytest.approx(1)


def test_top_k_limits_the_guesses(finished_run: Path, images: Path):
    (row,) = predict(finished_run, [images / "test" / "left" / "0.png"], top_k=1, device="cpu")
    assert len(row["top"]) == 1
    with pytest.raises(UserError, match="top_k is 0"):
        predict(finished_run, [], top_k=0)


def test_unreadable_images_do_not_stop_the_others(finished_run: Path, images: Path, tmp_path: Path):
    files = sorted((images / "test").rglob("*.png"))
    expected = predict(finished_run, files, device="cpu", batch_size=3)
    (tmp_path / "broken.png").write_bytes(b"no image")
    mixed = [tmp_path / "broken.png", *files[:3], tmp_path / "broken.png", tmp_path / "gone.png", *files[3:]]
    rows = predict(finished_run, mixed, device="cpu", batch_size=3)
    assert [row["file"] for row in rows] == [str(file) for file in mixed]
    bad = [index for index, row in enumerate(rows) if "error" in row]
    assert bad == [0, 4, 5]
    assert "broken.png is not an image" in rows[0]["error"]
    assert "gone.png does not exist" in rows[5]["error"]
    good = [row for row in rows if "error" not in row]
    assert [row["label"] for row in good] == [row["label"] for row in expected]
    for row, other in zip(good, expected, strict=True):
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-5)


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"], ["--save-maps", "maps"]])
def test_the_command_fails_if_an_image_does(
    form: list[str], finished_run: Path, images: Path, tmp_path: Path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"")
    good = str(images / "test" / "left" / "0.png")
    assert main(["predict", str(finished_run), "broken.png", good, *form]) == 1
    shown = capsys.readouterr()
    assert good in shown.out
    assert "broken.png is empty" in shown.err
    assert "halonet: 1 of 2 images could not be read" in shown.err
    assert main(["predict", str(finished_run), good, *form]) == 0
    assert main(["predict", str(finished_run), "broken.png", *form]) == 1


def test_names_are_escaped(finished_run: Path, images: Path, tmp_path: Path, capsys, monkeypatch):
    state, information, _ = read_weights(finished_run)
    names = ["$\\frac{$", "\x1b[31mred\ud800"]
    save_weights(tmp_path / "odd.safetensors", state, information | {"class_names": names})
    picture = tmp_path / (b"\xff\x1b[2J\n.png".decode("utf-8", "surrogateescape"))
    shutil.copy(images / "test" / "left" / "0.png", picture)
    for form in ([], ["--csv"], ["--json"], ["--save-maps", str(tmp_path / "maps")]):
        assert main(["predict", str(tmp_path / "odd.safetensors"), str(picture), *form]) == 0
        shown = capsys.readouterr().out
        assert "\x1b" not in shown
        assert "\\x1b[31mred" in shown or "\\u001b[31mred" in shown
    (drawn,) = (tmp_path / "maps").iterdir()
    assert drawn.name == r"0000_\udcff\x1b[2J\n.png"


@pytest.mark.parametrize(
    ("words", "layer", "head", "pixel"),
    [
        ("--layer 0", 0, None, (4, 4)),
        ("--head 1 --pixel 3 5", -1, 1, (3, 5)),
        ("--layer 1 --head 0 --pixel 0 7", 1, 0, (0, 7)),
    ],
)
def test_the_chosen_layer_head_and_pixel_are_drawn(
    words, layer, head, pixel, finished_run, images, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(prediction, "draw_heads", lambda look, *_, **options: drawn.append((look, None)) or Figure())
    monkeypatch.setattr(prediction, "draw_pixel", lambda look, *_, head, **__: drawn.append((look, head)) or Figure())
    file = images / "test" / "left" / "0.png"
    assert main(["predict", str(finished_run), str(file), "--save-maps", str(tmp_path), *words.split()]) == 0
    ((look, drawn_head),) = drawn
    network, information = load_checkpoint(finished_run)
    image = build_transform(preprocessing(information, ""), train=False)(open_image(file))[None]
    expected = record_attention(network, image)[layer].look(pixel)
    assert (look.layer, look.query, drawn_head) == (expected.layer, expected.query, head)
    torch.testing.assert_close(look.probabilities, expected.probabilities)
    assert len(list(tmp_path.glob("*.png"))) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--layer 9", "--layer is 9, but must be from 0 to 1"),
        ("--head -1", "--head is -1, but must be from 0 to 1"),
        ("--pixel 8 0", "--pixel is (8, 0), but must be a row from 0 to 7 and a column from 0 to 7 of the network's"),
        ("--pixel 1", "--pixel: expected 2 arguments"),
        ("--layer x", "--layer: 'x' is not a whole number"),
    ],
)
def test_a_choice_that_is_not_there_is_refused_before_anything_is_written(
    words, message, finished_run, images, tmp_path, capsys
):
    file = str(images / "test" / "left" / "0.png")
    assert main(["predict", str(finished_run), file, "--save-maps", str(tmp_path / "maps"), *words.split()]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "maps").exists()
    assert shown.out == ""


@pytest.mark.parametrize("flag", ["--layer", "--head"])
def test_a_choice_is_checked_before_images_are_read(flag, finished_run, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"")
    words = ["predict", str(finished_run), str(tmp_path / "broken.png"), "--save-maps", str(tmp_path / "maps")]
    assert main([*words, flag, "9"]) == 2
    assert "broken.png" not in capsys.readouterr().err


def test_a_choice_needs_a_place_for_pictures(finished_run, images, capsys):
    assert main(["predict", str(finished_run), str(images / "test" / "left" / "0.png"), "--head", "0"]) == 2
    assert "--head chooses what --save-maps shows: add --save-maps DIR" in capsys.readouterr().err
