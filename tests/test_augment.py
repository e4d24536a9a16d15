import torch

from miue.training.augment import draw_moves, flip_crop, move


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


def test_gradients_go_back_to_where_the_pixels_came_from():
    x = torch.rand(40, 2, 5, 6, requires_grad=True)
    moves = draw_moves(40, padding=2, flip=True, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(40, 2, 5, 6)
    (found,) = torch.autograd.grad((move(x, moves, 2) * weights).sum(), x)
    origin = torch.arange(1, x.numel() + 1).view(x.shape)  # 0 is the padding
    expected = torch.zeros(x.numel() + 1).scatter_(0, move(origin, moves, 2).flatten(), weights.flatten())
    assert torch.equal(found.flatten(), expected[1:])


def test_moves_are_drawn_batch_by_batch_as_they_are_used():
    x = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    generator, other = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    drawn = [draw_moves(10, padding=2, flip=True, generator=generator) for _ in range(2)]
    for moves, batch in zip(drawn, x.split(10), strict=True):
        assert torch.equal(move(batch, moves, 2), flip_crop(batch, padding=2, flip=True, generator=other))
