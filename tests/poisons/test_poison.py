"""Perturbations and their files: matched with their pictures, cut to a part, refused when foreign or damaged."""

import pytest
import torch
from safetensors.torch import save_file
from samples import pictures

from miue import Images
from miue.errors import InputError
from miue.poisons import Poison, generate


def test_pictures_other_than_those_it_was_made_for_are_refused(images, tmp_path):
    poison = generate("random", images)
    x = images.x.clone()
    x[3, 0, 0, 0] ^= 1
    relabelled = Images(images.x, (images.y + 1) % 4, images.classes)
    for other in (Images(x, images.y, images.classes), relabelled):
        with pytest.raises(InputError, match=r"was made for other images \(content hash .* differ in pixels or label"):
            poison.apply(other)
    with pytest.raises(InputError, match="12 of the 60 pictures of noise have no row"):
        poison.apply(pictures(n=60))
    poison.save(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a\.safetensors was made for other images"):
        Poison.load(tmp_path / "a.safetensors").apply(pictures(seed=5))


def test_files_that_are_no_perturbation_are_refused(images, tmp_path):
    file = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match=r"a\.safetensors does not exist"):
        Poison.load(file)
    generate("random", images).save(file)
    whole = file.read_bytes()
    for damaged in (whole[:100], whole[:-1000], b"", b"not a tensor file at all"):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.safetensors is damaged or no perturbation file"):
            Poison.load(file)
    save_file({"delta": torch.zeros(2)}, file)
    with pytest.raises(InputError, match="is damaged or no perturbation"):
        Poison.load(file)
    tensors = {"delta": torch.zeros(2, 3, 8, 8), "ids": torch.arange(2), "fingerprints": torch.arange(2)}
    save_file(tensors, file, {"miue": "{}"})
    with pytest.raises(InputError, match=r"must be \(N, C, H, W\) int8"):
        Poison.load(file)


def test_a_part_of_the_pictures_is_perturbed():
    images = pictures(n=80)
    poison = generate("random", images, kind="sign")
    counts = {}
    for ratio in (0, 0.25, 0.5, 1):
        part = poison.part(images, ratio=ratio, seed=3)
        counts[ratio] = (part.delta != 0).flatten(1).any(1)
        assert part.record["part"]["perturbed"] == int(counts[ratio].sum()) == round(80 * ratio)
        assert torch.equal(part.apply(images).x[~counts[ratio]], images.x[~counts[ratio]])
    assert (counts[0.25] <= counts[0.5]).all()  # a larger ratio keeps those of a smaller one
    assert not torch.equal(counts[0.5], (poison.part(images, ratio=0.5, seed=4).delta != 0).flatten(1).any(1))


def test_a_part_is_the_same_in_any_order_and_may_be_some_classes():
    images = pictures(n=80)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    poison = generate("random", images, kind="sign")
    part = poison.part(images, ratio=0.5, classes=["class 1", "class 3"])
    again = poison.part(images.subset(order), ratio=0.5, classes=["class 1", "class 3"])
    assert torch.equal(part.delta, again.delta)
    moved = (part.delta != 0).flatten(1).any(1)
    assert moved.sum() == 20 and set(images.y[moved].tolist()) == {1, 3}
    with pytest.raises(InputError, match="class: 'cat' does not exist; choose one of class 0"):
        poison.part(images, classes=["cat"])
    with pytest.raises(InputError, match=r"ratio: 1\.5; it must lie between 0 and 1"):
        poison.part(images, ratio=1.5)
