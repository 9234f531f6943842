"""A scan finds every change: thousands of random changes, compared with hashing every file."""

from __future__ import annotations


def test_every_scan_finds_all_changes(prove, soak):
    counts = prove("staleness.py", seeds=10 if soak else 2, operations=5_000 if soak else 700)
    assert counts["operations"] > (50_000 if soak else 1_500)
    # Scans that hashed no file must occur, or nothing would be proved about stamps.
    assert counts["scans that trusted every stamp"] > 0.05 * counts["scans"]
