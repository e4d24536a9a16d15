"""Numbers in sentences: taken from records, refused where they say something else, and never written by hand."""

import base64
import re
from functools import cache
from pathlib import Path

import pytest
from nbformat import v4

from miue.errors import InputError
from miue.publishing import leaderboard, quoting, summary
from miue.publishing.extension import findings
from miue.runs.run_folder import read_object

ROOT = Path(__file__).parents[2]
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'


def record(rows, **more):
    data = {"data": "Digits-M", "n": 300, "n_test": 100, "n_classes": 4, "content_hash": "x", "shape": [3, 32, 32]}
    common = {"victim": "small_resnet", "surrogate": "small_resnet", "epsilon": "8/255", "twin": "none"}
    trials = [{**common, "victim_steps": 9, **row} for row in rows]
    given = {"preset": "quick", "recipe": "quick"}
    return {"state": "done", "parameters": given, "metrics": {"data": data, "trials": trials, **more}}


def row(method, seed, victim_seed, accuracy, **more):
    return {"method": method, "seed": seed, "victim_seed": victim_seed, "test_accuracy": accuracy, **more}


@pytest.fixture
def table():
    rows = [row("clean", n, victim, 0.8 + victim / 100, mi=n + 1, ceiling=4) for n in (0, 1) for victim in (0, 1)]
    rows += [row("em", 0, 0, 0.10, mi=0.05, ceiling=0.2), row("em", 0, 1, 0.12, mi=0.07), row("em", 1, 0, 0.2)]
    rows += [row("mi_ue", 0, 0, 0.2), row("mi_ue", 0, 1, 0.24), row("mi_ue", 1, 0, 0.33, surrogate="lenet5")]
    rows += [row("em", 0, 0, 0.5, defense="grayscale"), row("em", 0, 0, 0.3, victim="mlp2")]
    return leaderboard.trials({"page": record(rows)})


@pytest.mark.parametrize(
    ("words", "text", "source"),
    [
        ("clean", "80.5 %", "clean, 2 victims"),  # one of each seed, whatever perturbations stand beside them
        ("clean, mi", "1.500 nats", "clean, 2 victims in 4 trials"),  # measured anew with each seed
        ("em, victim=small_resnet, share", "25 %", "EM, 1 victim"),
        ("em, victim=small_resnet", "14.0 %", "EM, 3 victims"),
        ("em, victim=small_resnet, whole", "14.0 % (10.0 to 20.0)", "EM, 3 victims"),
        ("em, victim=small_resnet, range, seed=0", "10.0 to 12.0 %", "EM, 2 victims"),
        ("em, victim=mlp2, whole", "30.0 %", "EM, 1 victim"),
        ("em, defense=grayscale", "50.0 %", "EM, 1 victim"),
        ("em, victim=small_resnet, mi", "0.060 nats", "EM, 2 victims"),
        ("em, victim=small_resnet, mi, whole", "0.060 nats (0.050 to 0.070)", "EM, 2 victims"),
        (
            "mi_ue ~ em, victim=small_resnet, seed=0",
            "+11.0 points (\N{MINUS SIGN}1.7 to +23.7)",
            "MI-UE \N{MINUS SIGN} EM, 2 pairs, 95 % interval of the mean",
        ),
        (
            "mi_ue ~ clean, surrogate=lenet5",
            "\N{MINUS SIGN}47.0 points",
            "MI-UE \N{MINUS SIGN} clean, 1 pair",
        ),
    ],
)
def test_a_number_and_what_it_sums_up(table, words, text, source):
    assert quoting.quote(table, words) == quoting.Quote(text, source)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("tap", "no trial is 'tap'"),
        ("em", "several values of victim: mlp2, small_resnet"),
        ("mi_ue", "several values of surrogate: lenet5, small_resnet"),
        ("mi_ue, psnr, surrogate=lenet5", "has psnr"),
        ("clean, colour", "measure: 'colour' does not exist"),
        ("clean, colour=red", "field: 'colour' does not exist"),
        ("em ~ em:mine=1, victim=mlp2", "no two trials"),
    ],
)
def test_what_no_record_says_is_refused(table, words, reason):
    with pytest.raises(InputError, match=reason):
        quoting.quote(table, words)


def test_what_the_paper_reports():
    assert quoting.reported("em").text == "24.17 %" and quoting.reported("mi_ue, dataset=cifar100").text == "1.17 %"
    with pytest.raises(InputError, match="the paper has no accuracy"):
        quoting.reported("em, victim=mlp9")
    with pytest.raises(InputError, match="field"):
        quoting.reported("em, network=mlp2")


ROLE = re.compile(r"\{(measured|reported)\}`([^`]*)`")
SOURCES = sorted(path for path in (ROOT / "book").rglob("*.md") if "{measured}" in path.read_text(encoding="utf-8"))


