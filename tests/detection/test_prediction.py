import re

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths

from halonet.detection import predict
from halonet.engine.weights import read_weights, save_weights
from halonet.errors import UserError
from halonet_cli.main import main


@pytest.fixture
def files(scenes):
    return sorted((scenes / "val").glob("*.png"))


def test_every_image_has_a_row_of_instances(finished_run, files):
    rows = predict(finished_run, files, min_score=0.0)
    assert [row["file"] for row in rows] == [str(file) for file in files]
    assert all((row["width"], row["height"]) == (64, 48) for row in rows)
    instances = [instance for row in rows for instance in row["instances"]]
    assert instances
    for row in rows:
        scores = [instance["score"] for instance in row["instances"]]
        assert scores == sorted(scores, reverse=True)
    for instance in instances:
        assert (instance["label"], instance["category_id"]) in (("box", 3), ("disc", 7))
        assert instance["segmentation"]["size"] == [48, 64]
        assert run_lengths.area(instance["segmentation"]) >= 0


def test_numbers_in_file_names_are_image_ids(finished_run, files):
    assert [row["image_id"] for row in predict(finished_run, files, min_score=1.0)] == [1, 2, 3]
    assert [row["image_id"] for row in predict(finished_run, files[2:], min_score=1.0)] == [3]


def test_images_with_other_names_are_counted(finished_run, files, tmp_path):
    for name in ("a.png", "7.png"):
        Image.open(files[0]).save(tmp_path / name)
    rows = predict(finished_run, [tmp_path / "a.png", tmp_path / "7.png"], min_score=1.0)
    assert [row["image_id"] for row in rows] == [1, 2]


def test_a_higher_score_leaves_fewer_instances(finished_run, files):
    everything = predict(finished_run, files, min_score=0.0)
    threshold = float(np.median([each["score"] for row in everything for each in row["instances"]]))
    some = predict(finished_run, files, min_score=threshold)
    for all_of, kept in zip(everything, some, strict=True):
        assert kept["instances"] == [each for each in all_of["instances"] if each["score"] >= threshold]


def test_pictures_show_the_instances(finished_run, files, tmp_path):
    rows = predict(finished_run, files, min_score=0.0, pictures=tmp_path / "drawn")
    for number, (row, file) in enumerate(zip(rows, files, strict=True)):
        assert row["picture"] == str(tmp_path / "drawn" / f"{number:04}_{file.stem}.png")
        drawn = Image.open(row["picture"])
        assert drawn.size == (64, 48)
        assert np.any(np.asarray(drawn) != np.asarray(Image.open(file))) == bool(row["instances"])


def test_names_are_escaped(finished_run, files, tmp_path, capsys):
    state, information, _ = read_weights(finished_run)
    names = ["\x1b[31mtwo\nlines", "\x1b[31mred\ud800"]
    save_weights(tmp_path / "odd.safetensors", state, information | {"class_names": names, "class_labels": names})
    picture = tmp_path / ("\x1b" * 250 + ".png")
    Image.open(files[0]).save(picture)
    words = ["detect", "predict", str(tmp_path / "odd.safetensors"), str(picture), "--min-score", "0"]
    for form in ([], ["--json"], ["--pictures", str(tmp_path / "drawn")]):
        assert main(words + form) == 0
        shown = capsys.readouterr().out
        assert "\x1b" not in shown
        assert re.search(r"\\(x|u00)1b\[31m", shown)
    (drawn,) = (tmp_path / "drawn").iterdir()
    assert drawn.name == "0000_" + r"\x1b" * 15 + ".png"


def test_a_gray_image_is_converted_to_color(finished_run, tmp_path):
    Image.new("L", (30, 20), 90).save(tmp_path / "gray.png")
    (row,) = predict(finished_run, [tmp_path / "gray.png"])
    assert (row["width"], row["height"]) == (30, 20)


@pytest.mark.parametrize("score", [-0.1, 1.1])
def test_an_invalid_score_is_refused(finished_run, files, score):
    with pytest.raises(UserError, match=f"min_score is {score}, but must be from 0 to 1"):
        predict(finished_run, files, min_score=score)


def test_a_detector_of_boxes_finds_and_draws_boxes(box_run, files, tmp_path):
    rows = predict(box_run, files, min_score=0.0, pictures=tmp_path / "drawn")
    instances = [instance for row in rows for instance in row["instances"]]
    assert instances
    assert not any("segmentation" in instance for instance in instances)
    assert np.any(np.asarray(Image.open(rows[0]["picture"])) != np.asarray(Image.open(files[0])))


def test_classes_with_equal_names_are_kept_apart(finished_run, files, tmp_path):
    state, information, _ = read_weights(finished_run)
    save_weights(tmp_path / "model.safetensors", state, information | {"class_names": ["eye", "eye"]})
    rows = predict(tmp_path / "model.safetensors", files, min_score=0.0)
    found = {(each["label"], each["category_id"]) for row in rows for each in row["instances"]}
    assert found
    assert found <= {("eye (id 3)", 3), ("eye (id 7)", 7)}


def test_unreadable_images_do_not_stop_the_others(finished_run, files, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    rows = predict(finished_run, [files[0], tmp_path / "bad.png", files[1]], min_score=0.0)
    assert [list(row) for row in rows[1:2]] == [["file", "error"]]
    assert "bad.png is not an image" in rows[1]["error"]
    alone = predict(finished_run, [files[0], files[1]], min_score=0.0)
    assert [row["instances"][0]["bbox"] for row in (rows[0], rows[2])] == [row["instances"][0]["bbox"] for row in alone]
