"""A table of the kinds of files that people have: how each is made, and what must be heard of it."""

from __future__ import annotations

from kinds import flac, mp4, mpeg, ogg, others, pcm, wav

ROWS = [*wav.ROWS, *pcm.ROWS, *mpeg.ROWS, *flac.ROWS, *ogg.ROWS, *mp4.ROWS, *others.ROWS]
