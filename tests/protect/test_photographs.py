"""Photographs of every kind are read as they are seen and written so that they stay that; what is none is named."""

import numpy as np
import pytest
from odd_files import BAD, FOREIGN, GOOD, exif, picture, write
from PIL import ExifTags, Image

from miue.data import photographs
from miue.data.photographs import ENDINGS, Unreadable, find, named, read
from miue.errors import InputError

MODES = {"grey.png": "L", "black and white.png": "L", "16 bits.png": "L", "16 bits.tif": "L"}
MODES |= {"grey with alpha.png": "LA", "alpha.png": "RGBA", "palette with a key.png": "RGBA"}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("orientation", ["apply", "keep"])
def test_what_is_read_and_written_looks_the_same(name, orientation, tmp_path):
    write(tmp_path, {name: GOOD[name]})
    one = read(tmp_path / name)
    assert one.picture.mode == MODES.get(name, "RGB")
    photographs.write(tmp_path / "again.png", one, orientation=orientation)
    again = read(tmp_path / "again.png")
    assert again.picture.mode == one.picture.mode and np.array_equal(np.asarray(again.picture), np.asarray(one.picture))
    assert again.turn == (one.turn if orientation == "keep" else None)
    assert again.about.get("icc_profile") == one.about.get("icc_profile")


@pytest.mark.parametrize("name", GOOD)
def test_jpeg_comes_close_and_shows_white_where_it_is_transparent(name, tmp_path):
    write(tmp_path, {name: GOOD[name]})
    one = read(tmp_path / name)
    photographs.write(tmp_path / "again.jpg", one, kind="jpeg")
    again = read(tmp_path / "again.jpg")
    assert again.picture.size == one.picture.size and not again.picture.mode.endswith("A")
    assert np.abs(again.seen(32).astype(int) - one.seen(32)).mean() < 3


@pytest.mark.parametrize(
    ("name", "reason"),
    {
        "empty.jpg": "empty",
        "text.jpg": "no image that can be read",
        "cut off.jpg": "truncated",
        "cut off.png": "truncated",
        "bomb.png": "more than 178,956,970 pixels",
        "one pixel.png": "1 x 1 pixels, too small",
        "20,000 pixels.png": "20000 x 10 pixels, too small",
        "too long.png": "2000 x 16 pixels, too long",
        "floats.tif": "floating-point values",
    }.items(),
)
def test_what_cannot_be_read_says_why(name, reason, tmp_path):
    write(tmp_path, {name: BAD[name]})
    with pytest.raises(Unreadable, match=reason):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["animated.gif", "animated.webp"])
def test_several_frames_may_be_refused(name, tmp_path):
    write(tmp_path, {name: GOOD[name]})
    assert read(tmp_path / name).notes == ("the first of 2 frames",)
    with pytest.raises(Unreadable, match="2 frames"):
        read(tmp_path / name, animated="refuse")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_as_pillow_does_or_kept(orientation, tmp_path):
    from PIL import ImageOps

    picture(1).save(tmp_path / "a.png", exif=exif(orientation))
    with Image.open(tmp_path / "a.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    one = read(tmp_path / "a.png")
    assert np.array_equal(np.asarray(one.picture), upright)
    photographs.write(tmp_path / "b.png", one, orientation="keep")
    with Image.open(tmp_path / "b.png") as image:
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == orientation
        assert np.array_equal(np.asarray(image), np.asarray(picture(1)))


def test_the_place_goes_unless_it_is_asked_for(tmp_path):
    picture(1).save(tmp_path / "a.jpg", exif=exif(place=True))
    for metadata, kept in (("strip", False), ("keep", True)):
        photographs.write(tmp_path / "b.png", read(tmp_path / "a.jpg"), metadata=metadata)
        with Image.open(tmp_path / "b.png") as image:
            found = image.getexif()
            assert bool(found.get_ifd(ExifTags.IFD.GPSInfo)) == bool(found.get(ExifTags.Base.Artist)) == kept


def test_heic_is_read_where_the_plug_in_is_there(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(picture(1)).save(tmp_path / "a.heic")
    assert np.abs(read(tmp_path / "a.heic").seen(32).astype(int) - np.asarray(read_of(picture(1)))).mean() < 5
    assert find(tmp_path).files == {tmp_path.name: ["a.heic"]}


def read_of(image):
    from miue.data.seeing import as_seen

    return as_seen(image, 32)[0]


def test_a_folder_is_listed_with_what_is_left_out(tmp_path):
    write(tmp_path / "set" / "a", {"plain.png": GOOD["plain.png"]} | FOREIGN)
    write(tmp_path / "set" / "b" / "deep" / "deeper", {"plain.jpg": GOOD["plain.jpg"]})
    write(tmp_path / "set" / "nothing", {"notes.txt": FOREIGN["notes.txt"]})
    write(tmp_path / "set", {"plain.png": GOOD["plain.png"], ".hidden.jpg": FOREIGN[".hidden.jpg"]})
    write(tmp_path / "outside", {"plain.png": GOOD["plain.png"]})
    (tmp_path / "set" / "a" / "link.png").symlink_to(tmp_path / "outside" / "plain.png")
    (tmp_path / "set" / "a" / "folder").symlink_to(tmp_path / "outside")
    (tmp_path / "set" / "c").symlink_to(tmp_path / "outside")
    found = find(tmp_path / "set")
    assert found.files == {"a": ["a/plain.png"], "b": ["b/deep/deeper/plain.jpg"]}
    assert found.left_out == {
        "hidden files or folders": 2,
        "links to files": 1,
        "links to folders": 2,
        "files beside the class folders": 1,
        "class folders without photographs": 1,
        "folders without images": 1,
        "files of the kind .txt": 2,
        "files of the kind .eps": 1,
        "files of the kind .mp4": 1,
    }
    assert find(tmp_path / "outside").files == {"outside": ["plain.png"]}


def test_a_folder_without_photographs_is_refused(tmp_path):
    write(tmp_path, {"notes.txt": FOREIGN["notes.txt"]})
    with pytest.raises(InputError, match="holds no photograph"):
        find(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        find(tmp_path / "nowhere")


def test_names_that_collide_keep_their_own_endings():
    taken = set()
    names = [named(one, "png", taken) for one in ("c/a.png", "c/a.jpg", "c/A.JPG", "c/a.jpg.png", "c/b.webp")]
    assert names == ["c/a.png", "c/a.jpg.png", "c/A.JPG-2.png", "c/a.jpg.png.png", "c/b.png"]
    assert [named(one, "jpeg", set()) for one in ("a.jpeg", "a.JPG", "a.png")] == ["a.jpeg", "a.JPG", "a.jpg"]
    assert all(name.endswith(ENDINGS["png"]) for name in names)
