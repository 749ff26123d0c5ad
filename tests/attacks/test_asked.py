"""Every attack on models as people have them: it finds what it finds on a plain equivalent, or says why not."""

import copy

import pytest
import torch
from torch import nn

from aisec_lab.attacks import PGD, Linf
from aisec_lab.models import TwoLogits, frozen
from tests.attacks.every_attack import ATTACKS, found
from tests.odd_models import KINDS, NO_ANSWER, OLD, Answer, Written, seed


def made(kind, plain):
    return KINDS[kind](copy.deepcopy(plain)).eval()


@OLD
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_sees_the_model_that_is_used(name, kind, plain, rows):
    """Loaded and never run, as by `load_state_dict`; the attack finds what it finds on the function as it is."""
    model = made(kind, plain)
    with torch.no_grad():
        for weight in model.parameters():  # as if other weights had been loaded
            weight.mul_(1.1)
        y = Written(model)(rows[0]).argmax(1)
    seen, expected = (found(ATTACKS[name], each, (rows[0], y)) for each in (model, Written(model)))
    torch.testing.assert_close(seen, expected)


@OLD
@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_model_is_the_same_function(kind, plain, rows):
    model = made(kind, plain)
    with torch.no_grad():
        outside = model(rows[0].clone())
        with frozen(model):
            assert torch.equal(model(rows[0].clone()), outside)


@pytest.mark.parametrize("kind", NO_ANSWER)
@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_no_answer_is_refused_in_one_line(name, kind, plain, rows):
    change, message = NO_ANSWER[kind]
    y = torch.zeros_like(rows[1])
    with pytest.raises(ValueError, match=message) as raised:
        found(ATTACKS[name], Answer(plain, change), (rows[0], y))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - {"FGSM"}))  # which asks about the clean rows alone
def test_a_model_that_breaks_down_off_the_data_is_not_robust(name, value, plain, rows):
    """Right on the clean rows, and no number anywhere else: the attack says so, and does not call it robust."""
    x, y = (rows[0] * 255).round() / 255, rows[1]
    with torch.no_grad():
        y = plain(x).argmax(1)
    clean = x.flatten(1)

    class BreaksDown(nn.Module):
        def forward(self, points):
            off = (torch.cdist(points.detach().flatten(1), clean).amin(1) > 1e-5)[:, None]
            return torch.where(off, value, plain(points))

    with pytest.raises(ValueError, match="NaN or infinite"):
        found(ATTACKS[name], BreaksDown().eval(), (x, y))


INPUTS = {
    "an array": (lambda x, y: (x.numpy(), y), "must be torch tensors, got ndarray"),
    "a list of classes": (lambda x, y: (x, y.tolist()), "must be torch tensors, got Tensor and list"),
    "bfloat16": (lambda x, y: (x.bfloat16(), y), r"torch.bfloat16: use \.float\(\)"),
    "float16": (lambda x, y: (x.half(), y), "torch.float16"),
    "bytes": (lambda x, y: ((x * 255).byte(), y), "divide bytes by 255"),
    "int32": (lambda x, y: (x, y.int()), r"use y\.long\(\)"),
    "one-hot": (lambda x, y: (x, nn.functional.one_hot(y, 4)), r"use y\.argmax\(1\)"),
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", ATTACKS)
def test_other_inputs_are_refused_with_the_mend(name, kind, plain, rows):
    change, message = INPUTS[kind]
    with pytest.raises(ValueError, match=message):
        ATTACKS[name](plain, *change(*rows), generator=seed(0))


def test_one_logit_is_two(rows):
    """The wrapper gives sigmoid's probability, for (N, 1) and for (N,), and can be attacked."""
    torch.manual_seed(0)
    binary = nn.Sequential(nn.Flatten(), nn.Linear(64, 1)).eval()
    two = TwoLogits(binary).eval()
    assert torch.allclose(two(rows[0]).softmax(1)[:, 1], binary(rows[0]).squeeze(1).sigmoid())
    flat = TwoLogits(nn.Sequential(binary, nn.Flatten(0)).eval())
    assert torch.equal(flat(rows[0]), two(rows[0]))
    y = two(rows[0]).argmax(1)
    assert (two(PGD(Linf(0.3))(two, rows[0], y, generator=seed(0))).argmax(1) != y).any()
