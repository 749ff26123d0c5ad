"""A linear classifier of scattering coefficients, which are fixed features and cost no privacy."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.models.training.fit import Objective
from aisec_lab.models.training.recipe import TrainingJob, TrainingRecipe

ROWS = 500  # per pass of the transform; some 100 MB for images of 28x28


class Scattering(nn.Module):
    """The scattering transform of order two (Bruna & Mallat, 2013, arXiv:1203.1513), by kymatio; differentiable.

    Args:
        height, width: of the images.
        scales: J, number of wavelet sizes; coefficients are computed at every 2^J-th pixel.
        angles: L, number of directions. There are 1 + J L + L^2 J (J - 1) / 2 paths: 81 by default.
    """

    def __init__(self, height: int, width: int, scales: int = 2, angles: int = 8) -> None:
        from kymatio.torch import Scattering2D  # slow to import: it loads scipy

        super().__init__()
        self.transform = Scattering2D(J=scales, L=angles, shape=(height, width))
        for name, wavelet in list(self.transform.named_buffers()):
            self.transform.register_buffer(name, wavelet, persistent=False)  # fixed, so no part of a checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """Coefficients in [0, 1] of images x (N, C, H, W), shape (N, C * paths, H / 2^J, W / 2^J)."""
        coefficients: Tensor = self.transform(x.contiguous())  # (N, C, paths, H / 2^J, W / 2^J)
        return coefficients.flatten(1, 2).clamp(0, 1)  # the truncated low-pass filter reaches 3e-4 below 0


@dataclass(frozen=True)
class ScatteringLinear:
    """Normalised scattering coefficients and a linear layer (Tramèr & Boneh, 2021, arXiv:2011.11660, section 2).

    The coefficients of an image are normalised by its own mean and variance in groups of channels (GroupNorm without
    weights), so only the linear layer depends on training rows. `ThroughScattering` trains it in a fraction of the
    time.

    Args:
        scales: J of `Scattering`.
        angles: L of `Scattering`.
        groups: of GroupNorm; must divide the channels of the coefficients.
    """

    scales: int = 2
    angles: int = 8
    groups: int = 27  # for one channel of colour: three paths a group

    def __call__(self, shape: tuple[int, ...], classes: int, *, generator: torch.Generator) -> nn.Sequential:
        """Build a classifier.

        Args:
            shape: of one input: (channels, height, width), with sides of at least 2^scales.
            classes: number of classes K.
            generator: not used: the problem is convex, and the weights start at 0.

        Returns:
            A classifier of inputs (N, *shape) in [0, 1] to logits (N, K).

        Raises:
            ValueError: another shape, smaller images, or channels of coefficients that `groups` does not divide.
        """
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
    """Train the layers after a model's `Scattering` on coefficients that are computed once, not in every epoch.

    The transform is fixed and does not mix rows, so the losses and the privacy are those of the whole model. Contract
    of `run`: `TrainingRecipe`; it raises ValueError for a model that does not begin with `Scattering`.

    Args:
        objective: an objective, or a recipe such as `DPSGD`. Its inputs are coefficients, so it must not perturb pixels
            as adversarial training does.
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
    """Replace the images of a dataset by their scattering coefficients.

    Args:
        model: begins with `Scattering`, as those of `ScatteringLinear` do.
        dataset: images.

    Returns:
        The same rows and classes with coefficients in [0, 1], float32: 0.95 GB for 60,000 images of 28x28.

    Raises:
        ValueError: a model that does not begin with `Scattering`.
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
