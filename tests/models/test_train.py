"""A model that is built and trained in one call."""

import torch

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import MLP, Fit, logits_of, train_model


def test_it_draws_the_weights_first_and_then_what_training_draws():
    """The same model, to the last bit, as by hand from one generator; it is ready to be asked."""
    y = torch.arange(2).repeat(20)
    x = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
    dataset = Dataset(x, y, ("a", "b"), "rows")
    architecture, fit, seed = MLP((4,)), Fit(epochs=2, batch_size=8), 5
    ours = train_model(architecture, fit, dataset, Standard(), generator=torch.Generator().manual_seed(seed))
    rng = torch.Generator().manual_seed(seed)
    by_hand = architecture(dataset.shape, 2, generator=rng)
    fit(by_hand, dataset, Standard(), generator=rng)
    assert torch.equal(logits_of(ours, x), logits_of(by_hand, x))
    assert not ours.training
