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
