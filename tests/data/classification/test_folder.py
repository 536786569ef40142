import io
import os
import tarfile

import numpy as np
import pytest

from halonet.data.classification.folder import ImageFolder, ImageTar, class_folders
from halonet.errors import UserError, UserNote
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


def test_label_is_the_folder(tmp_path):
    source = ImageFolder(write_classes(tmp_path, {"ant": 2, "bee": 1}))
    assert source.class_names == ["ant", "bee"]
    expected = [(np.asarray(noise_image(seed)).tolist(), label) for seed, label in enumerate([0, 0, 1])]
    assert pixels(source) == expected


def test_numeric_folders_sort_as_numbers(tmp_path):
    source = ImageFolder(write_classes(tmp_path, {str(number): 1 for number in (0, 1, 2, 9, 10, 11, 100, 999)}))
    assert source.class_names == ["0", "1", "2", "9", "10", "11", "100", "999"]
    assert [source[i][1] for i in range(len(source))] == list(range(8))


def test_names_with_equal_numbers_have_a_fixed_order(tmp_path):
    names = ["00001", "0001", "001", "01", "1"]
    source = ImageFolder(write_classes(tmp_path, dict.fromkeys(names, 1)))
    assert source.class_names == names
    assert pixels(source) == [(np.asarray(noise_image(label)).tolist(), label) for label in range(5)]


def test_every_image_suffix_is_read(tmp_path):
    for suffix in (".bmp", ".JPEG", ".jpg", ".png", ".webp"):
        (tmp_path / suffix[1:]).mkdir()
        noise_image(0).save(tmp_path / suffix[1:] / f"a{suffix}")
    assert len(ImageFolder(tmp_path)) == 5


def test_hidden_folders_without_images_are_skipped(tmp_path):
    write_classes(tmp_path, {"ant": 1})
    (tmp_path / ".git").mkdir()
    assert ImageFolder(tmp_path).class_names == ["ant"]


def test_empty_folder_is_refused(tmp_path):
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
def test_misplaced_images_are_refused(tmp_path, place):
    write_classes(tmp_path, {"ant": 1, "bee": 1})
    (tmp_path / place).parent.mkdir(exist_ok=True)
    noise_image(0).save(tmp_path / place)
    with pytest.raises(UserError, match=rf"image .*{place} does not lie directly in a class folder"):
        ImageFolder(tmp_path)


def test_damaged_image_is_not_replaced_by_its_neighbor(tmp_path):
    source = ImageFolder(write_classes(tmp_path, {"ant": 3}))
    (tmp_path / "ant/1.png").write_bytes((tmp_path / "ant/1.png").read_bytes()[:80])
    with pytest.raises(UserError, match=r"ant/1\.png is damaged or truncated"):
        source[1]


def test_tar_file_equals_its_folder(tmp_path):
    folder = write_classes(tmp_path / "folder", {"10": 2, "9": 1})
    source = ImageTar(pack(tmp_path / "set.tar", folder))
    assert source.class_names == ["9", "10"]
    assert pixels(source) == pixels(ImageFolder(folder))


def test_nested_tar_files_are_read(tmp_path):
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


def test_damaged_image_in_a_tar_file_is_named(tmp_path):
    folder = write_classes(tmp_path / "folder", {"ant": 1})
    (folder / "ant/0.png").write_bytes((folder / "ant/0.png").read_bytes()[:80])
    source = ImageTar(pack(tmp_path / "set.tar", folder))
    with pytest.raises(UserError, match=r"image ant/0\.png in .*set\.tar is damaged"):
        source[0]


def write_linked_classes(folder):
    """Four classes: files, hard links, symbolic links, and only .webp and .bmp files."""
    write_classes(folder, {"file": 3, "hard": 0, "soft": 0, "webp": 0})
    for number in range(3):
        os.link(folder / f"file/{number}.png", folder / f"hard/{number}.png")
        (folder / f"soft/{number}.png").symlink_to(f"../file/{number}.png")
        noise_image(10 + number).save(folder / f"webp/{number}.{'bmp' if number else 'webp'}")
    return folder


def tar_command(path, folder):
    """Pack as `tar cf` does, keeping links."""
    with tarfile.open(path, "w") as archive:
        archive.add(folder, ".")
    return path


def test_links_in_a_tar_file_equal_those_in_its_folder(tmp_path):
    folder = write_linked_classes(tmp_path / "folder")
    source = ImageTar(tar_command(tmp_path / "set.tar", folder))
    assert source.class_names == ImageFolder(folder).class_names == ["file", "hard", "soft", "webp"]
    assert len(source) == 12
    assert pixels(source) == pixels(ImageFolder(folder))
    assert source.names == ImageFolder(folder).names


def test_tar_file_may_have_one_outer_folder(tmp_path):
    folder = write_linked_classes(tmp_path / "folder")
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(folder, "sets/mine")
    assert pixels(ImageTar(tmp_path / "set.tar")) == pixels(ImageFolder(folder))


@pytest.mark.parametrize("target", ["/etc/hostname", "../../secret.png", "gone.png", "0.png"])
def test_link_out_of_a_tar_file_is_refused(tmp_path, target):
    folder = write_classes(tmp_path / "folder", {"ant": 0})
    (folder / "ant/0.png").symlink_to(target)  # the last target is the link itself
    with pytest.raises(UserError, match=r"link ant/0\.png in .*set\.tar leads to .*: pack the files themselves"):
        ImageTar(tar_command(tmp_path / "set.tar", folder))


