"""A warning for step sizes given in units of the inputs, as in other libraries, instead of units of eps."""

import warnings

FROM_CENTRE, FROM_ANYWHERE = 1.0, 1.5  # total length of steps, in units of eps, to reach any point of a ball


def warn_of_short_steps(attack: str, steps: int, step_size: float, *, min_distance: float, stacklevel: int = 4) -> None:
    """Warn if all steps together are too short to reach every point of a ball.

    Args:
        attack: its name.
        steps: their number.
        step_size: length of a step, in units of eps.
        min_distance: the total length that is needed, in units of eps.
        stacklevel: of the warning; the default names the caller of a dataclass's constructor.
    """
    distance = steps * step_size
    if distance < min_distance:
        warnings.warn(
            f"{attack}: {steps} steps of {step_size:g} eps lead {distance:.2g} eps far, less than {min_distance:g}, so "
            "that a model may look robust where it is not. step_size is in units of eps here; other libraries have it "
            "in those of the inputs: what is 2 / 255 there, in a ball of 8 / 255, is step_size=0.25 here",
            stacklevel=stacklevel,
        )
