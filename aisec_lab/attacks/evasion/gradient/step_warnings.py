"""Steps in units of eps, and the trap for whoever comes from a library where they are in units of the inputs."""

import warnings

FROM_CENTRE, FROM_ANYWHERE = 1.0, 1.5  # how far steps must lead, in units of eps, to reach what a ball holds


def warn_of_short_steps(attack: str, steps: int, step_size: float, *, fewest: float, stacklevel: int = 4) -> None:
    """Warn where steps are too few or too short to reach what a ball holds.

    Args:
        attack: its name.
        steps: how many.
        step_size: the length of each, in units of eps.
        fewest: how far they must lead, in units of eps.
        stacklevel: of the warning; by default that of whoever makes an attack that is a dataclass.
    """
    far = steps * step_size
    if far < fewest:
        warnings.warn(
            f"{attack}: {steps} steps of {step_size:g} eps lead {far:.2g} eps far, less than {fewest:g}, so that a "
            "model may look robust where it is not. step_size is in units of eps here; other libraries have it in "
            "those of the inputs: what is 2 / 255 there, in a ball of 8 / 255, is step_size=0.25 here",
            stacklevel=stacklevel,
        )
