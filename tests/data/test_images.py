import os

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from halonet.data.images import PIXEL_LIMIT, find_images, inspect_image, open_image
from halonet.errors import UserError, UserNote
from tests.data.samples import noise_image, png_of_declared_size, write_classes


def refusal(path):
    with pytest.raises(UserError) as refused:
        open_image(path)
    message = str(refused.value)
    assert path.name in message, "the message must name the file"
    assert "\n" not in message
    return message


def test_color_image_keeps_its_pixels(tmp_path):
    noise_image(0).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(noise_image(0)))


def test_gray_image_stays_gray(tmp_path):
    noise_image(0, mode="L").save(tmp_path / "a.png")
    image = open_image(str(tmp_path / "a.png"))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), np.asarray(noise_image(0, mode="L")))


@pytest.mark.parametrize(
    ("stored", "read"), [("1", "L"), ("LA", "L"), ("RGBA", "RGB"), ("P", "RGB"), ("CMYK", "RGB"), ("YCbCr", "RGB")]
)
def test_eight_bit_modes_become_gray_or_color(tmp_path, stored, read):
    path = tmp_path / ("a.jpg" if stored in ("CMYK", "YCbCr") else "a.png")
    noise_image(0).convert(stored).save(path)
    assert open_image(path).mode == read


def test_transparent_palette_raises_no_warning(tmp_path):
    image = noise_image(0).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    assert open_image(tmp_path / "a.png").mode == "RGB"


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    noise_image(0, size=(8, 4)).save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(noise_image(0, size=(8, 4)).transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png")), upright)


def test_unreadable_exif_is_ignored(tmp_path):
    noise_image(0).save(tmp_path / "a.png", exif=b"Exif\0\0 no such thing")
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png")), np.asarray(noise_image(0)))


def test_missing_file_is_named(tmp_path):
    assert "does not exist" in refusal(tmp_path / "missing.png")


def test_folder_is_refused(tmp_path):
    (tmp_path / "folder.png").mkdir()
    assert "is not an image file" in refusal(tmp_path / "folder.png")


def test_unknown_format_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    assert "not an image that can be read" in refusal(tmp_path / "text.png")


def test_no_file_is_given_to_another_program(tmp_path, monkeypatch):
    path = tmp_path / "photo.png"
    noise_image(0, size=(8, 8)).save(path, "EPS")
    called = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *options: called.append(options))
    assert "not an image that can be read" in refusal(path)
    assert not called


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".ppm", ".tga", ".jp2"])
def test_a_file_of_another_format_is_read_if_it_is_named(tmp_path, suffix):
    path = tmp_path / f"photo{suffix}"
    noise_image(0, size=(8, 8)).save(path)
    assert open_image(path).size == (8, 8)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_truncated_image_is_refused(tmp_path, suffix):
    whole = tmp_path / f"whole{suffix}"
    noise_image(0, size=(64, 64)).save(whole)
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    refusal(cut)


def test_damaged_chunk_is_refused(tmp_path):
    noise_image(0, size=(64, 64)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[30:60] = bytes(30)
    (tmp_path / "a.png").write_bytes(data)
    refusal(tmp_path / "a.png")


@pytest.mark.parametrize("side", [9_500, 20_000])  # Pillow only warns about the first, and raises for the second
def test_decompression_bomb_is_refused(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_of_declared_size(side, side))
    message = refusal(tmp_path / "bomb.png")
    assert str(side * side) in message
    assert "Scale it down" in message


def test_pixel_limit_does_not_depend_on_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "bomb.png").write_bytes(png_of_declared_size(9_500, 9_500))
    assert f"{PIXEL_LIMIT:,}" in refusal(tmp_path / "bomb.png")


def test_extremely_long_image_is_refused(tmp_path):
    Image.new("RGB", (202, 2)).save(tmp_path / "long.png")
    assert "100 to 1" in refusal(tmp_path / "long.png")
    Image.new("RGB", (200, 2)).save(tmp_path / "allowed.png")
    assert open_image(tmp_path / "allowed.png").size == (200, 2)


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert "8 bits" in refusal(tmp_path / "deep.png")


