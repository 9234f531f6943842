"""Nobody waits for a dead writer, and nobody reads a wrong row."""

from __future__ import annotations


def test_writers_killed_at_random_beside_a_reader(prove, soak):
    told = prove("chaos.py", seed=0, rounds=1_000 if soak else 60)["tried"]
    assert told["writers killed at random"] > (300 if soak else 10)
    assert told["writers left alone"] > (300 if soak else 10)
    assert told["rows read beside writers"] > 1_000
