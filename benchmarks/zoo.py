"""Published robust classifiers from a mirror: their papers' architectures, their weights held to a sha256."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aisec_lab.core.files import sha256_of
from aisec_lab.models import Normalised

SHA256 = {
    "convex_adversarial/mnist_0_1.pth": "95014ab0c04c73f48b3be0cb7acc42aff60ce4420c6c43bec25e9a1447279e08",
    "convex_adversarial/fashion_mnist_0_1.pth": "b90cca41cc42b427d5ba1d1c10d90a5a8b6b5219538a3a4d1c6f825d3f612bc5",
    "abcrown/resnet2b.pth": "ef824b47175668e924d7fd409b5ef7e239012b8f0c31fefa66c643efda1eb05b",
}


class Published(NamedTuple):
    """A classifier of somebody else, the data set that it was made for, and the Linf budgets it was judged at."""

    build: Callable[[], nn.Module]
    weights: str
    data: str
    budgets: tuple[float, ...]


class Block(nn.Module):
    """Two convolutions and a shortcut: (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride)) if stride > 1 else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.conv2(torch.relu(self.conv1(x))))


class ResNet2b(nn.Module):
    """A convolution, two residual blocks, two linear layers, for CIFAR-10 (alpha-beta-CROWN, cifar10_resnet)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = nn.Sequential(Block(8, 16, 2), Block(16, 16, 1))
        self.linear1 = nn.Linear(1024, 100)
        self.linear2 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        features = self.layer1(torch.relu(self.conv1(x))).flatten(1)
        logits: Tensor = self.linear2(torch.relu(self.linear1(features)))
        return logits


def wong_kolter() -> nn.Sequential:
    """Two strided convolutions and two linear layers, for 28x28 (Wong & Kolter, 2018; locuslab/convex_adversarial)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


MODELS = {
    "mnist_0_1": Published(wong_kolter, "convex_adversarial/mnist_0_1.pth", "mnist", (0.1,)),
    "fashion_mnist_0_1": Published(wong_kolter, "convex_adversarial/fashion_mnist_0_1.pth", "fashion_mnist", (0.1,)),
    "resnet2b": Published(ResNet2b, "abcrown/resnet2b.pth", "cifar10", (1 / 255, 2 / 255)),
}
NORMALISED = {"cifar10": ([0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616])}  # mean and std, of resnet2b


def load(published: Published, mirror: Path) -> nn.Module:
    """The classifier with its weights, in evaluation mode, its normalisation inside.

    Raises:
        ValueError: the file's sha256 is another.
    """
    path = mirror / "models" / published.weights
    if sha256_of(path) != SHA256[published.weights]:
        raise ValueError(f"{path}: sha256 {sha256_of(path)}, expected {SHA256[published.weights]}: get it anew")
    weights = torch.load(path, map_location="cpu", weights_only=True)
    model = published.build()
    model.load_state_dict(weights.get("state_dict", weights))
    before = [Normalised(*NORMALISED[published.data])] if published.data in NORMALISED else []
    return nn.Sequential(*before, model).eval()
