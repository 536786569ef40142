import numpy as np
import pytest
from pycocotools import mask as mask_tools

from halonet.data.detection.coco_masks import (
    FAR,
    FEW_POINTS,
    LONGEST,
    decompress,
    mask_faults,
    run_lengths,
    sound_strings,
)

HEIGHT, WIDTH = 13, 17


def random_strings(number):
    generator = np.random.default_rng(0)
    masks = [(generator.random((HEIGHT, WIDTH)) < generator.random()).astype(np.uint8) for _ in range(number)]
    return [mask_tools.encode(np.asfortranarray(mask))["counts"].decode() for mask in masks]


def is_sound(string, pixels):
    """The decoder's verdict on one string."""
    try:
        return sum(decompress(string)) == pixels
    except ValueError:
        return False


@pytest.mark.parametrize("piece", [1, 100, 2**16])
def test_batch_check_equals_the_decoder(piece, monkeypatch):
    monkeypatch.setattr("halonet.data.detection.coco_masks.PIECE", piece)
    generator = np.random.default_rng(1)
    strings = random_strings(300)
    for index in range(0, 300, 2):  # damage every second one
        letters = list(strings[index])
        for _ in range(int(generator.integers(1, 4))):
            where = int(generator.integers(len(letters)))
            letters[where] = chr(int(generator.integers(40, 130)))
        strings[index] = "".join(letters[: int(generator.integers(0, len(letters) + 1))])
    strings += ["", "é", "?", "oooooooooooooooo0", "P", "0", "1" * 40]
    pixels = np.full(len(strings), HEIGHT * WIDTH)
    expected = [is_sound(string, HEIGHT * WIDTH) for string in strings]
    assert sound_strings(strings, pixels).tolist() == expected
    assert 100 < sum(expected) < 200
    assert sound_strings([], np.zeros(0, np.int64)).tolist() == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pycocotools' decoder, by NumPy
def test_polygon_run_lengths_match_pycocotools():
    polygons = [[1, 1, 9, 2, 7, 11], [10, 3, 16, 3, 16, 9, 10, 9]]
    expected = mask_tools.decode(mask_tools.merge(mask_tools.frPyObjects(polygons, HEIGHT, WIDTH)))
    counts = run_lengths(polygons, HEIGHT, WIDTH)
    assert np.array_equal(np.repeat(np.arange(len(counts)) % 2, counts).reshape(WIDTH, HEIGHT).T, expected)


def test_very_long_outline_is_refused():
    def zigzag(turns, width):
        return [[coordinate for turn in range(turns) for coordinate in (width * (turn % 2), turn / turns)]]

    turns = LONGEST // 2 // 1000
    masks = [zigzag(turns // 2, 1000), zigzag(2 * turns, 1000), [[0, 0, 5, 0, 5, 5]], [[0, 0, 5, 0]]]
    assert mask_faults(masks, [(9, 9)] * 4) == [None, FAR, None, FEW_POINTS]
    assert mask_faults(masks[::2], [(9, 9)] * 2) == [None, None]


@pytest.mark.parametrize("forms", [["polygon"], ["list"], ["string"], ["polygon", "list", "string"]])
def test_valid_masks_have_no_fault(forms):
    masks = {
        "polygon": [[1, 1, 9, 2, 7, 11]],
        "list": {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]},
        "string": {"size": [HEIGHT, WIDTH], "counts": random_strings(1)[0]},
    }
    chosen = [masks[form] for form in forms]
    assert mask_faults(chosen, [(HEIGHT, WIDTH)] * len(chosen)) == [None] * len(chosen)
    assert mask_faults([], []) == []
