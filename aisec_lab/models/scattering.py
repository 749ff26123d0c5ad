"""A linear classifier of wavelet coefficients: features that nobody learned, and that cost no privacy."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.models.training.fit import Objective
from aisec_lab.models.training.recipe import TrainingJob, TrainingRecipe

ROWS = 500  # of one pass of the transform, some 100 MB for images of 28x28


class Scattering(nn.Module):
    """The scattering transform of order two (Bruna & Mallat, 2013, arXiv:1203.1513), by kymatio; gradients pass.

    Args:
        height, width: of the images.
        scales: J; wavelets of J sizes, and coefficients at every 2^J-th pixel.
        angles: L; directions of each size. There are 1 + J L + L^2 J (J - 1) / 2 paths: 81 by default.
    """

    def __init__(self, height: int, width: int, scales: int = 2, angles: int = 8) -> None:
        from kymatio.torch import Scattering2D  # brings scipy: who asks for another model does not pay for it

        super().__init__()
        self.transform = Scattering2D(J=scales, L=angles, shape=(height, width))
        for name, wavelet in list(self.transform.named_buffers()):
            self.transform.register_buffer(name, wavelet, persistent=False)  # fixed, so no part of a checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """Coefficients in [0, 1] of images x (N, C, H, W), shape (N, C * paths, H / 2^J, W / 2^J)."""
        coefficients: Tensor = self.transform(x.contiguous())  # (N, C, paths, H / 2^J, W / 2^J)
        return coefficients.flatten(1, 2).clamp(0, 1)  # the low-pass filter, cut off in frequency, swings 3e-4 below 0


@dataclass(frozen=True)
class ScatteringLinear:
    """Normalised scattering coefficients and a linear layer (Tramèr & Boneh, 2021, arXiv:2011.11660, section 2).

    The coefficients of an image are normalised by that image's own mean and variance, in groups of channels (GroupNorm
    without weights), so that neither the transform nor its scale has seen other rows: only the linear layer is learned.
    `ThroughScattering` trains it in a fraction of the time.

    Args of the call:
        shape: (channels, height, width), sides of at least 2^scales.
        classes: K.
        generator: not drawn from. The problem is convex, and begins with weights of 0.

    Returns:
        A classifier: `Scattering`, GroupNorm, flattening, linear layer.

    Raises:
        ValueError: a shape that is no image of that size, or groups that do not divide the coefficients' channels.
    """

    scales: int = 2
    angles: int = 8
    groups: int = 27  # for one channel of colour: three paths a group

    def __call__(self, shape: tuple[int, ...], classes: int, *, generator: torch.Generator) -> nn.Sequential:
        smallest = 2**self.scales
        if len(shape) != 3 or min(shape[1:]) < smallest:
            raise ValueError(
                f"ScatteringLinear takes images (C, H, W) from {smallest}x{smallest} up, got shape {shape}: use MLP"
            )
        paths = 1 + self.scales * self.angles + self.angles**2 * self.scales * (self.scales - 1) // 2
        channels, height, width = shape[0] * paths, shape[1] // smallest, shape[2] // smallest
        if channels % self.groups:
            raise ValueError(
                f"{channels} channels of coefficients do not fall into {self.groups} groups: take a divisor"
            )
        linear = nn.Linear(channels * height * width, classes)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        return nn.Sequential(
            Scattering(shape[1], shape[2], self.scales, self.angles),
            nn.GroupNorm(self.groups, channels, affine=False),
            nn.Flatten(),
            linear,
        )


@dataclass(frozen=True)
class ThroughScattering(TrainingRecipe):
    """Train what follows a model's `Scattering` on coefficients that are computed once, not in every epoch.

    The transform is fixed and takes rows by themselves: the losses, and the privacy, are those of the whole model.

    Args:
        objective: an objective, or a course such as `DPSGD`. It is handed coefficients for inputs: one that perturbs
            pixels (adversarial training) belongs before the transform, without this.

    Args of `run`, returns, raises: as for `Fit`; ValueError where the model does not begin with `Scattering`.
    """

    objective: Objective | TrainingRecipe

    def run(self, job: TrainingJob) -> list[dict[str, float]]:
        seen = scattered(job.model, job.dataset)
        assert isinstance(job.model, nn.Sequential)
        history = replace(job, model=job.model[1:], dataset=seen).train(self.objective)
        job.model.eval()
        return history


@torch.no_grad()
def scattered(model: nn.Module, dataset: Dataset) -> Dataset:
    """The dataset as a model's transform shows it to the layers that are trained.

    Args:
        model: begins with `Scattering`, as those of `ScatteringLinear` do.
        dataset: images.

    Returns:
        The same rows and classes, with coefficients in place of pixels, float32 in [0, 1]: 0.95 GB for 60,000 images of
        28x28.

    Raises:
        ValueError: a model that begins otherwise.
    """
    first = model[0] if isinstance(model, nn.Sequential) else model
    if not isinstance(first, Scattering):
        raise ValueError(f"training begins behind Scattering, got {type(first).__name__}: build a ScatteringLinear")
    device = next(first.buffers()).device
    shape = first(dataset.x[:1].to(device)).shape[1:]
    x = torch.empty(len(dataset), *shape)  # filled in place: a list of parts would need twice the memory
    for pixels, place in zip(dataset.x.split(ROWS), x.split(ROWS), strict=True):
        place.copy_(first(pixels.to(device)))
    return replace(dataset, x=x, features=())
