"""DVC's graph and cache, run in parallel: what `aisec repro` is made of."""
