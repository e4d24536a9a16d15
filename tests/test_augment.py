import torch

from miue.training.augment import flip_crop


def draw(x, seed=0, **settings):
    return flip_crop(x, generator=torch.Generator().manual_seed(seed), **settings)


def test_nothing_asked_nothing_done():
    x = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    assert draw(x, padding=0, flip=False) is x


def test_every_image_is_one_of_its_crops_or_mirrors():
    x = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 1, 3, 3).repeat(200, 1, 1, 1)
    padded = torch.nn.functional.pad(x[0], (1, 1, 1, 1))
    crops = [padded[:, r : r + 3, c : c + 3] for r in range(3) for c in range(3)]
    expected = {crop.numpy().tobytes() for crop in crops} | {crop.flip(2).numpy().tobytes() for crop in crops}
    found = {image.contiguous().numpy().tobytes() for image in draw(x, padding=1, flip=True)}
    assert found == expected


def test_half_are_mirrored():
    x = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 1, 4).repeat(400, 1, 1, 1)
    mirrored = (draw(x, padding=0, flip=True)[:, 0, 0, 0] == 3).float().mean()
    assert 0.4 < mirrored < 0.6


def test_the_seed_decides():
    x = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(draw(x, padding=2, flip=True), draw(x, padding=2, flip=True))
    assert not torch.equal(draw(x, padding=2, flip=True), draw(x, seed=1, padding=2, flip=True))
