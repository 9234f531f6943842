"""An index never takes a file for what it was: thousands of changes against an oracle that hashes everything."""

from __future__ import annotations


def test_no_scan_is_ever_stale(prove, soak):
    told = prove("staleness.py", seeds=10 if soak else 2, operations=5_000 if soak else 700)["tried"]
    assert told["operations"] > (50_000 if soak else 1_500)
    # Or it would prove nothing about stamps: without work in between, no file is opened.
    assert told["scans that trusted every stamp"] > 0.05 * told["scans"]
