"""PIHA: query-based attacks send nearly equal images, whose perceptual hashes agree in most blocks."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aisec_lab.defenses.monitors.similarity import NONE, SimilarityMonitor

REMEMBERED = 20_000  # latest queries of a group that are kept
ROUNDING = 1e-6  # by which sums of pixels that are equal may differ
GAUSS = torch.tensor([0.274068619061197, 0.451862761877606, 0.274068619061197], dtype=torch.float64)  # sigma 1


def _circle() -> Tensor:
    """Weights (8, 1, 3, 3) that read 8 points on the circle of radius 1 around a cell, by bilinear interpolation."""
    weights = torch.zeros(8, 1, 3, 3, dtype=torch.float64)
    for point, angle in enumerate(torch.arange(8, dtype=torch.float64) * torch.pi / 4):
        down, right = angle.sin(), angle.cos()
        for i in range(3):
            for j in range(3):
                weights[point, 0, i, j] = (1 - (down - (i - 1)).abs()).clamp(0) * (1 - (right - (j - 1)).abs()).clamp(0)
    return weights


CIRCLE = _circle()


def hue(x: Tensor) -> Tensor:
    """The hue of colours.

    Args:
        x: images (N, 3, H, W), red, green and blue in [0, 1].

    Returns:
        Hues (N, 1, H, W) in degrees, [0, 360); 0 for grey.
    """
    red, green, blue = x.unbind(1)
    highest, which = x.max(1)
    spread = highest - x.amin(1)
    unit = torch.where(spread > 0, spread, 1)
    sector = torch.stack([(green - blue) / unit, 2 + (blue - red) / unit, 4 + (red - green) / unit], 1)
    return 60 * sector.gather(1, which[:, None]).remainder(6)


def local_binary_patterns(cells: Tensor) -> Tensor:
    """Local binary patterns with 8 points at radius 1 (Ojala et al., 2002, doi:10.1109/TPAMI.2002.1017623, section 2).

    Args:
        cells: (N, 1, H, W), float64; what lies outside counts as 0.

    Returns:
        Codes (N, H, W), uint8: bit p is set if the value at point p is at least that of the cell.
    """
    bits = F.conv2d(cells, CIRCLE, padding=1) >= cells - ROUNDING
    return (bits * (2 ** torch.arange(8))[:, None, None]).sum(1).to(torch.uint8)


def perceptual_hash(x: Tensor, block: int) -> Tensor:
    """The hash of images: a local binary pattern for each block.

    Args:
        x: images (N, C, H, W) in [0, 1], C 1 or 3, at least 2 x 2.
        block: side of a block in pixels. Zeros fill the last blocks.

    Returns:
        Hashes (N, blocks), uint8.

    Raises:
        ValueError: inputs that are no such images.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < 2:
        raise ValueError(
            f"PIHA hashes images (N, C, H, W) with 1 or 3 channels, at least 2 x 2, got {tuple(x.shape)}: "
            "take Blacklight for other inputs"
        )
    channels, height, width = x.shape[1:]
    kernel = (GAUSS[:, None] * GAUSS).expand(channels, 1, 3, 3)
    blurred = F.conv2d(F.pad(x.double(), (1, 1, 1, 1), mode="reflect"), kernel, groups=channels)
    plane = hue(blurred) if channels == 3 else blurred
    plane = F.pad(plane, (0, -width % block, 0, -height % block))
    return local_binary_patterns(F.avg_pool2d(plane, block) * block**2).flatten(1)


class HashHistory:
    """The latest hashes of a group of clients.

    Args:
        blocks: length of a hash.
    """

    def __init__(self, blocks: int) -> None:
        self._hashes = np.zeros((0, blocks), dtype=np.uint8)
        self._numbers = np.zeros(0, dtype=np.int64)
        self._added = 0

    def nearest(self, row: np.ndarray) -> tuple[float, int]:
        """The largest share of equal blocks (blocks,) with a hash, and the latest query that has it."""
        kept = min(self._added, REMEMBERED)
        if not kept:
            return NONE
        equal, numbers = np.count_nonzero(self._hashes[:kept] == row, axis=1), self._numbers[:kept]
        most = int(equal.max())
        return (most / len(row), int(numbers[equal == most].max())) if most else NONE

    def add(self, row: np.ndarray, number: int) -> None:
        """Keep the hash (blocks,) of a query with this number, in the place of the oldest if there are too many."""
        if self._added == len(self._hashes) < REMEMBERED:
            size = min(max(16, 2 * self._added), REMEMBERED)
            self._hashes = np.concatenate([self._hashes, np.zeros((size - self._added, len(row)), dtype=np.uint8)])
            self._numbers = np.concatenate([self._numbers, np.zeros(size - self._added, dtype=np.int64)])
        place = self._added % REMEMBERED
        self._hashes[place], self._numbers[place] = row, number
        self._added += 1


class PIHA(SimilarityMonitor):
    """Detect images whose perceptual hash is that of an earlier query (Choi et al., 2023).

    The image is smoothed, the hue is summed in blocks, and each block gets a local binary pattern. The similarity of
    two queries is the share of blocks with equal patterns.

    The method is as Feng et al. (2023, arXiv:2303.06280) implement it: Gaussian filter 3 x 3, sigma 1; blocks of 7
    pixels; patterns of 8 points at radius 1; alarm at a Hamming distance of .05. Differences: the hue of a grey image
    is constant, so its intensity is taken; only the latest 20,000 queries are kept.

    A query costs one comparison with each hash that is kept.

    Call contract: `QueryMonitor`. Inputs are images (N, C, H, W) with 1 or 3 channels.

    Args:
        threshold: share of equal blocks, in [0, 1), above which an alarm is raised.
        block: side of a block in pixels, at least 1. Images of 8 x 8 need smaller blocks than the paper's.
        shared: compare with the queries of all clients.
        withhold: refuse all answers to a client from its first alarm on.

    Raises:
        ValueError: a setting out of range; on a call, inputs that are no images.
    """

    def __init__(
        self, threshold: float = 0.95, *, block: int = 7, shared: bool = False, withhold: bool = False
    ) -> None:
        if not 0 <= threshold < 1 or block < 1:
            raise ValueError(f"threshold must lie in [0, 1) and block be at least 1, got {threshold} and {block}")
        super().__init__(threshold, shared, withhold)
        self.block = block
        self._groups: dict[str, HashHistory] = {}

    def nearest(self, client: str, x: Tensor) -> list[tuple[float, int]]:
        """For each query, the largest share of blocks that are equal in one earlier query, and that query."""
        hashes = perceptual_hash(x, self.block).numpy()
        history = self._groups.setdefault(self.group(client), HashHistory(hashes.shape[1]))
        found = []
        for row in hashes:
            found.append(history.nearest(row))
            history.add(row, self.next_number())
        return found
