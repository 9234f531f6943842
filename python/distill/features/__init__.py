"""Two-channel mel features of a waveform, and their inverse."""

FEATURE_VERSION = 1
"""Increment when the same samples would give other features: every cache is then recomputed."""
