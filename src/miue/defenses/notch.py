"""Notch filters: frequencies that stand out in a class are damped in its images.

Ours, and made against our own `gratings` and `weave`, whose classes are lines in the spectrum: what somebody would do
who has read of them, or who has averaged the spectra of each class and looked. It asks for no clean image and nothing
about the perturbation but that it repeats itself.

For each class and channel the logarithm of the amplitude at every frequency is averaged over the images. From this its
median over the other classes is taken away, and then the median over the neighbouring frequencies, since classes differ
smoothly, as sky and fur do, without anybody's doing. Frequencies where more than `excess` is left are damped by just
that, so that the class does not stand out there any more. The damped frequencies of a class are a mark of it as well,
but a fainter one than what stood there.

With few images chance stands out too: the average over n images has a standard error of about 0.64 / sqrt(n). Cost: two
Fourier transforms of every image. It holds classes C H W numbers: 60 MB for 100 classes at 224 px, as float32.
"""

from dataclasses import dataclass

import torch
from scipy.ndimage import median_filter
from torch import Tensor

from miue.data.images import Images
from miue.defenses.base import Defense
from miue.defenses.pixels import images_per_batch, rewrite
from miue.errors import InputError, Positive

SIDE = 5  # of the square of frequencies that count as neighbours


@dataclass(frozen=True)
class Notch(Defense):
    """Damps in the images of each class the frequencies that stand out there.

    Args:
        excess: by how much, in logarithms of the amplitude, a frequency has to stand out.
    """

    excess: Positive = 0.5

    def prepare(self, images: Images, seed: int) -> Images:
        """Filter every image; round and clip to uint8.

        Raises:
            InputError: fewer than two classes that have images.
        """
        kept = self.kept(images)

        def damped(x: Tensor, y: Tensor) -> Tensor:
            return torch.fft.ifft2(torch.fft.fft2(x) * kept[y]).real

        return rewrite(images, damped)

    def kept(self, images: Images) -> Tensor:
        """What share of each frequency is kept, (classes, C, H, W), in the order of `torch.fft.fft2`."""
        spectra, there = mean_log_spectra(images)
        kept = torch.ones_like(spectra)
        for label in there:
            others = spectra[[other for other in there if other != label]]
            apart = spectra[label] - others.median(0).values
            around = median_filter(apart.cpu().numpy(), size=(1, SIDE, SIDE), mode="wrap")
            standing = apart - torch.from_numpy(around).to(apart.device)
            standing[:, 0, 0] = 0  # the mean is no wave
            kept[label] = torch.where(standing > self.excess, (-standing).exp(), 1.0)
        return kept


def mean_log_spectra(images: Images) -> tuple[Tensor, list[int]]:
    """The logarithm of the amplitude of each frequency, averaged over the images of each class.

    Returns:
        (classes, C, H, W) float32, and the classes that have images.

    Raises:
        InputError: fewer than two of them.
    """
    count = images.y.bincount(minlength=len(images.classes))
    there = [label for label, some in enumerate(count.tolist()) if some]
    if len(there) < 2:
        raise InputError(f"notch: images of {len(there)} class; what stands out is told from at least one other")
    total = torch.zeros(len(count), *images.shape, device=images.device)
    for index in torch.arange(len(images)).split(images_per_batch(images)):
        x, y = images.batch(index)
        total.index_add_(0, y, (torch.fft.fft2(x.float() / 255).abs() + 1e-3).log())
    return total / count.clamp(min=1)[:, None, None, None], there
