"""What a file of any format and mode looks like once it is read, and what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

import miue
from miue.data.decoding import _image
from miue.errors import InputError
from miue.storage.files import cache_dir

RAMP = np.tile(np.arange(8, dtype=np.uint8) * 32, (8, 1))
GREY, DEEP = Image.fromarray(RAMP), Image.fromarray(RAMP.astype(np.uint16) * 257)


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(depth, colour, row, *chunks):
    """A PNG file of 8 x 8 pixels whose rows are all `row`."""
    header = struct.pack(">IIBBBBB", 8, 8, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress((b"\0" + row) * 8)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tagged(image, **tags):
    """A TIFF file with tags of one's own."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in tags.items():
        info[int(number.removeprefix("t"))] = value
    return encoded(image, "TIFF", tiffinfo=info)


@pytest.fixture
def read(tmp_path):
    """Decode the bytes of a file to (8, 8, 3) levels and the notes on it."""

    def decode(content):
        (tmp_path / "image").write_bytes(content)
        pixels, notes = _image(tmp_path / "image", 8)
        assert pixels.dtype == np.uint8
        return pixels.transpose(1, 2, 0).astype(int), notes

    return decode


def lab():
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    return ImageCms.applyTransform(GREY.convert("RGB"), to_lab)


RAMPS = {
    "8-bit grey JPEG": encoded(GREY, "JPEG", quality=100),
    "CMYK JPEG": encoded(GREY.convert("CMYK"), "JPEG", quality=100),
    "colour WebP": encoded(GREY.convert("RGB"), "WEBP", lossless=True),
    "grey BMP": encoded(GREY, "BMP"),
    "16-bit grey PNG": encoded(DEEP, "PNG"),
    "16-bit colour PNG": png(16, 2, np.repeat(RAMP[0], 6).tobytes()),
    "opaque grey PNG": encoded(GREY.convert("LA"), "PNG"),
    "palette PNG": encoded(GREY.convert("P"), "PNG"),
    "16-bit PGM": encoded(DEEP, "PPM"),
    "10-bit PGM": b"P2 8 8 1020\n" + " ".join(str(4 * v) for v in RAMP.ravel().tolist()).encode(),
    "16-bit TIFF": encoded(DEEP, "TIFF"),
    "16-bit TIFF, most significant byte first": encoded(
        Image.frombytes("I;16B", (8, 8), (RAMP.astype(np.uint16) * 257).astype(">u2").tobytes()), "TIFF"
    ),
    "16-bit TIFF whose zero is white": tagged(Image.fromarray(np.uint16(65535) - RAMP.astype(np.uint16) * 257), t262=0),
    "palette and alpha TIFF": encoded(GREY.convert("PA"), "TIFF"),
    "CMYK TIFF": encoded(GREY.convert("CMYK"), "TIFF"),
    "YCbCr TIFF": encoded(GREY.convert("YCbCr"), "TIFF"),
    "LAB TIFF": encoded(lab(), "TIFF"),
}


@pytest.mark.parametrize("content", RAMPS.values(), ids=RAMPS)
def test_a_grey_ramp_looks_alike_in_every_format_and_mode(content, read):
    pixels, notes = read(content)
    assert np.abs(pixels - RAMP[:, :, None]).max() <= 2 and not notes


CLEAR = Image.fromarray(np.dstack([np.full((8, 8, 3), 9, np.uint8), np.full((8, 8), 0, np.uint8)]))
CLEAR_PALETTE = GREY.convert("P").convert("PA")
CLEAR_PALETTE.putalpha(0)
KEY = (b"tRNS", b"\0\x02")
TRANSPARENT = {
    "PNG": encoded(CLEAR, "PNG"),
    "WebP": encoded(CLEAR, "WEBP", lossless=True, exact=True),
    "TIFF": encoded(CLEAR, "TIFF"),
    "grey PNG": encoded(CLEAR.convert("LA"), "PNG"),
    "16-bit PNG": png(16, 6, b"\x09\0\x09\0\x09\0\0\0" * 8),
    "palette PNG": png(8, 3, b"\0" * 8, (b"PLTE", b"\x09\x09\x09"), (b"tRNS", b"\0")),
    "PNG with a transparent colour": png(8, 2, b"\1\2\3" * 8, (b"tRNS", b"\0\1\0\2\0\3")),
    "1-bit PNG with a transparent grey": png(1, 0, b"\0", (b"tRNS", b"\0\0")),
    "2-bit PNG with a transparent grey": png(2, 0, b"\xaa\xaa", KEY),
    "4-bit PNG with a transparent grey": png(4, 0, b"\x22" * 4, KEY),
    "8-bit PNG with a transparent grey": png(8, 0, b"\x02" * 8, KEY),
    "16-bit PNG with a transparent grey": png(16, 0, b"\0\x02" * 8, KEY),
    "palette and alpha TIFF": encoded(CLEAR_PALETTE, "TIFF"),
}


