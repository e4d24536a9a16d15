"""One image as it is seen: upright, RGB on white, whatever the file holds."""

from contextlib import suppress
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by the orientation in its EXIF data."""
KEY_LEVELS = {"L;2": 85, "L;4": 17}
"""Grey levels of one step in PNG files of 2 and 4 bits, whose transparent grey is given in steps."""
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF files
SEVERAL = "hold more than one image; the first of each is read"
UNKNOWN = "have damaged EXIF data; they are read as if they were upright"


def as_seen(image: Image.Image, size: int | None = None) -> tuple[np.ndarray, list[str]]:
    """Return an image as it is seen, RGB on white and upright: (3, H, W) uint8, and what has to be told of it.

    Args:
        image: of any mode, from a file or not.
        size: height and width in pixels, to which it is resized (short side) and centre-cropped; by default its own.

    Raises:
        ValueError: nothing says which of its values is white. What is damaged raises errors of all sorts.
    """
    seen, notes = on_white(coloured(image)), []
    turn, damaged = turned(image)
    if damaged:
        notes.append(UNKNOWN)
    if getattr(image, "n_frames", 1) > 1:
        notes.append(SEVERAL)
    if turn is not None:
        seen = seen.transpose(turn)
    if size is not None and seen.size != (size, size):
        seen = ImageOps.fit(seen, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(seen).transpose(2, 0, 1), notes


def turned(image: Image.Image) -> tuple[Image.Transpose | None, bool]:
    """What turns an image upright, None where it is; and whether its EXIF data are damaged, so that none can tell."""
    try:
        return UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1)), False
    except Exception:  # damaged EXIF data raise errors of all sorts
        return None, True


def on_white(image: Image.Image) -> Image.Image:
    """An image of mode L, LA, RGB or RGBA as RGB on white."""
    if image.mode == "RGB":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def coloured(image: Image.Image) -> Image.Image:
    """The image as RGB, or as RGBA where some of it may be transparent; of 16 bits the upper 8 stay.

    Colours of CMYK are those that its profile says, where it has one.

    Raises:
        ValueError: nothing says which of its values is white.
    """
    tags = getattr(image, "tag_v2", {})
    tile = getattr(image, "tile", None)  # gone once an image is loaded
    samples = tile[0][3] if tile and image.format == "PNG" else None
    image.load()
    unsigned = set(tags.get(SAMPLE_FORMAT, (1,))) == {1}
    if image.mode == "F" or not unsigned or (image.mode == "I" and image.format in ("TIFF", None)):
        raise ValueError(
            "signed, 32-bit or floating-point values, of which none is known to be white; save 8 or 16 bits"
        )
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        levels = values >> (tags.get(BITS, (16,))[0] - 8)
        if tags.get(PHOTOMETRIC) == 0:  # white is zero
            levels = 255 - levels
        levels[values == key] = 255
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if samples == "RGB;16B" and key is not None:
        raise ValueError("one of its 16-bit colours means transparent; save it with an alpha channel")
    if samples in KEY_LEVELS and key is not None:
        image.info["transparency"] = key * KEY_LEVELS[samples]
    if image.mode == "CMYK" and (profile := image.info.get("icc_profile")):
        with suppress(ImageCms.PyCMSError, OSError):  # a profile that is damaged, or of other colours
            made = ImageCms.profileToProfile(image, BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
            assert made is not None
            return made
    if not image.has_transparency_data:
        return image.convert("RGB")
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
