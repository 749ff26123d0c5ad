"""Attacks on the proof of ownership: what a thief does so that a watermark or fingerprint is no longer found."""
