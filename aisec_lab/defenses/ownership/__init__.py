"""Proof of ownership: watermarks that are embedded in a model, and fingerprints that it has without one."""
