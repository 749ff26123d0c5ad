"""Timed comparisons and large studies; a package of its own, since Opacus installs one of the same name."""
