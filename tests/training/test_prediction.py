from pathlib import Path

import pytest
import torch

from halonet.data import build_transform, open_image
from halonet.errors import UserError
from halonet.training import load_checkpoint, predict
from halonet.training.evaluation import preprocessing


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


def test_as_many_guesses_as_asked_for(finished_run: Path, images: Path):
    (row,) = predict(finished_run, [images / "test" / "left" / "0.png"], top_k=1, device="cpu")
    assert len(row["top"]) == 1
    with pytest.raises(UserError, match="top_k is 0"):
        predict(finished_run, [], top_k=0)


def test_an_unreadable_image_is_named(finished_run: Path, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.png"):
        predict(finished_run, [tmp_path / "broken.png"], device="cpu")
