"""Readers of audio files: one module a reader, and the table that says which one reads what."""
