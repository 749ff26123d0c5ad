"""Spectral signatures and activation clustering beside ART's, on the same features."""

import numpy as np
import pytest
import torch
from art.defences.detector.poison import SpectralSignatureDefense
from art.defences.detector.poison.activation_defence import cluster_activations
from art.defences.detector.poison.clustering_analyzer import ClusteringAnalyzer
from torch import Tensor, nn

from aisec_lab.attacks import Backdoor, Checkerboard
from aisec_lab.data import Dataset, Splits
from aisec_lab.defenses import Standard
from aisec_lab.defenses.detection.detectors import features_of
from aisec_lab.defenses.poisoning.clustering import ActivationClustering, components, two_means
from aisec_lab.defenses.poisoning.spectral import SpectralSignatures, projection
from aisec_lab.models import CNN, Fit

Learned = tuple[Dataset, nn.Module, list[Tensor]]


@pytest.fixture(scope="module")
def learned(splits: Splits) -> Learned:
    """Digits with BadNets at 5 %, the model that has learned from them, and its features (N, D) of each class."""
    made = Backdoor(Checkerboard(2), target=3, rate=0.05)(splits.train, generator=torch.Generator().manual_seed(0))
    model = CNN(8, 32)(made.dataset.shape, 10, generator=torch.Generator().manual_seed(0))
    Fit(epochs=8, learning_rate=0.01)(model, made.dataset, Standard(), generator=torch.Generator().manual_seed(0))
    seen = features_of(model, made.dataset.x).double()
    return made.dataset, model, [seen[made.dataset.y == c] for c in range(10)]


def test_spectral_scores_are_the_squares_of_those_of_art(learned: Learned) -> None:
    """On centred features, class by class, and so the same ranking.

    Given features that are not, ART centres for the vector but not for the score; the paper centres for both.
    """
    for seen in learned[2]:
        centred = (seen - seen.mean(0)).numpy()
        theirs = SpectralSignatureDefense.spectral_signature_scores(centred)[:, 0]
        np.testing.assert_allclose(projection(seen).square().numpy(), theirs**2, rtol=1e-6, atol=1e-9)


def test_the_sanitizer_takes_out_the_rows_that_art_scores_highest(learned: Learned) -> None:
    """1.5 times the expected share of each class, by ART's cut on its own scores of the centred features."""
    dataset, model, classes = learned
    verdict = SpectralSignatures(expected=0.1)(dataset, model=model, generator=torch.Generator())
    for c, seen in enumerate(classes):
        theirs = SpectralSignatureDefense.spectral_signature_scores((seen - seen.mean(0)).numpy())[:, 0]
        out = theirs >= np.quantile(theirs, 1 - 1.5 * 0.1)
        flagged = verdict.flagged[dataset.y == c].numpy()
        assert (out != flagged).sum() <= 1  # the quantile lies between two rows, the number of rows is rounded
        assert flagged.sum() == round(0.15 * len(seen))


@pytest.mark.parametrize("c", range(10))
def test_clusters_are_those_of_art(c: int, learned: Learned) -> None:
    """On the same independent components the same two groups, but for which is called first.

    ART's components are drawn from numpy's global generator, and with another draw they may be others; they are handed
    to both. Two runs of k-means may end in different groups where a class has none: they are compared by what they
    minimise, ours with ten starts, ART's with one.
    """
    reduced = components(learned[2][c], 10, "ica", seed=0)
    assert reduced.shape == (len(learned[2][c]), 10)
    before = np.random.get_state()
    try:
        np.random.seed(0)
        (theirs,), (same,) = cluster_activations([reduced], nb_dims=10)
    finally:
        np.random.set_state(before)
    np.testing.assert_array_equal(same, reduced)
    _, small = two_means(reduced, seed=0)
    ours, peer = spread(reduced, small.numpy()), spread(reduced, theirs == 1)
    assert ours <= peer * (1 + 1e-9)
    if ours == pytest.approx(peer, rel=1e-9):
        agree = (small.numpy() == (theirs == 1)).mean()
        assert max(agree, 1 - agree) == 1


def spread(reduced: np.ndarray, group: np.ndarray) -> float:
    """The summed squared distance of rows to the mean of their group, which k-means minimises."""
    return float(sum(((rows - rows.mean(0)) ** 2).sum() for rows in (reduced[group], reduced[~group])))


def test_the_cluster_that_is_flagged_is_the_one_that_art_calls_poison(learned: Learned) -> None:
    """The smaller one of each class, by ART's analysis of size, given our clusters.

    Its two others cannot serve: with this numpy that of the relative size fails where no cluster is small, and that of
    the silhouette score fails where the score is low, and leaves the larger cluster's verdict unset where it is high.
    """
    dataset, model, classes = learned
    sanitizer = ActivationClustering(size=0.5, silhouette=-1, reduction="ica")
    flagged = sanitizer(dataset, model=model, generator=torch.Generator().manual_seed(0)).flagged
    seeds = torch.Generator().manual_seed(0)
    for c, seen in enumerate(classes):
        seed = int(torch.randint(2**31, (), generator=seeds))
        small = two_means(components(seen, 10, "ica", seed), seed)[1].numpy()
        (clean,), _, _ = ClusteringAnalyzer().analyze_by_size([small.astype(int)])
        assert small.mean() <= 0.5
        wanted = (clean == 0) & (small.mean() < 0.5)  # of two equal ones none is the smaller, and none is flagged
        np.testing.assert_array_equal(flagged[dataset.y == c].numpy(), wanted)
