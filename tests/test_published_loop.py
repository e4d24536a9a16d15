"""The literal implementation that the package is timed against does what the package does."""

from pathlib import Path

import pytest
import torch
from samples import some_images

from miue.losses import mi_ue_loss
from miue.models import build
from miue.poisons import perturb
from miue.storage import files

ROOT = Path(__file__).parents[1]


@pytest.fixture
def loop(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import published_loop

    return published_loop


def test_its_loss_is_the_packages(loop):
    z, y = torch.rand(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3
    for zeta in (0.0, 0.1, 3.0):
        assert float(loop.literal_loss(z, y, 0.2, zeta)) == pytest.approx(float(mi_ue_loss(z, y, 0.2, zeta)), rel=1e-5)


def test_its_perturbation_lowers_the_loss_within_the_budget(loop):
    images = some_images(n=48, size=12)
    network = build("small_resnet", len(images.classes), size=12)
    x = images.x.float() / 255
    delta = loop.generate(network, x, images.y, epochs=3, steps=4, batch=48)
    assert float(delta.abs().max()) == pytest.approx(8 / 255) and (x + delta).clamp(0, 1).equal(x + delta)
    network.eval()
    with torch.no_grad():
        clean, perturbed = (float(mi_ue_loss(network(given)[1], images.y)) for given in (x, x + delta))
    assert perturbed < clean


@pytest.mark.slow
def test_all_three_comparisons_are_recorded(loop, tmp_path, capsys):
    loop.main(images=32, epochs=1, steps=1, deep=16, batch=16, record=tmp_path / "loop.json")
    rows = files.read_json(tmp_path / "loop.json")["rows"]
    assert [row["what"] for row in rows] == ["loss and gradient", "pgd pass", "whole perturbation"]
    assert all(row["times faster"] == pytest.approx(row["literal"] / row["miue"]) for row in rows)


def test_the_authors_loop_is_a_method_whose_passes_count(loop):
    images = some_images(n=40, size=12)
    made = perturb(images, loop.authors, preset="quick", cache=False, epochs=2, steps=2, batch=20)
    again = perturb(images, loop.authors, preset="quick", cache=False, epochs=2, steps=2, batch=20)
    assert made.record["passes"] == 6 and torch.equal(made.delta, again.delta)
    assert 0 < int(made.delta.abs().max()) <= 8


def test_what_the_authors_publish_is_cut_off_and_not_rounded(loop, monkeypatch):
    images = some_images(n=8, size=8)
    images = images.with_pixels(images.x.clamp(20, 200))
    monkeypatch.setattr(loop, "generate", lambda network, x, y, **how: torch.full_like(x, 1.7 / 255))
    assert perturb(images, loop.authors, preset="quick", cache=False).delta.eq(1).all()
    monkeypatch.setattr(loop, "generate", lambda network, x, y, **how: torch.full_like(x, -1.2 / 255))
    assert perturb(images, loop.authors, preset="quick", cache=False).delta.eq(-2).all()
