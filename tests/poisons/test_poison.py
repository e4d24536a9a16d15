"""Perturbations and their files: matched with their images, cut to a part, refused when foreign or damaged."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from samples import some_images

from miue import Images
from miue.errors import InputError
from miue.poisons import Poison, perturb
from miue.storage import tensors


def test_images_other_than_those_it_was_made_for_are_refused(images, tmp_path):
    poison = perturb(images, "random", cache=False)
    x = images.x.clone()
    x[3, 0, 0, 0] ^= 1
    relabelled = Images(images.x, (images.y + 1) % 4, images.classes)
    for other in (Images(x, images.y, images.classes), relabelled):
        with pytest.raises(InputError, match=r"was made for other images \(content hash .* differ in pixels or label"):
            poison.apply(other)
    with pytest.raises(InputError, match="12 of the 60 images of noise have no row"):
        poison.apply(some_images(n=60))
    poison.save(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a\.safetensors was made for other images"):
        Poison.read(tmp_path / "a.safetensors").apply(some_images(seed=5))


def test_perturbations_that_move_the_same_images_alike_are_equal(images, tmp_path):
    poison = perturb(images, "random", cache=False)
    poison.save(tmp_path / "a.safetensors")
    assert poison == Poison.load(tmp_path / "a.safetensors") == replace(poison, record={})
    moved = poison.delta.clone()
    moved[0, 0, 0, 0] += 1
    for change in ({"delta": moved}, {"ids": poison.ids + 1}, {"fingerprints": poison.fingerprints + 1}):
        assert poison != replace(poison, **change)
    assert replace(poison, delta=poison.delta.short()) == poison
    assert poison != perturb(some_images(n=60), "random", cache=False) and poison != "poison"


def test_images_are_compared_by_identity(images):
    assert images == images and images != some_images() and len({images, images.subset(torch.arange(2))}) == 2


def test_files_that_are_no_perturbation_are_refused(images, tmp_path):
    file = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match=r"a\.safetensors does not exist"):
        Poison.read(file)
    with pytest.raises(FileNotFoundError):
        Poison.load(file)
    perturb(images, "random", cache=False).save(file)
    whole = file.read_bytes()
    for damaged in (whole[:100], whole[:-1000], b"", b"not a tensor file at all"):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.safetensors is damaged or no perturbation file"):
            Poison.read(file)
    save_file({"delta": torch.zeros(2)}, file)
    with pytest.raises(InputError, match="is damaged or no perturbation"):
        Poison.read(file)
    good = {"delta": torch.zeros(2, 3, 8, 8, dtype=torch.int8), "ids": torch.arange(2), "fingerprints": torch.arange(2)}
    none = {name: tensor[:0] for name, tensor in good.items()}
    for wrong in (good | {"delta": torch.zeros(2, 3, 8, 8)}, good | {"ids": torch.zeros(2)}, none):
        tensors.save(file, wrong, {})
        with pytest.raises(InputError, match=r"must be \(N, C, H, W\) int8"):
            Poison.read(file)
    for content, record in (({"delta": good["delta"]}, {}), (good, ["no record"])):
        tensors.save(file, content, record)
        with pytest.raises(tensors.Damaged, match="holds no perturbation"):
            Poison.load(file)


def test_a_flipped_bit_is_found(images, tmp_path):
    file = tmp_path / "a.safetensors"
    perturb(images, "random", cache=False).save(file)
    whole = bytearray(file.read_bytes())
    whole[-5000] ^= 4
    file.write_bytes(whole)
    with pytest.raises(InputError, match="is damaged or no perturbation file of miue .* its digest does not fit"):
        Poison.read(file)


def test_a_loaded_perturbation_is_applied_in_any_order_without_copying_it(images, tmp_path):
    made = perturb(images, "random", cache=False)
    made.save(tmp_path / "a.safetensors")
    poison = Poison.load(tmp_path / "a.safetensors")
    order = torch.tensor([7, 3, 40, 3 + 8])
    shown = made.apply(images).x
    assert torch.equal(poison.apply(images).x, shown)
    assert torch.equal(poison.apply(images.subset(order)).x, shown[order])
    poison.delta.zero_()  # a view of it: what is applied is looked up as it is read
    assert torch.equal(Poison.load(tmp_path / "a.safetensors").delta, made.delta)


def test_a_part_of_the_images_is_perturbed():
    images = some_images(n=80)
    poison = perturb(images, "random", kind="sign", cache=False)
    counts = {}
    for ratio in (0, 0.25, 0.5, 1):
        part = poison.part(images, ratio=ratio, seed=3)
        counts[ratio] = (part.delta != 0).flatten(1).any(1)
        assert part.record["part"]["perturbed"] == int(counts[ratio].sum()) == round(80 * ratio)
        assert torch.equal(part.apply(images).x[~counts[ratio]], images.x[~counts[ratio]])
    assert not poison.part(images, classes=[]).delta.any()
    assert (counts[0.25] <= counts[0.5]).all()  # a larger ratio keeps those of a smaller one
    assert not torch.equal(counts[0.5], (poison.part(images, ratio=0.5, seed=4).delta != 0).flatten(1).any(1))


def test_a_part_is_the_same_in_any_order_and_may_be_some_classes():
    images = some_images(n=80)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    poison = perturb(images, "random", kind="sign", cache=False)
    part = poison.part(images, ratio=0.5, classes=["class 1", "class 3"])
    again = poison.part(images.subset(order), ratio=0.5, classes=["class 1", "class 3"])
    assert torch.equal(part.delta, again.delta)
    moved = (part.delta != 0).flatten(1).any(1)
    assert moved.sum() == 20 and set(images.y[moved].tolist()) == {1, 3}
    with pytest.raises(InputError, match="class: 'cat' does not exist; choose one of class 0"):
        poison.part(images, classes=["cat"])
    with pytest.raises(InputError, match=r"ratio: 1\.5; it must lie between 0 and 1"):
        poison.part(images, ratio=1.5)
