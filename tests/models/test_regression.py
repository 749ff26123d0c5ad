"""Kernel ridge regression, against scikit-learn's."""

import pytest
import torch
from sklearn.kernel_ridge import KernelRidge as Reference

from aisec_lab.models import KernelRidge


def test_it_answers_as_scikit_learn_does():
    """On values whose mean is taken out first, which scikit-learn leaves to the caller."""
    generator = torch.Generator().manual_seed(0)
    x, new = torch.rand(60, 5, generator=generator), torch.rand(20, 5, generator=generator)
    y = (3 * x[:, 0]).sin() + x[:, 1] * x[:, 2]
    model = KernelRidge(width=0.4, ridge=0.05)(x, y)
    reference = Reference(alpha=0.05, kernel="rbf", gamma=1 / (2 * 0.4**2)).fit(x.numpy(), (y - y.mean()).numpy())
    expected = torch.from_numpy(reference.predict(new.numpy())) + y.mean()
    assert not model.training
    assert torch.allclose(model(new), expected[:, None].float(), atol=1e-4)


def test_settings_that_cannot_be_are_refused():
    """Both must be positive."""
    for settings in ({"width": 0}, {"ridge": -1}):
        with pytest.raises(ValueError, match="width and ridge must be positive"):
            KernelRidge(**settings)
