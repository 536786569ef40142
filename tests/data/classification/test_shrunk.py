import numpy as np
from PIL import Image

from halonet.data.classification.folder import ImageFolder
from halonet.data.classification.image_source import labels_of, names_of
from halonet.data.classification.shrunk import ShrunkImages
from halonet.data.images import open_image
from tests.data.samples import noise_image


def write_large(folder, count=3):
    (folder / "ant").mkdir(parents=True)
    for number in range(count):
        noise_image(number, (60, 40)).save(folder / f"ant/{number}.png")
    return ImageFolder(folder)


def test_images_are_scaled_down_and_keep_their_metadata(tmp_path):
    source = write_large(tmp_path)
    shrunk = ShrunkImages(source, 20)
    assert [image.size for image, _ in map(shrunk.__getitem__, range(3))] == [(30, 20)] * 3
    assert (shrunk.class_names, labels_of(shrunk), names_of(shrunk)) == (["ant"], source.labels, source.names)
    assert shrunk.inspect(0).size == (60, 40)


def test_images_are_read_once_within_memory(tmp_path):
    shrunk = ShrunkImages(write_large(tmp_path), 20, memory=2 * 30 * 20 * 3)
    before = [np.asarray(shrunk[index][0]) for index in range(3)]
    for number in range(3):
        Image.new("RGB", (60, 40)).save(tmp_path / f"ant/{number}.png")
    assert np.array_equal(np.asarray(shrunk[0][0]), before[0])
    assert np.array_equal(np.asarray(shrunk[1][0]), before[1])
    assert not np.asarray(shrunk[2][0]).any()


def test_memory_changes_no_pixel(tmp_path):
    source = write_large(tmp_path)
    for memory in (0, 2**20):
        shrunk = ShrunkImages(source, 20, memory)
        for _ in range(2):
            assert np.array_equal(np.asarray(shrunk[1][0]), np.asarray(open_image(tmp_path / "ant/1.png", 20)))
