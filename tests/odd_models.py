"""Models as people have them, and answers that are none: what attacks, defenses, marks and inference are tried on."""

import pytest
import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

from aisec_lab.models import CNN

OLD = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")


def seed(number):
    return torch.Generator().manual_seed(number)


def rows_of_logits(bound, most):
    """A strategy for 2 to `most` logits of at most `bound` that nobody takes for probabilities, which are refused."""
    rows = st.lists(st.floats(-bound, bound), min_size=2, max_size=most)
    return rows.filter(lambda row: min(row) < 0 or abs(sum(row) - 1) > 0.01)


def small_model():
    """A network of four classes, not trained, in evaluation mode."""
    return CNN(width=4, hidden=8)((1, 8, 8), 4, generator=seed(0)).eval()


def small_rows(model):
    """Six inputs, and the model's own classes of them."""
    x = torch.rand(6, 1, 8, 8, generator=seed(1))
    with torch.no_grad():
        return x, model(x).argmax(1)


def last(model):
    return model[len(model) - 1]


def old_weight_norm(model):
    nn.utils.weight_norm(last(model))
    return model


def old_spectral_norm(model):
    nn.utils.spectral_norm(last(model))
    return model


def pruned(model):
    prune.l1_unstructured(last(model), "weight", 0.5)
    return model


def permuting(model):
    model.register_forward_hook(lambda _, args, logits: logits[:, [1, 2, 3, 0]])
    return model


def shifting(model):
    model.register_forward_pre_hook(lambda _, args: (1 - args[0],))
    return model


class InPlace(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.training = model, False

    def forward(self, x):
        return self.model(x.mul_(0.5).add_(0.25))


class Gan(nn.Module):
    """A part with an attribute of the name that the lab's random models use."""

    def __init__(self, model):
        super().__init__()
        self.generator, self.model, self.training = nn.Identity(), model, False

    def forward(self, x):
        return self.model(self.generator(x))


KINDS = {
    "weight norm by a hook": old_weight_norm,
    "spectral norm by a hook": old_spectral_norm,
    "pruned": pruned,
    "weight norm": lambda model: parametrizations.weight_norm(last(model)) and model,
    "orthogonal": lambda model: parametrizations.orthogonal(last(model)) and model,
    "a hook that permutes classes": permuting,
    "a hook that turns images": shifting,
    "in place": InPlace,
    "a part called generator": Gan,
    "a part used twice": lambda model: nn.Sequential(blur := nn.AvgPool2d(3, 1, 1), blur, model),
}


class Written(nn.Module):
    """The same function with nothing that looks at it: each call runs a fresh copy in evaluation mode."""

    def __init__(self, model):
        super().__init__()
        self.training = False
        self._model = [model]  # no submodule: out of everybody's reach

    def forward(self, x):
        return self._model[0](x.clone())


class Answer(nn.Module):
    """A model whose answer is what a function makes of logits."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.change, self.training = model, change, False

    def forward(self, x):
        return self.change(self.model(x))


NO_ANSWER = {
    "NaN": (lambda logits: logits * torch.nan, "NaN or infinite"),
    "infinity": (lambda logits: logits + torch.inf, "NaN or infinite"),
    "two infinities": (
        lambda logits: torch.cat([torch.full_like(logits[:, :2], torch.inf), logits[:, 2:]], 1),
        "NaN",
    ),
    "a tuple": (lambda logits: (logits, logits), "got a tuple"),
    "a dict": (lambda logits: {"logits": logits}, "got a dict"),
    "a list": (lambda logits: [logits], "got a list"),
    "no columns": (lambda logits: logits[:, 0], r"got torch.float32 of shape \(6,\)"),
    "maps": (lambda logits: logits[:, :, None, None], r"of shape \(6, 4, 1, 1\)"),
    "classes": (lambda logits: logits.argmax(1), "got torch.int64"),
    "one logit": (lambda logits: logits[:, :1], "TwoLogits"),
    "another number of rows": (lambda logits: logits[:2], r"of shape \(2, 4\)"),
}
