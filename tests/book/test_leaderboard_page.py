"""The pages made of records, in a small book: readable as they are, sorted and filtered in a browser, offline."""

import json
import re
import shutil
import subprocess

import pytest
from bs4 import BeautifulSoup

from miue.publishing import build, printing

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, printing.BROWSERS)), None)

TRIALS = [
    {"method": method, "victim": victim, "seed": 0, "test_accuracy": accuracy, "mi": 0.1, "null": 0.0, "bounded": True}
    | ({"passes": 55, "perturbation_seconds": 20.6} if method == "em" else {})
    for method, victim, accuracy in (
        ("clean", "linear", 0.9),
        ("em", "linear", 0.5),
        ("mi_ue", "linear", 0.1),
        ("clean", "mlp2", 0.95),
        ("em", "mlp2", 0.2),
    )
]
RECORD = {
    "parameters": {"preset": "quick", "recipe": "quick", "seeds": [0], "data": "digits_m"},
    "metrics": {"data": {"data": "Digits-M <b>", "n": 3000, "n_classes": 10}, "trials": TRIALS},
    "provenance": {"device": "one processor", "commit": "abc"},
    "started": "2026-03-05T10:00:00+00:00",
    "wall_seconds": 75.0,
}

PROBE = """
const errors = [];
window.addEventListener("error", (event) => errors.push(event.message));
window.addEventListener("load", async () => {
  const wait = () => new Promise((done) => setTimeout(done, 500));
  const titles = () => [...document.querySelectorAll("th .dt-column-title")].map((title) => title.textContent);
  const shown = (name) => [...document.querySelectorAll("table.miue-leaderboard tbody tr")]
    .map((row) => row.cells[titles().indexOf(name)]?.textContent);
  const press = async (name, button) => {
    document.querySelectorAll("table.miue-leaderboard th")[titles().indexOf(name)].querySelector(button).click();
    await wait();
  };
  await wait();
  const seen = { first: shown("Accuracy %") };
  await press("Accuracy %", ".dtcc-button_order");
  seen.rising = shown("Accuracy %");
  await press("Accuracy %", ".dtcc-button_order");
  seen.falling = shown("Accuracy %");
  await press("Victim", ".dtcc-button_dropdown");
  document.querySelector(".dtcc-list-buttons button[aria-label=linear]").click();
  await wait();
  seen.filtered = shown("Victim");
  const search = document.querySelector(".dt-search input");
  search.value = "MI-UE";
  search.dispatchEvent(new Event("input", { bubbles: true }));
  await wait();
  seen.found = shown("Method");
  const told = document.createElement("pre");
  told.id = "seen";
  told.textContent = JSON.stringify({ ...seen, errors });
  document.body.append(told);
});
"""


@pytest.fixture
def html(small_book):
    small_book.write(
        "_toc.yml", small_book.TOC.replace("results/index\n", "results/index\n      - file: book/results/leaderboard\n")
    )
    small_book.write("book/results/leaderboard.md", "# Leaderboard\n\n```{miue-leaderboard}\n```\n")
    small_book.write("book/results/index.md", "# Results\n\n```{miue-results}\n```\n")
    small_book.result("cifar10-small", **RECORD)
    assert not small_book.render()
    return small_book.root / "_build" / "html"


def cells(page, table):
    rows = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select(f"table{table} tr")
    heads, *bodies = [[cell.get_text(strip=True) for cell in row.select("th, td")] for row in rows]
    return [dict(zip(heads, body, strict=True)) for body in bodies]


def test_records_become_a_box_a_row_and_a_leaderboard(html):
    results = html / "book" / "results"
    rows = cells(results / "leaderboard.html", ".miue-leaderboard")
    assert [(row["Method"], row["Rank"], row["of"]) for row in rows if row["Victim"] == "linear"] == [
        ("MI-UE", "1", "2"),
        ("EM", "2", "2"),
        ("clean", "", ""),
    ]
    assert {row["Data"] for row in rows} == {"Digits-M <b>"}
    assert [(row["Passes"], row["Seconds"]) for row in rows if row["Method"] == "EM"] == 2 * [("55", "21")]
    (row,) = cells(results / "index.html", ".miue-results")
    assert (row["Scale"], row["Hardware"], row["This run"]) == ("quick", "one processor", "1 min 15 s")
    box = BeautifulSoup((results / "cifar10-small.html").read_text(), "html.parser").select_one(".miue-run").get_text()
    assert "Digits-M <b>, 3,000 training images" in box and "one processor" in box and "-p preset=quick" in box
    assert build.check(html) == []

    # The library is loaded where it is used, from the book itself, and on no other page.
    assert "dataTables.min.js" in (results / "leaderboard.html").read_text()
    assert "dataTables" not in (results / "index.html").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_leaderboard_is_sorted_and_filtered_in_a_browser(html, tmp_path):
    page = html / "book" / "results" / "leaderboard.html"
    page.write_text(page.read_text().replace("<head>", f"<head><script>{PROBE}</script>"))
    command = [CHROMIUM, "--headless", *printing.FLAGS, "--virtual-time-budget=10000", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run([*command, profile, page.as_uri()], capture_output=True, text=True, timeout=100, check=True)
    seen = json.loads(re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)[1])
    assert seen["first"] == ["10.00", "50.00", "90.00", "20.00", "95.00"]
    assert seen["rising"] == ["10.00", "20.00", "50.00", "90.00", "95.00"]
    assert seen["falling"] == seen["rising"][::-1]
    assert seen["filtered"] == 3 * ["linear"]
    assert seen["found"] == ["MI-UE"]
    assert seen["errors"] == []
