"""The softmax regression that label flips are judged by."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from aisec_lab.attacks.poisoning.softmax import fit_softmax
from aisec_lab.data import Dataset
from aisec_lab.evaluation import count_correct


def test_it_is_scikit_learns_where_the_bias_is_a_column():
    """The same probabilities: its C is 1 / (n penalty), and the bias is penalised as any weight."""
    source = torch.Generator().manual_seed(0)
    x, y = torch.rand(60, 4, generator=source), torch.randint(3, (60,), generator=source)
    dataset = Dataset(x, y, ("a", "b", "c"), "rows")
    ours = fit_softmax(dataset, 0.01)
    columns = np.concatenate([x.double().numpy(), np.ones((60, 1))], 1)
    peer = LogisticRegression(C=1 / (60 * 0.01), fit_intercept=False, tol=1e-10, max_iter=5000).fit(columns, y)
    np.testing.assert_allclose(ours(x).softmax(1).numpy(), peer.predict_proba(columns), atol=1e-6)
    assert count_correct(ours, dataset) == int((peer.predict(columns) == y.numpy()).sum())


def test_images_and_a_penalty_of_nothing_are_refused():
    """One line each."""
    rows = Dataset(torch.rand(4, 2), torch.tensor([0, 1, 0, 1]), ("a", "b"), "rows")
    images = Dataset(torch.rand(4, 1, 2, 2), rows.y, rows.classes, "images")
    with pytest.raises(ValueError, match="rows of a table"):
        fit_softmax(images, 0.01)
    with pytest.raises(ValueError, match="penalty must be positive"):
        fit_softmax(rows, 0.0)
