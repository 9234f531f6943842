"""A killed writer does not block others, and a reader never gets a wrong row."""

from __future__ import annotations


def test_writers_killed_at_random_leave_a_valid_cache(prove, soak):
    counts = prove("chaos.py", seed=0, rounds=1_000 if soak else 60)
    assert counts["writers killed at random"] > (300 if soak else 10)
    assert counts["writers left alone"] > (300 if soak else 10)
    assert counts["rows read during writes"] > 1_000
