"""The table of readers: which ones are tried for which kind of file, in order."""

from __future__ import annotations

from distill.audio.readers.kinds import kind_of
from distill.audio.readers.libsndfile import LibsndfileSound
from distill.audio.readers.protocol import ByteSource, NotForMeError, Opener, Sound, SoundError
from distill.types import Reason

READERS: dict[str, tuple[Opener, ...]] = {
    "riff": (LibsndfileSound,),
    "caf": (LibsndfileSound,),
    "au": (LibsndfileSound,),
    "flac": (LibsndfileSound,),
    "ogg": (LibsndfileSound,),
    "mpeg": (LibsndfileSound,),
}


def open_sound(source: ByteSource) -> Sound:
    """Open a file with the first reader of its kind that takes it.

    Raises
    ------
    SoundError
        If it cannot be decoded.
    OSError
        If it cannot be read.
    """
    kind = kind_of(source)
    if kind is None:
        raise SoundError(Reason("is no audio file of a known kind", "not-audio"))
    for opener in READERS[kind]:
        try:
            return opener(source)
        except NotForMeError:
            continue
    raise SoundError(Reason(f"holds {kind} audio that no reader takes", "not-decodable"))
