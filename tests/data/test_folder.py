import io
import tarfile

import numpy as np
import pytest

from halonet.data.folder import ImageFolder, ImageTar
from halonet.errors import UserError
from tests.data.samples import noise_image, write_classes


def pixels(source):
    return [(np.asarray(image).tolist(), label) for image, label in (source[i] for i in range(len(source)))]


def pack(path, folder, inner=()):
    with tarfile.open(path, "w") as archive:
        for entry in sorted(folder.rglob("*")):
            if entry.is_file():
                archive.add(entry, entry.relative_to(folder))
        for name, content in inner:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_images_come_with_the_label_of_their_folder(tmp_path):
    source = ImageFolder(write_classes(tmp_path, {"ant": 2, "bee": 1}))
    assert source.class_names == ["ant", "bee"]
    expected = [(np.asarray(noise_image(seed)).tolist(), label) for seed, label in enumerate([0, 0, 1])]
    assert pixels(source) == expected


def test_folders_that_are_numbers_sort_as_numbers(tmp_path):
    source = ImageFolder(write_classes(tmp_path, {str(number): 1 for number in (0, 1, 2, 9, 10, 11, 100, 999)}))
    assert source.class_names == ["0", "1", "2", "9", "10", "11", "100", "999"]
    assert [source[i][1] for i in range(len(source))] == list(range(8))


def test_names_that_sort_alike_have_one_order(tmp_path):
    names = ["00001", "0001", "001", "01", "1"]
    source = ImageFolder(write_classes(tmp_path, dict.fromkeys(names, 1)))
    assert source.class_names == names
    assert pixels(source) == [(np.asarray(noise_image(label)).tolist(), label) for label in range(5)]


def test_every_image_suffix_is_read(tmp_path):
    for suffix in (".bmp", ".JPEG", ".jpg", ".png", ".webp"):
        (tmp_path / suffix[1:]).mkdir()
        noise_image(0).save(tmp_path / suffix[1:] / f"a{suffix}")
    assert len(ImageFolder(tmp_path)) == 5


def test_hidden_folders_without_images_are_passed_over(tmp_path):
    write_classes(tmp_path, {"ant": 1})
    (tmp_path / ".git").mkdir()
    assert ImageFolder(tmp_path).class_names == ["ant"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is empty: put the images of each class into .*/CLASS"):
        ImageFolder(tmp_path)


def test_images_without_class_folders_are_refused(tmp_path):
    noise_image(0).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="holds images but no class folders"):
        ImageFolder(tmp_path)


def test_other_files_without_class_folders_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="holds no class folders"):
        ImageFolder(tmp_path)


def test_class_folders_without_images_are_named(tmp_path):
    write_classes(tmp_path, {"ant": 1, "bee": 0, "cow": 0})
    with pytest.raises(UserError, match=r"hold no images \(.*\.webp\): bee, cow$"):
        ImageFolder(tmp_path)
    with pytest.raises(UserError, match=r"hold no images \(.*\): x0, x1, x2, x3, x4 and 2 more$"):
        ImageFolder(write_classes(tmp_path / "all", {f"x{i}": 0 for i in range(7)}))


@pytest.mark.parametrize("place", ["stray.png", "ant/bee/deep.png"])
def test_images_elsewhere_than_in_a_class_folder_are_refused(tmp_path, place):
    write_classes(tmp_path, {"ant": 1, "bee": 1})
    (tmp_path / place).parent.mkdir(exist_ok=True)
    noise_image(0).save(tmp_path / place)
    with pytest.raises(UserError, match=rf"image .*{place} does not lie directly in a class folder"):
        ImageFolder(tmp_path)


def test_a_damaged_image_is_refused_and_not_replaced_by_its_neighbor(tmp_path):
    source = ImageFolder(write_classes(tmp_path, {"ant": 3}))
    (tmp_path / "ant/1.png").write_bytes((tmp_path / "ant/1.png").read_bytes()[:80])
    with pytest.raises(UserError, match=r"ant/1\.png is damaged or truncated"):
        source[1]


def test_a_tar_file_holds_the_same_data_set_as_its_folder(tmp_path):
    folder = write_classes(tmp_path / "folder", {"10": 2, "9": 1})
    source = ImageTar(pack(tmp_path / "set.tar", folder))
    assert source.class_names == ["9", "10"]
    assert pixels(source) == pixels(ImageFolder(folder))


def test_a_tar_file_of_one_tar_file_per_class_is_read(tmp_path):
    inner = []
    for label, name in enumerate(["ant", "bee"]):
        folder = tmp_path / name
        folder.mkdir()
        noise_image(label).save(folder / "0.png")
        inner.append((f"{name}.tar", pack(tmp_path / f"{name}.tar", folder).read_bytes()))
    (tmp_path / "none").mkdir()
    source = ImageTar(pack(tmp_path / "set.tar", tmp_path / "none", inner))
    assert source.class_names == ["ant", "bee"]
    assert pixels(source) == [(np.asarray(noise_image(label)).tolist(), label) for label in (0, 1)]


def test_scanning_a_tar_file_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.path.getsize", lambda path: 2**40)
    path = pack(tmp_path / "set.tar", write_classes(tmp_path / "folder", {"ant": 1}))
    ImageTar(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "set.tar"]


def test_bad_tar_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"missing\.tar does not exist"):
        ImageTar(tmp_path / "missing.tar")
    (tmp_path / "text.tar").write_text("no tar file" * 100)
    with pytest.raises(UserError, match=r"text\.tar cannot be read as an uncompressed tar file"):
        ImageTar(tmp_path / "text.tar")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"empty\.tar is empty: put the images of each class into .*/CLASS"):
        ImageTar(pack(tmp_path / "empty.tar", tmp_path / "none"))
    noise_image(0).save(tmp_path / "none/a.png")
    with pytest.raises(UserError, match=r"flat\.tar holds images but no class folders"):
        ImageTar(pack(tmp_path / "flat.tar", tmp_path / "none"))


def test_a_damaged_image_in_a_tar_file_is_named(tmp_path):
    folder = write_classes(tmp_path / "folder", {"ant": 1})
    (folder / "ant/0.png").write_bytes((folder / "ant/0.png").read_bytes()[:80])
    source = ImageTar(pack(tmp_path / "set.tar", folder))
    with pytest.raises(UserError, match=r"image ant/0\.png in .*set\.tar is damaged"):
        source[0]
