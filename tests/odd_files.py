"""Thirty files such as lie in real folders, good and bad, for whatever reads somebody's own images."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms

SHAPE = 48, 64  # height and width of most of them


def pixels(seed=0, bands=3, shape=SHAPE):
    """Smooth colours, (H, W, bands) uint8."""
    coarse = np.random.default_rng(seed).integers(40, 216, (4, 5, bands), dtype=np.uint8)
    layers = [Image.fromarray(coarse[..., band]).resize(shape[::-1]) for band in range(bands)]
    return np.stack([np.asarray(layer) for layer in layers], -1)


def picture(seed=0, mode="RGB", shape=SHAPE):
    return Image.fromarray(pixels(seed, shape=shape)).convert(mode)


def exif(orientation=None, place=False):
    made = Image.Exif()
    made[ExifTags.Base.Artist] = "somebody"
    if orientation:
        made[ExifTags.Base.Orientation] = orientation
    if place:
        made.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
        made[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (52.0, 31.0, 0.0)}
    return made


def png_header(width, height):
    """A PNG that says to be of any size, and holds nothing of it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


GOOD = {
    "plain.jpg": lambda at: picture(1).save(at, quality=95),
    "plain.png": lambda at: picture(2).save(at),
    "BIG ENDING.JPG": lambda at: picture(3).save(at, "JPEG"),
    "ein Bild, schön & groß.png": lambda at: picture(4).save(at),
    "写真.webp": lambda at: picture(5).save(at, lossless=True),
    "صورة.bmp": lambda at: picture(6).save(at),
    "turned.jpg": lambda at: picture(7).save(at, exif=exif(6), quality=95),
    "mirrored.jpg": lambda at: picture(8).save(at, exif=exif(5), quality=95),
    "somewhere.jpg": lambda at: picture(9).save(at, exif=exif(place=True)),
    "grey.png": lambda at: picture(10, "L").save(at),
    "grey with alpha.png": lambda at: Image.merge("LA", (picture(11, "L"), picture(12, "L"))).save(at),
    "alpha.png": lambda at: Image.merge("RGBA", (*picture(13).split(), picture(14, "L"))).save(at),
    "palette.gif": lambda at: picture(15).quantize(32).save(at),
    "palette with a key.png": lambda at: picture(16).quantize(8).save(at, transparency=3),
    "black and white.png": lambda at: picture(17, "1").save(at),
    "16 bits.png": lambda at: Image.fromarray(pixels(18, 1)[..., 0].astype(np.uint16) * 257).save(at),
    "16 bits.tif": lambda at: Image.fromarray(pixels(19, 1)[..., 0].astype(np.uint16) * 257).save(at),
    "cmyk.jpg": lambda at: picture(20, "CMYK").save(at, quality=95),
    "cmyk.tif": lambda at: picture(21, "CMYK").save(at),
    "animated.gif": lambda at: picture(22).save(at, save_all=True, append_images=[picture(23)], duration=40),
    "animated.webp": lambda at: picture(24).save(at, save_all=True, append_images=[picture(25)], lossless=True),
    "progressive.jpg": lambda at: picture(26).save(at, progressive=True),
    "profile.png": lambda at: picture(27).save(
        at, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ),
    "long.png": lambda at: picture(28, shape=(20, 900)).save(at),
    "new.avif": lambda at: picture(37).save(at, quality=95),
    "with a preview.jpg": lambda at: picture(38).save(at, "MPO", save_all=True, append_images=[picture(39)]),
    "jpeg inside.png": lambda at: picture(29).save(at, "JPEG"),
}
BAD = {
    "empty.jpg": lambda at: at.write_bytes(b""),
    "text.jpg": lambda at: at.write_bytes(b"<html>not found</html>"),
    "cut off.jpg": lambda at: (picture(30).save(at, quality=95), os.truncate(at, at.stat().st_size // 2)),
    "cut off.png": lambda at: (picture(31).save(at), os.truncate(at, at.stat().st_size // 2)),
    "bomb.png": lambda at: at.write_bytes(png_header(30_000, 30_000)),
    "one pixel.png": lambda at: picture(32, shape=(1, 1)).save(at),
    "20,000 pixels.png": lambda at: picture(33, shape=(10, 20_000)).save(at),
    "too long.png": lambda at: picture(34, shape=(16, 2_000)).save(at),
    "floats.tif": lambda at: Image.fromarray(pixels(35, 1)[..., 0].astype(np.float32)).save(at),
}
FOREIGN = {
    ".hidden.jpg": lambda at: picture(36).save(at),
    "notes.txt": lambda at: at.write_text("about these images"),
    "drawing.eps": lambda at: at.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    "film.mp4": lambda at: at.write_bytes(b"\0" * 64),
}


def write(folder: Path, files=None):
    """Write the files (all by default) into a folder; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in (GOOD | BAD | FOREIGN if files is None else files).items():
        make(folder / name)
    return folder