@cache
def published(page):
    found = read_object(ROOT / "book" / "results" / f"{page}.json")
    assert found, page
    return leaderboard.trials({page: found})


def quoted(text):
    """Every number of a source that comes from a record, with the page of its card."""
    for card in findings.WRITTEN.finditer(text):
        for role, words in ROLE.findall(card["text"]):
            yield role, words if ": " in words else f"{card['page']}: {words}"
    for role, words in ROLE.findall(findings.WRITTEN.sub("", text)):
        yield role, words


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_number_in_the_book_is_found_in_its_record(path):
    for role, words in quoted(path.read_text(encoding="utf-8")):
        page, _, asked = words.rpartition(": ")
        assert quoting.reported(asked) if role == "reported" else quoting.quote(published(page), asked)


def test_no_hand_wrote_a_measurement_on_the_page_of_results():
    text = (ROOT / "book" / "results" / "index.md").read_text(encoding="utf-8")
    by_hand = re.findall(r"[^ ]*\d[^ ]*(?: to [\d.]+)? (?:%|nats|points|dB)", ROLE.sub("", text))
    assert by_hand == []


def test_every_page_has_its_card_with_a_title_of_its_own():
    text = (ROOT / "book" / "results" / "index.md").read_text(encoding="utf-8")
    pages = [path.stem for path in (ROOT / "book" / "results").glob("*.json")]
    cards = list(findings.WRITTEN.finditer(text))
    assert sorted(card["page"] for card in cards) == sorted(pages)
    titles = [re.findall(r"^:title: (.+)$", card["options"], re.MULTILINE) for card in cards]
    assert all(len(own) == 1 for own in titles) and len({own[0] for own in titles}) == len(pages)


@pytest.mark.slow
def test_a_card_shows_figure_numbers_and_facts(small_book):
    def drawn(cell):
        cell.outputs = [v4.new_output("display_data", data={"image/svg+xml": SVG})]
        cell.metadata["mystnb"] = {"image": {"alt": "Bars"}, "figure": {"name": "fig-bars", "caption": "Bars."}}

    told = record([row("clean", 0, 0, 0.83), row("em", 0, 0, 0.12)])
    small_book.result("cifar10-small", drawn, **told)
    told_of = "EM leaves {measured}`em` of {measured}`clean`."
    text = (
        f"# Results\n\n:::{{miue-finding}} cifar10-small\n:title: EM, measured\n:figure: fig-bars\n\n{told_of}\n:::\n\n"
    )
    text += "The paper says {reported}`em`, we {measured}`cifar10-small: em`.\n"
    small_book.write("book/results/index.md", text)
    assert small_book.render() == 0
    page = small_book.page("book/results/index")
    assert page.count(">12.0 %</abbr>") == 2 and ">83.0 %</abbr>" in page
    assert 'title="cifar10-small: EM, 1 victim"' in page and ">24.17 %</abbr>" in page
    assert (
        re.search(r'<img alt="Bars" loading="lazy" src="[^"]*cifar10-small.svg"', page) and summary.brief(told) in page
    )
    assert list((small_book.root / "_build" / "html" / "_images").glob("cifar10-small.svg"))

    assert page.count(">EM, measured<") >= 1

    # The title, the sentences and the figure lead their page too, and change there as well.
    own = small_book.page("book/results/cifar10-small")
    assert "<h1>EM, measured<" in own
    assert "EM leaves" in own and own.index("cifar10-small.svg") < own.index("miue-run")
    small_book.write("book/results/index.md", text.replace("EM leaves", "EM keeps"))
    assert small_book.render() == 0 and "EM keeps" in small_book.page("book/results/cifar10-small")

    small_book.write("book/results/index.md", text.replace("`em`", "`tap`"))
    assert small_book.render() != 0


def test_the_figure_of_a_card_is_the_first_or_the_named_one(small_book):
    def drawn(cell):
        dot = v4.new_output("display_data", data={"image/png": base64.b64encode(b"dot").decode()})
        line = v4.new_output("display_data", data={"image/svg+xml": SVG, "image/png": "AAAA"})
        cell.outputs = [v4.new_output("stream", text="x"), line, dot]
        cell.metadata["mystnb"] = {"figure": {"name": "fig-line"}}

    page = small_book.result("cifar10-small", drawn)
    assert findings.first_figure(page) == findings.first_figure(page, "fig-line") == ("svg", SVG.encode(), "")
    assert findings.first_figure(page, "fig-dot") is None
    small_book.result("cifar10-small", lambda cell: (drawn(cell), cell.outputs.pop(1)))
    assert findings.first_figure(page) == ("png", b"dot", "")
