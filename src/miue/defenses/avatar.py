"""AVATAR: images drowned in a little noise and brought back by a pretrained diffusion model.

Dolatabadi, Erfani & Leckie, "The Devil's Advocate: Shattering the Illusion of Unexploitable Data using Diffusion
Models", IEEE SaTML 2024: every training image is diffused to step 100 of the 1,000 of a DDPM (Ho, Jain & Abbeel,
NeurIPS 2020; noise variance rising linearly from 0.0001 to 0.02) and denoised back to step 0, so that what is no
part of the model's world is lost. The model is the user's: this package brings none, and one that was trained on the
images to be purified, or on their unperturbed originals, answers another question.

Cost: `steps` forward passes of the model over the data, 100 as published. No figures of ours: no model was at hand.
"""

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from miue import seeds
from miue.data.images import Images
from miue.defenses.base import Defense
from miue.defenses.pixels import rewrite
from miue.errors import Count, InputError, Range, Unit

SCHEDULE_STEPS = 1000


def signal_left() -> Tensor:
    """How much of an image's variance is left after 0, 1, ... steps of noise: (1001,) float64, from 1 down.

    The linear schedule of DDPM; "alpha bar" there, with the clean image at index 0.
    """
    beta = torch.linspace(1e-4, 0.02, SCHEDULE_STEPS, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(0)])


@dataclass(frozen=True)
class Avatar(Defense):
    """Diffuses and denoises the training images.

    Args:
        denoise: the diffusion model: maps noisy images (B, C, H, W), scaled to [-1, 1] before the noise, and step
            indices (B,) int64 in 0..999 to the noise in them. Any callable or module; an output with `.sample` (as
            diffusers' `UNet2DModel` has) or with further channels after the first C (a learned variance) is understood.
        depth: steps of noise, 1 to 1,000; 100 published.
        steps: denoising steps, at most `depth`: as many of them as published, fewer to save time.
        eta: 1: every step draws fresh noise, which with `steps = depth` is DDPM's sampler; 0: none does (DDIM, Song,
            Meng & Ermon, ICLR 2021), the better choice where steps are few.
        model_batch: images in a call of the model.
    """

    denoise: Callable[..., Tensor] | None = None
    depth: Annotated[int, Range(1, SCHEDULE_STEPS)] = 100
    steps: Count = 100
    eta: Unit = 1.0
    model_batch: Count = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps > self.depth:
            raise InputError(f"steps: {self.steps}; it must be at most depth, {self.depth}")

    def prepare(self, images: Images, seed: int) -> Images:
        """Purify all images on the model's device.

        Raises:
            InputError: no model was given, or its output has not the shape of the images.
        """
        if self.denoise is None:
            raise InputError(
                "avatar option denoise: none given; pass a diffusion model trained on such images, "
                "Avatar(denoise=model) with model(images in [-1, 1], steps) -> predicted noise"
            )
        if isinstance(self.denoise, nn.Module):
            self.denoise.eval()
        device = _device(self.denoise, images.device)
        generator = seeds.stream(seed, "purification noise", device)

        def purify(x: Tensor, y: Tensor) -> Tensor:
            return (self.purify(2 * x.to(device) - 1, generator) + 1) / 2

        return rewrite(images, purify, self.model_batch)

    def purify(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Diffuse images (B, C, H, W), float in [-1, 1], to `depth` and bring them back."""
        left = float(signal_left()[self.depth])
        return self.bring_back(left**0.5 * x + (1 - left) ** 0.5 * _normal(x, generator), generator)

    def bring_back(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Denoise images (B, C, H, W) that hold `depth` steps of noise; clean ones, float in [-1, 1], come back.

        Each step predicts the clean image, cuts it to [-1, 1], and returns to the noise level of the next: equation
        12 of DDIM, of which DDPM's sampler is the case eta = 1.
        """
        left = signal_left().tolist()
        levels = torch.linspace(self.depth, 0, self.steps + 1).round().int().tolist()
        for here, there in itertools.pairwise(levels):
            noise = self._noise(x, here - 1)
            clean = ((x - (1 - left[here]) ** 0.5 * noise) / left[here] ** 0.5).clamp(-1, 1)
            noise = (x - left[here] ** 0.5 * clean) / (1 - left[here]) ** 0.5
            fresh = self.eta * ((1 - left[there]) / (1 - left[here]) * (1 - left[here] / left[there])) ** 0.5
            x = left[there] ** 0.5 * clean + max(1 - left[there] - fresh**2, 0.0) ** 0.5 * noise
            if fresh > 0:
                x = x + fresh * _normal(x, generator)
        return x

    def _noise(self, x: Tensor, step: int) -> Tensor:
        assert self.denoise is not None
        output = self.denoise(x, torch.full((len(x),), step, device=x.device))
        noise = getattr(output, "sample", output)
        if noise.ndim != 4 or noise.shape[1] < x.shape[1] or noise[:, : x.shape[1]].shape != x.shape:
            raise InputError(
                f"avatar option denoise: it maps images {tuple(x.shape)} to {tuple(noise.shape)}; "
                "predicted noise must have the images' shape"
            )
        return noise[:, : x.shape[1]]

    def record(self) -> dict[str, Any]:
        """Name and options; of the model its class and, where it has weights, a digest of them."""
        options = {name: getattr(self, name) for name in ("depth", "steps", "eta")}
        return {"defense": "Avatar", "denoise": _describe(self.denoise), **options}


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def _device(denoise: Callable[..., Tensor], otherwise: torch.device) -> torch.device:
    weights = next(denoise.parameters(), None) if isinstance(denoise, nn.Module) else None
    return otherwise if weights is None else weights.device


def _describe(denoise: Callable[..., Tensor] | None) -> str | None:
    if denoise is None:
        return None
    kind = denoise if hasattr(denoise, "__qualname__") else type(denoise)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if not isinstance(denoise, nn.Module):
        return name
    digest = hashlib.blake2b(digest_size=8)
    for weights in denoise.state_dict().values():
        digest.update(weights.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"{name} {digest.hexdigest()}"