def test_find_images_sorts_and_removes_duplicates(tmp_path):
    folder = write_classes(tmp_path / "pictures", {"b": 2, "a": 1})
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "UPPER.JPG").write_bytes(b"")
    single = tmp_path / "single.tiff"
    single.write_bytes(b"")
    with pytest.warns(UserNote, match=r"pictures: left out hidden and system files and folders \(1\)$"):
        found = find_images([single, str(folder), folder / "a" / "0.png"])
    assert found == [single, folder / "UPPER.JPG", folder / "a/0.png", folder / "b/0.png", folder / "b/1.png"]


def test_paths_without_images_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        find_images([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"holds no images \(\.bmp, \.jpeg"):
        find_images([tmp_path])
    with pytest.raises(UserError, match="no images were named"):
        find_images([])


def write_with_long_text(path, kind):
    """A PNG with two megabytes of compressed text or color profile."""
    text = PngImagePlugin.PngInfo()
    profile = None
    if kind == "zTXt":
        text.add_text("prompt", "a" * 2**21, zip=True)
    elif kind == "iTXt":
        text.add_itxt("prompt", "a" * 2**21, zip=True)
    else:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(2**21)
    noise_image(0).save(path, pnginfo=text, icc_profile=profile)


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP"])
def test_png_with_a_long_text_or_profile_is_read(tmp_path, kind):
    write_with_long_text(tmp_path / "a.png", kind)
    with pytest.raises(ValueError, match="too large"):
        Image.open(tmp_path / "a.png").load()
    assert inspect_image(tmp_path / "a.png").size == noise_image(0).size
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png")), np.asarray(noise_image(0)))


def test_truncated_png_with_a_long_text_is_refused(tmp_path):
    write_with_long_text(tmp_path / "a.png", "zTXt")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:-100])
    assert "damaged or truncated" in refusal(tmp_path / "a.png")


def test_bomb_with_a_long_text_is_refused(tmp_path):
    write_with_long_text(tmp_path / "a.png", "zTXt")
    small, bomb = (tmp_path / "a.png").read_bytes(), png_of_declared_size(20_000, 20_000)
    end_of_header = 8 + 25
    (tmp_path / "a.png").write_bytes(bomb[:end_of_header] + small[end_of_header:])
    refusal(tmp_path / "a.png")


def test_empty_file_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    assert "is empty (0 bytes)" in refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_large_image_is_scaled_down(tmp_path, suffix, orientation):
    smooth = Image.linear_gradient("L").resize((1_000, 600)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth.save(tmp_path / f"a.{suffix}", exif=exif)
    image = open_image(tmp_path / f"a.{suffix}", shorter_side=100)
    assert image.size == ((167, 100) if orientation == 1 else (100, 167))
    expected = open_image(tmp_path / f"a.{suffix}").resize(image.size, Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(expected)).max() <= 4


def test_small_image_is_not_scaled_up(tmp_path):
    noise_image(0).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png", shorter_side=100)), np.asarray(noise_image(0)))


def test_header_has_size_and_color(tmp_path):
    noise_image(0, (7, 5)).save(tmp_path / "a.png")
    noise_image(0, (5, 7), "L").save(tmp_path / "b.jpg")
    assert inspect_image(tmp_path / "a.png") == ((7, 5), True)
    assert inspect_image(tmp_path / "b.jpg") == ((5, 7), False)
    (tmp_path / "c.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"c\.png is not an image"):
        inspect_image(tmp_path / "c.png")


def test_find_images_follows_loops_once_and_skips_pipes(tmp_path):
    folder = write_classes(tmp_path / "pictures", {"b": 1, "a": 1})
    (folder / "a/up").symlink_to("..")
    (folder / "b/up").symlink_to("../a")
    os.mkfifo(folder / "pipe.png")
    with pytest.warns(UserNote, match=r"read already \(2\); pipes, sockets and devices \(1\)"):
        assert find_images([folder]) == [folder / "a/0.png", folder / "b/0.png"]


@pytest.mark.parametrize("name", ["x" * 5_000, "a\0b"])
def test_invalid_file_names_are_refused(name):
    with pytest.raises(UserError, match="cannot be the name of an image|does not exist"):
        find_images([name])
    with pytest.raises(UserError, match="does not exist"):
        open_image(name)
