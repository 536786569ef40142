import pytest

from halonet.data.classification import survey as module
from halonet.data.classification.folder import ImageFolder
from halonet.data.classification.sources import load_source
from halonet.data.classification.survey import survey
from halonet.errors import UserError
from tests.data.samples import noise_image, write_classes


def test_survey_counts_median_side_and_color(tmp_path):
    (tmp_path / "ant").mkdir()
    for number, (size, mode) in enumerate([((9, 30), "RGB"), ((50, 20), "L"), ((70, 80), "RGB")]):
        noise_image(0, size, mode).save(tmp_path / f"ant/{number}.png")
    found = survey([ImageFolder(tmp_path)], "here")
    assert (found.images, found.shorter_side, found.in_color) == (3, 20, 2)


def test_survey_decodes_sources_without_files():
    found = survey([load_source("fashion-mnist", "test")], "fashion-mnist")
    assert (found.images, found.shorter_side, found.in_color) == (100, 28, 0)


def test_survey_samples_large_sets(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 4)
    folder = write_classes(tmp_path, {"ant": 7})
    assert survey([ImageFolder(folder)], "here").images == 4


def test_unreadable_files_of_all_splits_are_named(tmp_path):
    sources = []
    for split in ("train", "val"):
        folder = write_classes(tmp_path / split, {"ant": 9})
        for number in range(3):
            (folder / f"ant/{number}.png").write_bytes(b"")
        sources.append(ImageFolder(folder))
    with pytest.raises(UserError, match=r"^6 image\(s\) of here cannot be read: .*train/ant/0\.png.*; and 1 more$"):
        survey(sources, "here")
