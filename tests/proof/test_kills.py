"""A writer that dies or fails at any call leaves the old manifest or the new one, and no finished rows are lost."""

from __future__ import annotations


def test_a_writer_may_die_or_fail_at_every_call_that_changes_the_cache(prove, soak):
    if soak:
        counts = prove(
            "kills.py",
            scenarios=["first", "parts", "update", "remove", "clean", "copy", "move"],
            fates=["kill", "tear", "ENOSPC", "EIO"],
            stride=1,
        )
        assert counts["points killed"] > 200
    else:
        counts = prove("kills.py", scenarios=["parts", "update", "remove", "move"], fates=["tear", "ENOSPC"], stride=1)
        assert counts["points killed"] > 60
    assert counts["points failed"] > 60
