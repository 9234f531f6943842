"""A table of the kinds of files that people have: how each is made, and what must be heard of it."""

from __future__ import annotations

from kinds import pcm

ROWS = [*pcm.ROWS]
