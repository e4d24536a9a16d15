import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from nbformat import v4

from miue.experiments import figures, varied
from miue.training.loop import Epoch

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close():
    yield
    figures.plt.close("all")


def test_the_grid_shows_clean_perturbed_and_amplified(images):
    shown = images.plus(torch.full(images.x.shape, 4, dtype=torch.int8))
    figure = figures.image_grid(images, {"mi_ue": shown}, torch.arange(3), amplify=10)
    drawn = [axis.images[0].get_array() for axis in figure.axes]
    assert len(drawn) == 9
    assert (drawn[0] == images.x[0].permute(1, 2, 0).numpy()).all()
    room = images.x[0].permute(1, 2, 0).numpy() <= 251
    assert (drawn[6][room] == 168).all()


def test_curves_show_the_mean_and_the_range_over_seeds():
    runs = [[Epoch(1, 2.0, 0.2, t), Epoch(2, 1.0, 0.6, t + 0.2)] for t in (0.1, 0.3)]
    figure = figures.learning_curves({"clean": runs}, chance=0.1)
    assert figure.axes[1].lines[0].get_ydata() == pytest.approx([0.2, 0.4])
    shade = figure.axes[1].collections[0].get_paths()[0].vertices[:, 1]
    assert (shade.min(), shade.max()) == pytest.approx((0.1, 0.5))


def test_bars_are_means_and_every_method_has_its_controls():
    table = pd.DataFrame({"method": ["clean", "clean", "own"], "seed": [0, 1, 0], "test_accuracy": [0.8, 0.9, 0.2]})
    bars = figures.accuracy_bars(table, 0.1).axes[0].patches
    assert [bar.get_width() for bar in bars] == pytest.approx([0.85, 0.2])
    values = pd.DataFrame({"method": ["clean", "own"], "seed": 0, "mi": [1.0, 0.5], "null": 0.0})
    axis = figures.information(values.assign(within_class=0.4, ceiling=1.0)).axes[0]
    assert axis.lines[0].get_xdata() == pytest.approx([1.0, 0.5]) and len(axis.lines) == 4
    assert figures.spectrum({"clean": torch.tensor([3.0, 1.0])}).axes[0].get_yscale() == "log"


def test_titles_are_those_that_readers_know():
    assert figures.title("resnet18:width=0.25") == "ResNet-18, width 0.25"
    assert figures.title("iss:kind=jpeg") == "ISS, kind jpeg" and figures.title("gaussian_noise") == "gaussian noise"


def test_the_table_shows_means_over_seeds_in_the_order_given():
    rows = [("em", "linear", 0, 0.2), ("em", "linear", 1, 0.4), ("clean", "linear", 0, 0.9), ("clean", "mlp2", 0, 0.8)]
    table = pd.DataFrame(rows, columns=["method", "victim", "seed", "test_accuracy"])
    axis = figures.accuracy_table(table, "victim", 0.1).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["EM", "clean"]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["linear", "2-layer MLP"]
    assert [t.get_text() for t in axis.texts] == ["30", "90", "80"]


def test_long_names_leave_room_for_the_table(recwarn):
    figures.setup()
    names = ["clean", "weave:share=1:aligned=false"]
    table = pd.DataFrame({"method": names, "victim": "linear", "seed": 0, "test_accuracy": 0.5})
    figure = figures.accuracy_table(table, "victim", 0.1)
    figure.canvas.draw()
    assert not [str(one.message) for one in recwarn if "collapsed" in str(one.message)]
    assert figure.axes[0].get_position().width * figure.get_figwidth() > 0.4  # inches


def test_gaps_name_a_method_also_where_its_label_rises_above_the_axis():
    gaps = {"accuracy_gap": [0.0, 0.4, 0.4, 0.4, 0.4], "mi_gap": [0.0, 0.1, 0.1, 0.1, 0.1]}
    texts = figures.gaps(pd.DataFrame({"method": ["clean", "em", "ar", "tap", "sem"], **gaps})).axes[0].texts
    assert len(texts) == 5 and all(text.get_tightbbox().width > 0 for text in texts)


def test_gaps_stand_beside_one_another_where_they_are_told_to():
    table = pd.DataFrame({"method": ["em", "ar"], "accuracy_gap": [0.4, 0.1], "mi_gap": [0.1, 0.0]})
    figure, (left, right) = plt.subplots(1, 2)
    assert figures.gaps(table, axis=right) is figure
    assert not left.lines and {t.get_text() for t in right.texts} == {"EM", "AR"}


def test_trends_stand_at_their_numbers_or_in_the_order_of_their_words():
    rows = [("em", 8.0, "linear", 0.2), ("em", 8.0, "linear", 0.4), ("em", 1.0, "mlp2", 0.9), ("ar", 1.0, "mlp2", 0.8)]
    table = pd.DataFrame(rows, columns=["method", "budget", "victim", "test_accuracy"])
    panels = {"test_accuracy": "accuracy"}
    axis = figures.trends(table, "budget", panels, chance=0.1, reference={"test_accuracy": 0.95}).axes[0]
    assert axis.lines[0].get_xdata().tolist() == [1, 8]
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([0.9, 0.3])  # the mean over seeds
    assert [0.95, 0.95] in [list(line.get_ydata()) for line in axis.lines]
    assert [t.get_text() for t in axis.figure.legends[0].get_texts()] == ["EM", "AR"]
    words = figures.trends(table, "victim", panels).axes[0]
    assert [t.get_text() for t in words.get_xticklabels()] == ["linear", "2-layer MLP"]


def test_methods_keep_their_colours_whether_clean_training_is_shown_or_not():
    with_clean, without = figures._colours(["clean", "lsp", "em", "ar"]), figures._colours(["em", "lsp", "ar"])
    assert all(with_clean[method] == without[method] for method in ("em", "lsp", "ar"))
    assert len({str(with_clean[method]) for method in ("clean", "lsp", "em", "ar")}) == 4


def test_variations_mark_the_value_of_the_preset():
    values = [
        ("zeta", "0", False, 0.5),
        ("zeta", "0.1", True, 0.2),
        ("steps", "1", False, 0.6),
        ("steps", "5", True, 0.2),
    ]
    table = pd.DataFrame(values, columns=["option", "value", "base", "test_accuracy"])
    axes = varied.variations(table, {"test_accuracy": "accuracy"}, 0.1).axes
    assert [axis.get_title() for axis in axes] == ["zeta", "steps"]
    marked = {line.get_marker(): list(line.get_ydata()) for line in axes[0].lines}
    assert marked["D"] == [0.2] and marked["o"] == [0.5]
    assert [t.get_text() for t in axes[1].get_xticklabels()] == ["1", "5"]


def test_shares_are_of_the_ceiling_of_the_same_row():
    table = pd.DataFrame(
        {"method": ["em", "em"], "victim": ["linear", "mlp2"], "mi": [0.5, 0.1], "ceiling": [1.0, 0.4]}
    )
    axis = figures.share_table(table, "victim").axes[0]
    assert [t.get_text() for t in axis.texts] == ["50", "25"]


@pytest.mark.slow
def test_a_notebook_shows_lines_as_svg_and_images_as_png_alone():
    cells = [
        "import matplotlib.pyplot as plt\nfrom miue.experiments import figures\nfigures.setup()",
        "plt.plot([1, 2]);",
        "plt.imshow([[1, 2], [3, 4]]);",
    ]
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook).execute()
    shown = [{name for name in cell.outputs[0].data if "image" in name} for cell in notebook.cells[1:]]
    assert shown == [{"image/svg+xml", "image/png"}, {"image/png"}]
