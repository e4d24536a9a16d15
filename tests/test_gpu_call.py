"""The call of a GPU machine, without one: stages and their time, going on, images from an archive, and publishing."""

import io
import json
import sys
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import some_images

from miue.data import archives, decoding, loading
from miue.data.loading import CIFAR10_CLASSES
from miue.errors import InputError
from miue.experiments.comparison import Records, Setting, Trial
from miue.replay import Replay
from miue.storage.provenance import collect

ROOT = Path(__file__).parents[1]


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_call

    return gpu_call


@pytest.fixture
def call(module, tmp_path):
    """A new call into the same folder."""

    def begin(limit=1e6):
        file = tmp_path / "results.jsonl"
        earlier = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        nobody = module.Measurer(tmp_path / "rows.jsonl", None)
        return module.Call(tmp_path, tmp_path, module.SCALES["small"], limit, True, nobody, None, earlier)

    return begin


def stage(module, name, run, seconds=1.0, after=()):
    def done(call):
        return bool(call.found(name))

    return module.gpu_stages.Stage(name, run, lambda call: seconds, done, after)


def states(call):
    return {line["stage"]: line["state"] for line in call.results}


def test_what_takes_too_long_is_left_out_and_what_fails_stops_nothing(module, call):
    def fail(call):
        raise ValueError("no such card")

    stages = [
        stage(module, "long", lambda call: {"a": 1}, seconds=2e6),
        stage(module, "bad", fail),
        stage(module, "needs it", lambda call: {"a": 1}, after=("bad",)),
        stage(module, "good", lambda call: {"a": 1}),
    ]
    one = call()
    module.go_through(one, stages)
    assert states(one) == {"long": "skipped", "bad": "failed", "needs it": "skipped", "good": "done"}
    assert "ValueError: no such card" in one.results[1]["result"]["error"][-1]
    assert one.results[2]["why"] == "not done before: bad" and one.found("good") == {"a": 1}


def test_a_second_call_goes_on_where_the_first_was_stopped(module, call):
    ran = []

    def of(name):
        return stage(module, name, lambda call: ran.append(name) or {"ran": name}, seconds=10)

    stages = [of("one"), of("two")]
    module.go_through(call(), stages[:1])
    module.go_through(call(limit=0), stages)
    module.go_through(call(), stages)
    module.go_through(call(), stages)
    assert ran == ["one", "two"]
    assert [line["state"] for line in call().results] == ["done", "skipped", "done"]


def test_the_stages_are_planned_within_the_limit(module):
    told = module.planned(module.SCALES["full"], 540)
    assert told.loc["table", "sum, float16"] <= 540
    assert module.planned(module.SCALES["small"], 540)["float32"].sum() < 200


def test_training_is_measured_with_and_without_a_replay(module):
    import gpu_speeds

    from miue.training import step

    with gpu_speeds.training_eagerly():
        assert step.Replay(len) is len
    assert step.Replay is Replay


@pytest.mark.slow
def test_peaks_and_rates_are_measured_at_small_size(module, call, monkeypatch):
    one = call()
    monkeypatch.setattr(type(one), "images", lambda self: (some_images(n=64), some_images(n=8)))
    assert {row["what"].split(" ")[0] for row in module.gpu_stages.peaks(one)["rows"]} == {
        "copy",
        "matrices",
        "convolution",
    }
    rows = module.gpu_stages.rates(one)["rows"]
    assert {row["how"] for row in rows} == {"eager", "replayed", "compared"} and min(row["pgd"] for row in rows) > 0


def jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    return file.getvalue()


@pytest.fixture
def archive(tmp_path):
    """CIFAR-10 of two images of each class to train on and one to test on."""
    rng, path = np.random.default_rng(0), tmp_path / "data" / "cifar10-jpeg.tar.xz"
    path.parent.mkdir()
    with tarfile.open(path, "w:xz") as tar:
        for part, count in (("test", 1), ("train", 2)):
            for name in reversed(CIFAR10_CLASSES):
                for number in range(count):
                    content = jpeg(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
                    info = tarfile.TarInfo(f"cifar10/{part}/{name}/{number}.jpg")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return path


def test_images_of_an_archive_are_found_as_if_the_package_had_decoded_them(module, archive, tmp_path, monkeypatch):
    import gpu_images

    expected = loading.load("cifar10", archive.parent)
    monkeypatch.setenv("MIUE_CACHE", str(tmp_path / "other"))
    assert gpu_images.decode(archive, 2) == 30
    assert gpu_images.decode(archive, 2) == 0

    def never(*given):
        raise AssertionError("unpacked or decoded again")

    monkeypatch.setattr(archives, "unpack", never)
    monkeypatch.setattr(decoding, "_decode", never)
    for one, other in zip(loading.load("cifar10", archive.parent), expected, strict=True):
        assert one.content_hash == other.content_hash and one.ids.equal(other.ids) and one.name == other.name


def test_a_file_that_lies_outside_of_its_folder_is_refused(module, tmp_path):
    import gpu_images

    path = tmp_path / "cifar10.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("../elsewhere.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(InputError, match="outside of its folder"):
        gpu_images.decode(path, 1)
    assert not (tmp_path / "elsewhere.jpg").exists()


def test_rows_are_published_with_this_checkouts_commit_if_they_are_of_its_code(module, tmp_path, capsys):
    setting, here = Setting("cifar10", preset="quick", recipe="quick:epochs=1"), collect("cpu")
    row = asdict(Trial("mi_ue:epochs=1", "resnet18", surrogate="resnet18"))
    row |= {"data": "CIFAR-10 (JPEG-75 copy)", "n_train": 300, "commit": None, "content_hash": "", "code": here["code"]}
    Records(tmp_path / "back" / "records-quick.jsonl", setting).add(row)
    (tmp_path / "book").mkdir()
    with pytest.raises(InputError, match="root: .* holds no _config.yml"):
        module.publish(tmp_path / "back", tmp_path / "book")
    (tmp_path / "book" / "_config.yml").touch()
    module.publish(tmp_path / "back", tmp_path / "book")
    kept = tmp_path / "book" / "book" / "results" / "records" / "gpu-cifar10-jpeg75-300-quick.jsonl"
    head, one = map(json.loads, kept.read_text().splitlines())
    assert head["setting"] == asdict(setting) and one == row | {"commit": here["commit"]}
    assert "miue run comparison -p data=cifar10" in capsys.readouterr().out
    Records(tmp_path / "other" / "records-quick.jsonl", setting).add(row | {"code": "0"})
    with pytest.raises(InputError, match="measured with code 0"):
        module.publish(tmp_path / "other", tmp_path / "book")


def test_full_size_is_refused_without_a_gpu(module, tmp_path):
    if sys.modules["torch"].cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="scale: full without a GPU"):
        module.run(tmp_path / "out", "full", None, 540, None, None)
    with pytest.raises(InputError, match="archive: .*must be a file called"):
        module.run(tmp_path / "out", "small", tmp_path / "no.zip", 540, None, None)
