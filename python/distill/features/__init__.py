"""The two-channel mel feature of a waveform, and its inverse."""

FEATURE_VERSION = 1
"""Raise when the same samples would give other features: every cache is then computed anew."""
