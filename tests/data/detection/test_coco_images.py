import json

import pytest

from halonet.data.detection.coco import CocoImages
from halonet.errors import UserError
from tests.data.detection.coco_samples import HEIGHT, WIDTH, content_of, image_entry, instance, write_coco
from tests.data.samples import noise_image


@pytest.mark.parametrize(
    "name",
    ["../x.png", "a/../../x.png", "..", "/etc/hostname", "C:\\x.png", "c:x.png", "..\\x.png", "\\x.png", "a\0.png", ""],
)
def test_file_name_must_stay_in_the_image_folder(tmp_path, name):
    (tmp_path / "x.png").write_bytes(b"secret")
    content = content_of([instance(1, 1)])
    write_coco(tmp_path, content)
    content["images"][0]["file_name"] = name
    file = tmp_path / "annotations/instances_train2017.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="image 1 has the file_name .* must lead to a file below the images' folder"):
        CocoImages(file, tmp_path / "train2017")


def test_link_to_itself_is_a_missing_image(tmp_path):
    content = content_of([instance(1, 1)], num_images=2)
    folder = write_coco(tmp_path, content) / "train2017"
    (folder / "2.png").unlink()
    (folder / "2.png").symlink_to("2.png")
    with pytest.raises(UserError, match=r"1 of 2 images .* are missing in .*, the first being '2.png'"):
        CocoImages(tmp_path / "annotations/instances_train2017.json", folder)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_links_out_of_the_image_folder_are_refused(tmp_path, linked):
    content = content_of([instance(1, 1)], images=[image_entry(1, file_name="inner/1.png")])
    write_coco(tmp_path, content)
    file, folder, outside = tmp_path / "annotations/instances_train2017.json", tmp_path / "train2017", tmp_path / "out"
    for place in (outside, folder / "real"):
        place.mkdir()
        noise_image(1, (WIDTH, HEIGHT)).save(place / "1.png")
    if linked == "file":
        (folder / "inner").mkdir()
        (folder / "inner/1.png").symlink_to(outside / "1.png")
    else:
        (folder / "inner").symlink_to(outside)
    with pytest.raises(UserError, match="image 1 .* a link that leads out of .*train2017"):
        CocoImages(file, folder)
    # The images' folder itself may be a link, and so may what stays within it.
    (tmp_path / "linked").symlink_to(folder)
    inner = folder / "inner"
    if linked == "file":
        (inner / "1.png").unlink()
        (inner / "1.png").symlink_to(folder / "real/1.png")
    else:
        inner.unlink()
        inner.symlink_to(folder / "real")
    assert len(CocoImages(file, tmp_path / "linked")[0][1]["boxes"]) == 1


def test_missing_images_are_counted_and_the_first_named(tmp_path):
    content = content_of([], num_images=4)
    write_coco(tmp_path, content)
    for number in (2, 3):
        (tmp_path / f"train2017/{number}.png").unlink()
    file = tmp_path / "annotations/instances_train2017.json"
    with pytest.raises(UserError, match=r"2 of 4 images of .* are missing in .*train2017, the first being '2\.png'"):
        CocoImages(file, tmp_path / "train2017")
    with pytest.raises(UserError, match=r"image folder .*nowhere of .*json does not exist"):
        CocoImages(file, tmp_path / "nowhere")


def test_file_name_may_contain_a_subfolder(tmp_path):
    write_coco(tmp_path, content_of([instance(1, 1)]))
    content = content_of([instance(1, 1)], images=[image_entry(1, file_name="train2017/1.png")])
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(content))
    assert len(CocoImages(tmp_path / "annotations/instances_train2017.json", tmp_path)[0][1]["boxes"]) == 1
