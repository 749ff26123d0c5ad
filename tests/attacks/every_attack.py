"""Every evasion attack with little to do, for tests of what they all have in common."""

import torch

from aisec_lab.attacks import (
    APGD,
    DDN,
    EAD,
    FAB,
    FGSM,
    FMN,
    L1,
    L2,
    NES,
    PGD,
    AutoAttack,
    Boundary,
    BrendelBethge,
    CarliniWagner,
    DeepFool,
    GeoDA,
    HopSkipJump,
    Linf,
    SignOPT,
    SimBA,
    SpatialGrid,
    SpatialPGD,
    Square,
    WorstOfK,
)
from tests.odd_models import seed

EPS = 0.2
ATTACKS = {
    "FGSM": FGSM(Linf(EPS)),
    "PGD": PGD(Linf(EPS), steps=5, step_size=0.4),
    "APGD": APGD(Linf(EPS), steps=5),
    "Square": Square(Linf(EPS), queries=20),
    "NES": NES(Linf(EPS), queries=60),
    "AutoAttack": AutoAttack(Linf(EPS), steps=3, queries=10),
    "DeepFool": DeepFool(L2(0.0)),
    "DDN": DDN(steps=10),
    "FMN": FMN(L2(0.0), steps=10),
    "FAB": FAB(L2(0.0), steps=3),
    "CarliniWagner": CarliniWagner(steps=10, searches=2),
    "APGD in L1": APGD(L1(1.0), steps=5, larger_first=True),
    "Square in L1": Square(L1(1.0), queries=20),
    "EAD": EAD(steps=20, searches=2, step_size=0.05, beta=0.005, first_c=1.0),
    "BrendelBethge": BrendelBethge(L2(0.0), steps=5),
    "Boundary": Boundary(L2(0.0), queries=60),
    "HopSkipJump": HopSkipJump(L2(0.0), queries=200, samples=10),
    "SimBA": SimBA(Linf(EPS), queries=20),
    "SignOPT": SignOPT(L2(0.0), queries=60, directions=5, samples=10),
    "GeoDA": GeoDA(L2(0.0), queries=60, samples=5),
    "SpatialGrid": SpatialGrid(angles=3, shifts=3),
    "WorstOfK": WorstOfK(k=5),
    "SpatialPGD": SpatialPGD(steps=5),
}


def found(attack, model, rows):
    x, y = rows
    given = x.clone(), y.clone()
    result = attack(model, *given, generator=seed(2))
    assert torch.equal(given[0], x)
    assert torch.equal(given[1], y)
    return getattr(result, "x_adv", result)
