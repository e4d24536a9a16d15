"""What an audit says of a folder: measured on images that training did not see, against the originals where given."""

import json
import shutil

import numpy as np
import pytest
import torch
from odd_files import BAD, picture, write
from PIL import Image
from samples import some_images

import miue
from miue import audit
from miue.audit import reading, victims
from miue.audit.signs import Sign, highest, line, residue, signs
from miue.data.images import Images
from miue.errors import InputError
from miue.models import vision

FEW = {"models": ["mlp2"], "recipe": "quick:epochs=2", "size": 16, "seeds": [0]}


def folder(at, colours, count=12, ending=".png", seed=0):
    """Class folders of images whose colour tells the class, up to noise."""
    noise = np.random.default_rng(seed)
    for name, colour in colours.items():
        (at / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.clip(np.array(colour) + noise.normal(0, 20, (24, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(at / name / f"{number}{ending}")
    return at


PLAIN = {"red": (200, 60, 60), "green": (60, 200, 60)}
SWAPPED = {"red": (60, 200, 60), "green": (200, 60, 60)}


def test_what_is_learned_is_asked_on_originals(tmp_path):
    originals, copy = folder(tmp_path / "a", PLAIN, 20), folder(tmp_path / "b", SWAPPED, 20, ending=".jpg")
    how = {**FEW, "recipe": "quick:epochs=8"}
    alone, against = audit.images(copy, **how), audit.images(copy, originals, **how)
    row = against.victims.iloc[0]
    assert row["victim"] == "mlp2" and row["countermeasure"] == "none"
    assert alone.victims.iloc[0]["learned"] > 0.9  # what it was trained on is easy
    assert row["learned"] < 0.1 < 0.9 < row["originals"]  # and teaches the wrong thing
    assert against.compared["disagreement"] > 0.9 and alone.compared == {}
    assert set(against.victims["countermeasure"]) == {"none", "iss:kind=grayscale", "iss:kind=jpeg", "notch"}
    json.dumps(against.to_json(), allow_nan=False)


def test_copies_are_paired_with_their_originals_by_name(tmp_path):
    for name in ("c/a.jpg", "c/a.png", "d/b.webp", "d/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(len(name)).save(tmp_path / name)
    originals, _ = reading.gather(tmp_path, 16)
    out = tmp_path.with_name("out")
    made = miue.protect.images(tmp_path, out, method="lsp", size=16, seed=1)
    assert {row["source"]: row["name"] for row in made.rows} == {
        "c/a.jpg": "c/a.jpg.png",
        "c/a.png": "c/a.png",
        "d/b.webp": "d/b.png",
        "d/e.png": "d/e.png",
    }
    wanted = {str(name): x for name, x in zip(originals.names, originals.x, strict=True)}
    for place in (out, out / "publish"):  # by the manifest
        copy, clean, without = reading.paired(reading.gather(place, 16)[0], originals)
        assert without == []
        assert all(torch.equal(wanted[str(name)], x) for name, x in zip(copy.names, clean.x, strict=True))
    shutil.copytree(out / "publish", tmp_path.with_name("bare"))
    copy, clean, _ = reading.paired(reading.gather(tmp_path.with_name("bare"), 16)[0], originals)  # by the names
    sources = {row["name"]: row["source"] for row in made.rows}
    assert all(torch.equal(wanted[sources[str(name)]], x) for name, x in zip(copy.names, clean.x, strict=True))


def test_copies_without_an_original_are_left_out_and_named(tmp_path):
    copy, originals = folder(tmp_path / "a", PLAIN), folder(tmp_path / "b", PLAIN)
    (originals / "red" / "3.png").unlink()
    found = audit.images(copy, originals, **FEW)
    assert found.unreadable == {"red/3.png": "has no original"} and found.record["data"]["n"] == 23


@pytest.mark.parametrize(("name", "message"), [("red", "other classes"), ("", "no original of the 24 images")])
def test_originals_that_do_not_fit_are_refused(name, message, tmp_path):
    copy, originals = folder(tmp_path / "a", PLAIN), folder(tmp_path / "b", PLAIN)
    for one in list(originals.iterdir()):
        if one.name.startswith(name):
            one.rename(originals / f"{one.name}-2")
    with pytest.raises(InputError, match=message):
        audit.images(copy, originals, **FEW)


def test_what_cannot_be_audited_is_refused_before_any_training(tmp_path):
    with pytest.raises(InputError, match="two are needed"):
        audit.images(folder(tmp_path / "one", {"red": (1, 2, 3)}), **FEW)
    both = folder(tmp_path / "two", PLAIN)
    for wrong, message in (
        ({"size": 4}, "size: 4"),
        ({"recipe": "slow"}, "recipe"),
        ({"models": ["resnet1"]}, "model: 'resnet1'"),
        ({"seeds": []}, "seeds: none"),
        ({"backbone": tmp_path / "none.safetensors"}, "backbone: .* does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            audit.images(both, **{**FEW, **wrong})


def test_unreadable_files_are_named_and_classes_of_a_few_images_do_not_stop_it(tmp_path):
    write(folder(tmp_path, PLAIN) / "red", BAD)
    folder(tmp_path, {"blue": (0, 0, 255)}, count=1)
    found = audit.images(tmp_path, **FEW)
    assert sorted(found.unreadable) == sorted(f"red/{name}" for name in BAD)
    assert found.signs == [] and not found.perturbed and len(found.victims) == 5


def test_held_out_images_are_a_fifth_of_each_class_and_one_at_least():
    labels = torch.tensor([0] * 20 + [1] * 3 + [2] * 2 + [3])
    images = Images(torch.zeros(26, 3, 8, 8, dtype=torch.uint8), labels, list("abcd"))
    seen, held_out = reading.split(images, 0.2, 0)
    assert labels[held_out].bincount(minlength=4).tolist() == [4, 1, 1, 0]
    assert sorted(torch.cat([seen, held_out]).tolist()) == list(range(26))
    assert not torch.equal(held_out, reading.split(images, 0.2, 1)[1])


def test_features_of_a_trained_network_are_taken_over(tmp_path):
    images = some_images(n=60, classes=3, size=16)
    victim = miue.train_victim(images, model="small_resnet", recipe="quick:epochs=1", cache=False)
    victim.save(tmp_path / "others.safetensors")
    found = audit.images(folder(tmp_path / "a", PLAIN), backbone=tmp_path / "others.safetensors", **FEW)
    assert {"linear on others", "others, fine-tuned"} <= set(found.victims["victim"])
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(InputError):
        audit.images(folder(tmp_path / "a", PLAIN), backbone=tmp_path / "text.safetensors", **FEW)


def test_weights_of_torchvision_are_found_where_they_lie(tmp_path, monkeypatch):
    from torchvision.models import ResNet18_Weights, resnet18

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert vision.local_weights() == {}
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.save(resnet18().state_dict(), file)
    assert vision.local_weights() == {"resnet18": file}
    ask = victims.of_torchvision("resnet18", file).train(some_images(n=24, classes=2, size=16), None, 0)
    assert ask(some_images(n=24, classes=2, size=16)).shape == (24,)


def test_signs_speak_of_a_pattern_of_each_class_and_not_of_clean_images_or_noise():
    clean, _ = miue.load("digits_m", n_train=500, n_test=20)
    noise = miue.perturb(clean, "random", cache=False).apply(clean)
    pattern = torch.randint(-8, 9, (10, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    shared = clean.plus(pattern[clean.y])
    found = {name: signs(images) for name, images in {"clean": clean, "noise": noise, "shared": shared}.items()}
    assert {name: any(sign.speaks for sign in one) for name, one in found.items()} == {
        "clean": False,
        "noise": False,
        "shared": True,
    }
    assert residue(shared) > 0.5 > 0.2 > residue(clean)
    assert highest(noise) > highest(clean)


def test_a_line_in_the_spectra_tells_of_stripes_that_begin_anywhere():
    clean, _ = miue.load("digits_m", n_train=500, n_test=20)
    striped = miue.perturb(clean, "gratings", cache=False).apply(clean)
    assert line(striped) > 2 > 0.5 > line(clean)
    assert residue(striped) < 0.2  # their means are none


def test_a_sign_without_a_limit_only_describes():
    assert not Sign("x", 9.0, None).speaks and Sign("x", 0.3, 0.2).speaks and not Sign("x", 0.1, 0.2).speaks


def test_of_many_images_some_are_drawn_from_every_class(tmp_path):
    folder(tmp_path / "a", PLAIN, 30), folder(tmp_path / "b", PLAIN, 30)
    found = audit.images(tmp_path / "a", tmp_path / "b", most=24, **FEW)
    assert found.record["data"]["n"] == found.record["against"]["n"] == 24 and found.record["chance"] == 0.5
    with pytest.raises(InputError, match="most: 1; "):
        audit.images(tmp_path / "a", most=1, **FEW)


@pytest.mark.slow
def test_the_usual_recipe_finds_in_few_images_what_they_show_and_what_was_added():
    train, test = miue.load("digits_m", n_train=600, n_test=300)
    copy = miue.perturb(train, "weave:drift=0.025", preset="quick", cache=False).apply(train)
    trainer = victims.from_scratch("small_resnet:width=0.5", audit.RECIPE)
    clean, shown = (victims.accuracy(trainer.train(images, None, 0), test) for images in (train, copy))
    assert shown < 0.4 < 0.5 < clean