def test_member_outside_a_tar_file_is_refused(tmp_path):
    content = (write_classes(tmp_path / "folder", {"ant": 1}) / "ant/0.png").read_bytes()
    path = pack(tmp_path / "set.tar", tmp_path / "folder", [("../ant/1.png", content)])
    with pytest.raises(UserError, match=r"\.\./ant/1\.png in .*set\.tar would lie outside"):
        ImageTar(path)


def test_truncated_tar_file_is_refused(tmp_path):
    path = pack(tmp_path / "set.tar", write_classes(tmp_path / "folder", {"ant": 2}))
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset_data + last.size - 1])
    with pytest.raises(UserError, match=r"set\.tar (is truncated within ant/1\.png|cannot be read)"):
        ImageTar(path)


def add_what_systems_leave(folder):
    """Files that programs create: AppleDouble, notebook checkpoints, thumbnails."""
    for place in ("ant/._0.png", "ant/.ipynb_checkpoints/0-checkpoint.png", "__MACOSX/ant/._0.png", ".ipynb/a.png"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(b"no image")
    for place in (".DS_Store", "ant/Thumbs.db", "bee/desktop.ini"):
        (folder / place).write_bytes(b"")
    return folder


@pytest.mark.parametrize("container", ["folder", "tar"])
def test_hidden_and_system_files_are_counted(tmp_path, container):
    expected = pixels(ImageFolder(write_classes(tmp_path / "clean", {"ant": 2, "bee": 1})))
    folder = add_what_systems_leave(write_classes(tmp_path / "folder", {"ant": 2, "bee": 1}))
    with pytest.warns(UserNote, match=r": left out hidden and system files and folders \(4\)$"):
        source = ImageTar(tar_command(tmp_path / "a.tar", folder)) if container == "tar" else ImageFolder(folder)
    assert source.class_names == ["ant", "bee"]
    assert pixels(source) == expected


@pytest.mark.parametrize("container", ["folder", "tar"])
def test_unsupported_formats_are_counted_with_the_remedy(tmp_path, container):
    folder = write_classes(tmp_path / "folder", {"ant": 2, "bee": 1})
    for name in ("ant/2.tif", "ant/3.gif", "bee/1.JFIF", "bee/2.avif", "bee/3.gif", "bee/notes.txt"):
        (folder / name).write_bytes(b"any")
    message = (
        r"left out pictures of other formats \(1 \.avif, 2 \.gif, 1 \.jfif, 1 \.tif; convert them to \.png or \.jpg"
    )
    with pytest.warns(UserNote, match=message):
        source = ImageTar(tar_command(tmp_path / "a.tar", folder)) if container == "tar" else ImageFolder(folder)
    assert len(source) == 3


def test_class_of_an_unsupported_format_is_refused(tmp_path):
    folder = write_classes(tmp_path, {"ant": 1, "bee": 0})
    (folder / "bee/0.heic").write_bytes(b"any")
    with pytest.raises(UserError, match=r"hold no images .*: bee \(pictures of other formats \(1 \.heic; convert"):
        ImageFolder(folder)


def test_loops_of_links_are_followed_once(tmp_path):
    folder = write_classes(tmp_path / "set", {"ant": 2, "bee": 1})
    expected = pixels(ImageFolder(folder))
    (folder / "ant/up").symlink_to("..")
    (folder / "bee/up").symlink_to("../ant")
    (folder / "again").symlink_to(".")
    (folder / "self").symlink_to("self")
    with pytest.warns(UserNote, match=r"links that lead nowhere \(1\); links to folders that were read already \(3\)"):
        source = ImageFolder(folder)
    assert source.class_names == class_folders(folder) == ["ant", "bee"]
    assert pixels(source) == expected


def test_class_folder_may_be_a_link(tmp_path):
    elsewhere = write_classes(tmp_path / "elsewhere", {"cow": 1})
    folder = write_classes(tmp_path / "set", {"ant": 1})
    (folder / "bee").symlink_to(elsewhere / "cow")
    assert ImageFolder(folder).class_names == class_folders(folder) == ["ant", "bee"]
    assert len(ImageFolder(folder)) == 2


def test_pipes_and_broken_links_are_skipped(tmp_path):
    folder = write_classes(tmp_path, {"ant": 1})
    os.mkfifo(folder / "ant/pipe.png")
    (folder / "ant/gone.png").symlink_to("nowhere.png")
    with pytest.warns(UserNote, match=r"links that lead nowhere \(1\); pipes, sockets and devices \(1\)"):
        assert len(ImageFolder(folder)) == 1


def test_parent_of_the_data_folder_gets_a_hint(tmp_path):
    write_classes(tmp_path / "photos", {"ant": 1, "bee": 1})
    with pytest.raises(UserError, match=rf"or name {tmp_path}/photos as the data if the class folders lie there"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize("container", ["folder", "tar"])
def test_header_is_read_without_the_pixels(tmp_path, container):
    folder = write_classes(tmp_path / "folder", {"ant": 1})
    noise_image(1, (30, 20), "L").save(folder / "ant/1.png")
    path = folder / "ant/1.png"
    path.write_bytes(path.read_bytes()[:100])
    source = ImageTar(pack(tmp_path / "a.tar", folder)) if container == "tar" else ImageFolder(folder)
    assert source.inspect(0) == ((12, 9), True)
    assert source.inspect(1) == ((30, 20), False)
