from dataclasses import asdict

import pytest

from miue.errors import InputError
from miue.experiments import bench
from miue.storage import files, provenance
from miue.storage.files import cache_dir


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(bench, "SECONDS", 0.001)


def test_a_speed_is_measured_once_for_all_that_determines_it(capsys):
    first = bench.measure("linear", size=8, n_classes=3)
    assert min(first.training, first.attack, first.testing) > 0
    assert first.batch <= 128 and first.device == provenance.device_name()
    assert bench.measure("linear", size=8, n_classes=3) == first
    assert capsys.readouterr().err.count("measuring") == 1
    for change in ({"size": 16}, {"n_classes": 4}, {"channels": 1}, {"batch": 64}, {"precision": "bfloat16"}):
        bench.measure("linear", **{"size": 8, "n_classes": 3} | change)
    bench.measure("linear", size=8, n_classes=3, again=True)
    assert capsys.readouterr().err.count("measuring") == 6


def test_a_damaged_speed_is_measured_again():
    bench.measure("linear", size=8)
    (file,) = (cache_dir() / "bench").glob("*.json")
    file.write_text(file.read_text()[:20])
    assert asdict(bench.measure("linear", size=8)) == files.read_json(file)


def test_a_batch_that_takes_long_is_measured_in_part():
    asked = []
    clock = iter([0.0, 0.00005, 0.0, 0.0001, 0.0, 10.0])  # before and after batches of 8, 16 and 32
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.time, "perf_counter", lambda: next(clock))
        assert bench._fitting_batch(asked.append, 512) == 32
    assert asked == [2, 8, 16, 32]


@pytest.mark.parametrize(
    ("how", "message"),
    [({"batch": 1}, "batch: 1"), ({"precision": "int4"}, "precision: 'int4'"), ({"size": 4}, "size: ")],
)
def test_what_cannot_be_measured_is_refused(how, message):
    with pytest.raises(InputError, match=message):
        bench.measure("linear", **how)


def test_the_table_has_a_row_for_each_model_and_size():
    table = bench.table(["linear", "mlp2"], [8, 12], ["float32"], n_classes=2)
    assert table[["model", "size"]].values.tolist() == [["linear", 8], ["linear", 12], ["mlp2", 8], ["mlp2", 12]]


def test_the_work_of_an_image_is_that_of_its_products():
    """A linear network of 3 x 8 x 8 numbers and 5 classes: two operations for each weight, in each direction."""
    speed = bench.measure("linear", size=8, n_classes=5)
    products = 2 * 3 * 8 * 8 * 5
    assert (speed.training_work, speed.attack_work) == (2 * products, 2 * products)


def test_a_convolution_does_four_operations_for_each_weight_and_pixel(monkeypatch):
    """Forward two and, to the images, two, at one image a second."""
    monkeypatch.setattr(bench, "_rate", lambda run, count: 1.0)
    assert bench.peak() == max(4 * 9 * channels**2 * pixels**2 for channels, pixels in bench.CONVOLUTIONS)


def test_the_report_holds_each_speed_against_the_peak_of_its_precision(monkeypatch):
    monkeypatch.setattr(bench, "CONVOLUTIONS", ((4, 8),))
    monkeypatch.setattr(bench, "INFORMATION", {"n": 600, "width": 3, "n_slices": 4})
    told = bench.report(["linear"], [8], ["float32", "bfloat16"])
    assert list(told["peaks"]) == ["float32", "bfloat16"] and told["device"] == provenance.device_name()
    for row in told["networks"]:
        for kind in ("training", "attack"):
            achieved = row[kind] * row[f"{kind}_work"] / told["peaks"][row["precision"]]
            assert row[f"{kind}_utilisation"] == pytest.approx(achieved)
    assert told["information"]["slices/s"] == pytest.approx(4 / told["information"]["seconds"])
