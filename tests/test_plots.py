import matplotlib
import pandas as pd
import pytest
import torch

from miue import plots
from miue.train import Epoch

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close():
    yield
    plots.plt.close("all")


def test_the_grid_shows_clean_perturbed_and_amplified(images):
    shown = images.plus(torch.full(images.x.shape, 4, dtype=torch.int8))
    figure = plots.image_grid(images, {"mi_ue": shown}, torch.arange(3), amplify=10)
    drawn = [axis.images[0].get_array() for axis in figure.axes]
    assert len(drawn) == 9
    assert (drawn[0] == images.x[0].permute(1, 2, 0).numpy()).all()
    room = images.x[0].permute(1, 2, 0).numpy() <= 251
    assert (drawn[6][room] == 168).all()


def test_curves_show_the_mean_and_the_range_over_seeds():
    runs = [[Epoch(1, 2.0, 0.2, t), Epoch(2, 1.0, 0.6, t + 0.2)] for t in (0.1, 0.3)]
    figure = plots.learning_curves({"clean": runs}, chance=0.1)
    assert figure.axes[1].lines[0].get_ydata() == pytest.approx([0.2, 0.4])
    shade = figure.axes[1].collections[0].get_paths()[0].vertices[:, 1]
    assert (shade.min(), shade.max()) == pytest.approx((0.1, 0.5))


def test_bars_are_means_and_every_method_has_its_controls():
    table = pd.DataFrame({"method": ["clean", "clean", "own"], "seed": [0, 1, 0], "test_accuracy": [0.8, 0.9, 0.2]})
    bars = plots.accuracy_bars(table, 0.1).axes[0].patches
    assert [bar.get_width() for bar in bars] == pytest.approx([0.85, 0.2])
    values = pd.DataFrame({"method": ["clean", "own"], "seed": 0, "mi": [1.0, 0.5], "null": 0.0})
    axis = plots.information(values.assign(within_class=0.4, ceiling=1.0)).axes[0]
    assert axis.lines[0].get_xdata() == pytest.approx([1.0, 0.5]) and len(axis.lines) == 4
    assert plots.spectrum({"clean": torch.tensor([3.0, 1.0])}).axes[0].get_yscale() == "log"
