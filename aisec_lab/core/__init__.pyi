from .generators import generator
from .intervals import bounded_mean, clopper_pearson, median_interval, poisson_interval
from .row_noise import RowNoise

__all__ = ["RowNoise", "bounded_mean", "clopper_pearson", "generator", "median_interval", "poisson_interval"]
