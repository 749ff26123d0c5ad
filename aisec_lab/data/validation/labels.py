"""Rows whose label does not fit them, by confident learning."""

import warnings

import numpy as np

FOLDS, NEIGHBOURS, COMPONENTS = 10, 10, 50


def mislabelled(x: np.ndarray, y: np.ndarray, agreement: float) -> np.ndarray | None:
    """Which labels are probably wrong (Northcutt, Jiang & Chuang, 2021, arXiv:1911.00068; cleanlab).

    Each row's probabilities come from its ten nearest neighbours, on fifty principal components, among the nine tenths
    of the rows that it is not in. Of each pair of classes as many are pruned as the confident joint counts. A row is
    accused only where, besides, its own label has a small probability.

    Args:
        x: rows (N, D).
        y: their labels (N,).
        agreement: the largest share of neighbours with its label at which a row can be accused.

    Returns:
        (N,), bool; a row of a class with fewer than ten rows is never accused. None where the neighbours name the label
        no more often than the most frequent label is right (by three standard errors): then they accuse at random.
    """
    from cleanlab.filter import find_label_issues  # seconds that nothing else should pay
    from sklearn.decomposition import PCA
    from sklearn.model_selection import StratifiedKFold
    from sklearn.neighbors import KNeighborsClassifier

    accused = np.zeros(len(y), bool)
    known, counts = np.unique(y, return_counts=True)
    often = np.isin(y, known[counts >= FOLDS])
    if (counts >= FOLDS).sum() < 2:
        return None
    x, (_, y) = x[often], np.unique(y[often], return_inverse=True)
    components = min(COMPONENTS, *x.shape)
    z = PCA(components, svd_solver="covariance_eigh").fit_transform(x.astype(np.float32))
    p = np.zeros((len(y), int(y.max()) + 1))
    for train, held in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(z, y):
        p[held] = KNeighborsClassifier(NEIGHBOURS).fit(z[train], y[train]).predict_proba(z[held])
    right, chance = (p.argmax(1) == y).mean(), np.bincount(y).max() / len(y)
    if right <= chance + 3 * np.sqrt(chance * (1 - chance) / len(y)):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        issues = find_label_issues(y, p, filter_by="prune_by_noise_rate", n_jobs=1)
    accused[often] = issues & (p[np.arange(len(y)), y] <= agreement + 1e-9)
    return accused
