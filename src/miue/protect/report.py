"""The report of a protected copy: one page that needs no network, with pictures, measurements and limits."""

import json
from base64 import b64encode
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from miue import seeds
from miue.data import photographs
from miue.data.images import Images
from miue.data.photographs import Photograph
from miue.data.seeing import on_white
from miue.errors import printable
from miue.poisons.measures import visibility
from miue.protect.making import Protected
from miue.storage.files import atomic

if TYPE_CHECKING:
    from miue.audit import Audit

SEEN = 64  # pixels at which copies are looked at as training would see them
SHOWN, SIDE = 4, 320  # images in the report, and the longest side of the part of each that is shown, in pixels


def write(folder: Path, made: Protected, left: pd.DataFrame, found: "Audit | None") -> Path:
    """Write `private/report.html`; return it.

    Args:
        folder: the originals, of which the page shows some: it must not be published either.
        made: the protected copy.
        left: what `miue.protect.survival.survival` measured.
        found: the audit of the copy against the originals, where it was made.

    Raises:
        Unwritable: it cannot be written.
    """
    import jinja2  # which comes with torch

    from miue.audit import COUNTERMEASURES  # which reads protected copies

    text = files("miue.protect").joinpath("report.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
    ratios = [row["psnr"] for row in made.rows if row["psnr"] is not None]
    notes: dict[str, list[str]] = {}
    for row in made.rows:
        for note in row["notes"]:
            notes.setdefault(note, []).append(row["name"])
    pairs = _pairs(folder, made)
    page = template.render(
        made=made,
        classes=sorted({row["class"] for row in made.rows}),
        psnr={"mean": mean(ratios), "least": min(ratios)} if ratios else None,
        ssim=mean(map(_structure, pairs)) if pairs else None,
        lpips=_perceived(pairs),
        looked_at=len(pairs),
        pictures=[_pictures(*pair, levels=made.settings.levels) for pair in pairs[:SHOWN]],
        left=left.to_dict("records"),
        countermeasures=COUNTERMEASURES,
        audit=None if found is None else found.to_json(),
        limits=measured(),
        notes=notes,
        printable=printable,
        seen=SEEN,
    )
    file = made.private / "report.html"
    with atomic(file) as part:
        part.write_text(page, encoding="utf-8")
    return file


def measured() -> list[dict[str, Any]]:
    """What perturbations did not hold against when we measured it: rows with `title` and `text`."""
    return json.loads(files("miue.protect").joinpath("measured.json").read_text(encoding="utf-8"))["limits"]


def _pairs(folder: Path, made: Protected) -> list[tuple[np.ndarray, np.ndarray]]:
    """The middles of some originals and of their copies, (H, W, 3) uint8 on white, no larger than `SIDE`."""
    order = torch.randperm(len(made.rows), generator=seeds.stream(1, "probe"))[: 4 * SHOWN].tolist()
    pairs = []
    for row in (made.rows[place] for place in order):
        try:
            both = [photographs.read(file) for file in (folder / row["source"], made.publish / row["name"])]
        except (photographs.Unreadable, OSError):
            continue
        one, other = (_middle(photograph) for photograph in both)
        pairs.append((one, other))
    return pairs


def _middle(photograph: Photograph) -> np.ndarray:
    picture = on_white(photograph.picture)
    height, width = min(SIDE, picture.height), min(SIDE, picture.width)
    top, left = (picture.height - height) // 2, (picture.width - width) // 2
    return np.asarray(picture)[top : top + height, left : left + width]  # pixels as they are


def _structure(pair: tuple[np.ndarray, np.ndarray]) -> float:
    """Structural similarity of two images."""
    one, other = (Images(pixels[None], [0], layout="nhwc") for pixels in pair)
    return float(visibility(one, other)["ssim"] or 0)


def _perceived(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Mean LPIPS, where the package `lpips` and the weights that it wants lie on this machine; else None."""
    from miue.models.vision import local_weights  # seconds to import

    if not pairs or "squeezenet1_1" not in local_weights():
        return None
    try:
        import lpips
    except ImportError:
        return None
    distance = lpips.LPIPS(net="squeeze", verbose=False)
    scaled = [[torch.from_numpy(x).permute(2, 0, 1)[None] / 127.5 - 1 for x in pair] for pair in pairs]
    with torch.no_grad():
        return mean(float(distance(*pair)) for pair in scaled)


def _pictures(one: np.ndarray, other: np.ndarray, levels: int) -> dict[str, str]:
    """Before, after, and what was added, on grey, so that the budget is the whole range; as PNG in text."""
    added = 127.5 + (other.astype(np.float32) - one) * 127 / levels
    named = {"before": one, "after": other, "added": added.clip(0, 255).astype(np.uint8)}
    return {name: _text(pixels) for name, pixels in named.items()}


def _text(pixels: np.ndarray) -> str:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()
