"""A model that is built and trained in one call."""

import torch
from torch import nn

from aisec_lab.data import Dataset
from aisec_lab.models.layers import Architecture
from aisec_lab.models.training.fit import Fit, Objective
from aisec_lab.models.training.recipe import TrainingRecipe


def train_model(
    architecture: Architecture,
    fit: Fit,
    dataset: Dataset,
    objective: Objective | TrainingRecipe,
    *,
    generator: torch.Generator,
    device: str | torch.device = "cpu",
) -> nn.Sequential:
    """Build a new classifier for a dataset and train it there.

    Args:
        architecture: builds the classifier for the shape and the classes of `dataset`.
        fit: the training loop.
        dataset: rows (N, *input) in [0, 1] with classes (N,).
        objective: what the training minimises, or a recipe that drives the loop.
        generator: source of the weights first, then of all that the training draws.
        device: where the model is trained, and stays.

    Returns:
        The trained classifier, in evaluation mode.

    Raises:
        ValueError: what `architecture` or `fit` refuses.
    """
    model = architecture(dataset.shape, len(dataset.classes), generator=generator).to(device)
    fit(model, dataset, objective, generator=generator)
    return model
