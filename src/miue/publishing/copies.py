"""Copies of the book to take away: a PDF, and a zip of the pages, which need neither server nor network."""

import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from miue import progress
from miue.errors import InputError
from miue.publishing import printing
from miue.storage import files

PDF, ZIP = "miue.pdf", "miue-book.zip"
NAMES = {PDF: "the whole book as a PDF", ZIP: "all pages as a zip, to read offline"}
OFFER = re.compile(r'<p class="miue-copies">.*?</p>')


def make(html: Path, *, pdf: bool, archive: bool) -> list[Path]:
    """Make copies beside the folder of the rendered book, and link them on its first page, which links no others.

    Args:
        html: the folder of the rendered book; those of the copies that are made lie in it, too.
        pdf: whether to make `miue.pdf`.
        archive: whether to make `miue-book.zip`; open its `index.html`.

    Returns:
        The paths of the copies beside `html`.

    Raises:
        InputError: there is no rendered book, or no Chromium for the PDF.
        RuntimeError: the PDF could not be printed.
    """
    if not (html / printing.HOME).is_file():
        raise InputError(f"html: {html} holds no {printing.HOME}; build the book first")
    offer(html, [])
    made = []
    if archive:
        made.append(html.parent / ZIP)
        pack(html, made[-1])
    if pdf:
        made.append(html.parent / PDF)
        progress.say("pdf: printing all pages takes a minute or more")
        printing.write(html, made[-1])
    offer(html, made)
    return made


def pack(html: Path, out: Path) -> None:
    """Write all files under `html` into a zip, in the folder `miue-book`."""
    with files.atomic(out) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(file for file in html.rglob("*") if file.is_file()):
            archive.write(file, Path("miue-book") / file.relative_to(html))


def offer(html: Path, copies: Sequence[Path]) -> None:
    """Lay copies into the folder of the book and link them under the title of its first page, in place of others."""
    for name in NAMES:
        (html / name).unlink(missing_ok=True)
    links = []
    for copy in copies:
        shutil.copyfile(copy, html / copy.name)
        megabytes = f"{copy.stat().st_size / 1e6:.0f} MB"
        links.append(f'<a class="reference" href="../{copy.name}">{NAMES[copy.name]}</a> ({megabytes})')
    home = html / printing.HOME
    text = OFFER.sub("", home.read_text(encoding="utf-8"))
    if links:
        title = text.index("</h1>", text.index("<article")) + len("</h1>")
        text = f'{text[:title]}<p class="miue-copies">To take away: {", ".join(links)}.</p>{text[title:]}'
    with files.atomic(home) as part:
        part.write_text(text, encoding="utf-8")
