"""Files that were skipped for a reason that no longer holds."""

from __future__ import annotations

from distill.extensions import NEEDS_FFMPEG, has_ffmpeg
from distill.index import Manifest


def forget_what_can_be_read(manifest: Manifest) -> None:
    """Forget the files that were skipped for want of FFmpeg, if it is there now."""
    if has_ffmpeg():
        manifest.forget_skipped(NEEDS_FFMPEG)
