"""Whatever call a writer dies or fails at: the old manifest or the new one, never a mixture, and nothing is lost."""

from __future__ import annotations


def test_killed_or_failing_at_every_call_that_changes_the_cache(prove, soak):
    if soak:
        told = prove(
            "kills.py",
            scenarios=["first", "update", "remove", "clean"],
            fates=["kill", "tear", "ENOSPC", "EIO"],
            stride=1,
        )
        assert told["tried"]["points killed"] > 200
    else:
        told = prove("kills.py", scenarios=["update", "remove"], fates=["tear", "ENOSPC"], stride=1)
        assert told["tried"]["points killed"] > 60
    assert told["tried"]["points failed"] > 60
