"""The report of a protected copy: one page without network, and true to what was measured."""

import re
from pathlib import Path

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from odd_files import BAD, GOOD, picture, write
from typer.testing import CliRunner

from miue import audit, protect
from miue.cli import app
from miue.errors import InputError
from miue.protect import report
from miue.protect.handling import HANDLINGS, handled
from miue.protect.survival import survival

QUICK = ["--method", "lsp", "--size", "16", "--seed", "3"]


@pytest.fixture
def photos(tmp_path):
    write(tmp_path / "photos" / "a <b>", GOOD | BAD)
    for number in range(10):
        (tmp_path / "photos" / "other").mkdir(exist_ok=True)
        picture(50 + number, shape=(90, 120)).save(tmp_path / "photos" / "other" / f"{number}.png")
    return tmp_path / "photos"


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_the_page_says_what_was_measured_and_leads_nowhere(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "SEEN", 16)
    made = protect.images(photos, tmp_path / "out", method="lsp", size=16, seed=3)
    left = survival(photos, made, 16)
    found = audit.images(made.publish, photos, size=16, models=["mlp2"], recipe="quick:epochs=1", seeds=[0, 1])
    page = report.write(photos, made, left, found).read_text(encoding="utf-8")
    soup = BeautifulSoup(page, "html.parser")
    assert not re.search(r"(src|href)=[\"'](?!data:)", page) and "http" not in page
    assert len(soup.find_all("img")) == 3 * report.SHOWN and all(image["alt"] for image in soup.find_all("img"))
    text = " ".join(soup.get_text(" ").split())
    assert f"{len(made.rows)} images in 2 classes were changed by at most 8 of 255 grey levels" in text
    assert "at 16 pixels." in text and made.settings.surrogate not in text  # a formula asks no network
    assert protect.Settings(seed=3, method="em").learned and not made.settings.learned
    assert all(name in text for name in BAD) and "the first of 2 frames: 2 files" in text
    row = found.victims.iloc[0]
    assert f"{100 * row['originals']:.1f} {100 * row['learned']:.1f} ({100 * row['low']:.1f} to" in text
    assert all(handling in text for handling in left["handling"])
    assert soup.find("b") is None  # the name of a folder is text


def test_what_is_left_is_all_of_it_untouched_and_less_after_storing(photos, tmp_path):
    made = protect.images(photos, tmp_path / "out", method="em:epochs=1", size=32, seed=3)
    told = survival(photos, made, 32).set_index("handling")
    left, added = told["left"], told["added"]
    assert left["as published"] == 1 and added["as published"] == 0
    assert added["resized, then JPEG 50"] > added["resized, then JPEG 90"] > 0
    assert 1.1 > left["resized, then JPEG 90"] > left["resized, then JPEG 50"] > 0


def test_every_handling_gives_images_of_the_size_that_was_asked_for():
    image = picture(1, "RGBA", (90, 120))
    seen = {name: handled(image, name, 32) for name in HANDLINGS}
    assert {one.shape for one in seen.values()} == {(3, 32, 32)}
    plain = seen["as published"].astype(int)
    assert all(name == "as published" or (one != plain).any() for name, one in seen.items())


def test_the_command_makes_goes_on_and_verifies(photos, tmp_path):
    done = run("protect", photos, "--out", tmp_path / "out", *QUICK, "--no-victims")
    assert done.exit_code == 0, done.output
    assert f"images: {len(GOOD) + 10} protected, {len(GOOD) + 10} of them now" in done.output
    assert f"{len(BAD)} could not be read and are not in the copy" in done.output
    assert "metadata: stripped" in done.output and (tmp_path / "out" / "private" / "report.html").exists()
    again = run("protect", photos, "--out", tmp_path / "out", "--no-victims")
    assert ", 0 of them now" in again.output
    (photos / "other" / "1.png").rename(tmp_path / "1.png")
    without = run("protect", photos, "--out", tmp_path / "out", "--no-victims")
    assert without.exit_code == 0 and "1 are protected and no longer in the folder: other/1.png" in without.output
    (tmp_path / "1.png").rename(photos / "other" / "1.png")
    assert run("protect", photos, "--out", tmp_path / "out", "--verify").exit_code == 0
    (tmp_path / "out" / "publish" / "other" / "0.png").unlink()
    wrong = run("protect", photos, "--out", tmp_path / "out", "--verify")
    assert wrong.exit_code == 1 and "checked: 1 are wrong" in wrong.output


def test_a_class_whose_originals_went_stops_no_report(photos, tmp_path):
    folder = photos / "third"
    folder.mkdir()
    picture(90).save(folder / "0.png")
    run("protect", photos, "--out", tmp_path / "out", *QUICK, "--no-victims")
    (folder / "0.png").unlink()
    done = run("protect", photos, "--out", tmp_path / "out")
    assert done.exit_code == 0 and "no original is left of third" in done.output and "report: " in done.output


def test_a_manifest_that_is_no_manifest_is_named_in_one_line(photos, tmp_path):
    run("protect", photos, "--out", tmp_path / "out", *QUICK, "--no-victims")
    with (tmp_path / "out" / "private" / "manifest.jsonl").open("a") as file:
        file.write("x\n")
    for words in (["protect", photos, "--out", tmp_path / "out"], ["audit", tmp_path / "out"]):
        with pytest.raises(InputError, match=r"manifest\.jsonl has a line that is no JSON"):
            run(*words)


def test_the_command_audits_and_writes_a_record(photos, tmp_path):
    words = ["--model", "mlp2", "--recipe", "quick:epochs=1", "--size", "16", "--seeds", "1"]
    done = run("audit", photos, *words, "--out", tmp_path / "a.json")
    assert done.exit_code == 0 and "accuracy on held-out images" in done.output and "perturbed: " in done.output
    told = pd.read_json(tmp_path / "a.json", typ="series")
    assert told["record"]["held_out"] == 0.2 and len(told["victims"]) == 5


def test_the_limits_in_reports_are_those_of_the_published_records(monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(root / "benchmarks")
    monkeypatch.chdir(root)
    import protection

    before = report.measured()
    monkeypatch.setattr(protection, "write_json", lambda path, told: None)
    assert protection.limits() == before and all(limit["text"].count("%") > 1 for limit in before[:3])