@pytest.mark.parametrize("content", TRANSPARENT.values(), ids=TRANSPARENT)
def test_what_is_transparent_shows_white_and_not_the_colour_below(content, read):
    assert (read(content)[0] == 255).all()


def test_what_is_half_transparent_lets_half_the_white_through(read):
    half = Image.new("RGBA", (8, 8), (200, 100, 0, 128))
    assert np.abs(read(encoded(half, "PNG"))[0] - (227, 177, 127)).max() <= 1


NO_WHITE = {
    "floating-point TIFF": encoded(GREY.convert("F"), "TIFF"),
    "PFM": encoded(GREY.convert("F"), "PPM"),
    "32-bit TIFF": encoded(GREY.convert("I"), "TIFF"),
    "signed TIFF": tagged(GREY, t339=2),
}


@pytest.mark.parametrize("content", NO_WHITE.values(), ids=NO_WHITE)
def test_values_without_a_known_white_are_refused(content, read):
    with pytest.raises(InputError, match=r"image cannot be read as an image \(.*none is known to be white"):
        read(content)


def test_a_transparent_colour_of_16_bits_is_refused(read):
    with pytest.raises(InputError, match="save it with an alpha channel"):
        read(png(16, 2, b"\1\2\3\4\5\6" * 8, (b"tRNS", b"\1\2\3\4\5\6")))


def exif(*entries):
    """EXIF data of (tag, type, four bytes of value)."""
    packed = b"".join(struct.pack("<HHI4s", tag, kind, 1, value) for tag, kind, value in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4)


QUARTER = (274, 3, b"\6\0\0\0")
BROKEN = {
    "a negative count": (258, 8, b"\xff\xff\0\0"),
    "a negative place": (0x8825, 8, b"\xff\xff\0\0"),
    "text for a number": (282, 2, b"abc\0"),
    "nothing amiss": (282, 4, b"\1\0\0\0"),
}


@pytest.mark.parametrize("entry", BROKEN.values(), ids=BROKEN)
def test_a_broken_tag_beside_the_orientation_does_no_harm(entry, read):
    turned, _ = read(encoded(GREY, "JPEG", quality=100, exif=exif(QUARTER, entry)))
    assert np.abs(turned[:, :, 0] - np.rot90(RAMP, -1)).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_turned_upright_once(kind, read):
    about = Image.Exif()
    about[274] = 6
    turned, _ = read(encoded(GREY, kind, exif=about))
    assert np.abs(turned[:, :, 0] - np.rot90(RAMP, -1)).max() <= 8


def test_an_unreadable_orientation_is_told_of(read, monkeypatch):
    def damaged(self):
        raise struct.error("unpack requires a buffer of 2 bytes")

    monkeypatch.setattr(Image.Image, "getexif", damaged)
    pixels, notes = read(encoded(GREY, "PNG"))
    assert (pixels[:, :, 0] == RAMP).all() and "damaged EXIF data" in notes[0]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "MPO"])
def test_the_first_of_several_images_is_read_and_that_is_told(kind, read):
    red, green = (Image.new("RGB", (8, 8), colour) for colour in ("red", "lime"))
    pixels, notes = read(encoded(red, kind, save_all=True, append_images=[green]))
    assert np.abs(pixels - (255, 0, 0)).max() <= 2 and "more than one image" in notes[0]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF"])
def test_damaged_files_are_refused_in_one_line_or_read(kind, read):
    rng = np.random.default_rng(0)
    whole = encoded(GREY.resize((40, 40)), kind)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(min(len(whole), 400), size=3):
            damaged[place] = rng.integers(256)
        try:
            assert read(damaged)[0].shape == (8, 8, 3)
        except InputError as error:
            assert "image cannot be read as an image (" in str(error) and "\n" not in str(error)
    with pytest.raises(InputError, match="image cannot be read as an image"):
        read(whole[: len(whole) // 2])


def test_what_bears_on_pixels_is_counted_for_the_whole_set(image_folder, capsys):
    pair = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    for name in ("cats", "dogs"):
        pair[0].save(image_folder / "train" / name / "pair.png", save_all=True, append_images=pair[1:])
    miue.load(f"folder:{image_folder}", size=16)
    assert "pets, 16 px: 2 of the files hold more than one image; the first of each is read" in capsys.readouterr().err


def test_images_that_were_decoded_otherwise_are_decoded_anew(image_folder, monkeypatch):
    before, _ = miue.load(f"folder:{image_folder}", size=16)
    kept = set((cache_dir() / "images").glob("*.npy"))
    monkeypatch.setattr("miue.data.decoding.DECODING", 0)
    again, _ = miue.load(f"folder:{image_folder}", size=16)
    assert again.content_hash == before.content_hash
    assert len(set((cache_dir() / "images").glob("*.npy")) - kept) == len(kept)
