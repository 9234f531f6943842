"""The table of readers: which ones are tried for which kind of file, in order."""

from __future__ import annotations

from distill.audio.readers import native
from distill.audio.readers.aiff import open_aiff
from distill.audio.readers.au import open_au
from distill.audio.readers.caf import open_caf
from distill.audio.readers.ffmpeg import FFMPEG_KINDS, FfmpegSound, or_with_ffmpeg, variant_with_ffmpeg, with_ffmpeg
from distill.audio.readers.ircam import open_ircam
from distill.audio.readers.kinds import NAMES, kind_of, refusal, start_of
from distill.audio.readers.libsndfile import LibsndfileSound, open_compressed_wav, open_pvf
from distill.audio.readers.mpc2000 import open_mpc2000
from distill.audio.readers.ogg import OggSound
from distill.audio.readers.protocol import UNFORESEEN, ByteSource, NotForMeError, Opener, PartOpener, Sound, SoundError
from distill.audio.readers.riff import open_wav, open_wave64
from distill.audio.readers.sphere import open_sphere
from distill.audio.readers.views import View
from distill.audio.readers.voc import open_voc
from distill.types import Reason


def behind_tags(opener: PartOpener) -> Opener:
    """Return `opener` for files whose sound begins behind ID3 tags, which most formats do not know."""

    def open_behind_tags(source: ByteSource) -> Sound:
        start = start_of(source)
        return opener(View(source, start) if start else source)

    return open_behind_tags


def _variant(kind: str) -> Opener:
    return behind_tags(variant_with_ffmpeg(LibsndfileSound, kind))


def _open_mp4(source: ByteSource) -> Sound:
    start = start_of(source)  # offsets in it do not count a tag
    return FfmpegSound(View(source, start), kind="mp4") if start else or_with_ffmpeg(native.open_mp4, "mp4")(source)


_LIBSNDFILE = behind_tags(LibsndfileSound)
READERS: dict[str, tuple[Opener, ...]] = {
    "wav": (behind_tags(open_wav), native.open_mpeg, behind_tags(or_with_ffmpeg(open_compressed_wav, "wav"))),
    "w64": (behind_tags(open_wave64), _variant("w64")),
    "aiff": (behind_tags(open_aiff), _variant("aiff")),
    "caf": (behind_tags(open_caf), or_with_ffmpeg(native.open_caf, "caf"), _variant("caf")),
    "au": (behind_tags(open_au), _variant("au")),
    "sphere": (open_sphere,),
    "ircam": (open_ircam,),
    "voc": (or_with_ffmpeg(open_voc, "voc"),),
    "mpc2000": (open_mpc2000,),
    "svx": (_variant("svx"),),
    "paf": (_LIBSNDFILE,),
    "pvf": (behind_tags(open_pvf),),
    "avr": (_LIBSNDFILE,),
    "xi": (_LIBSNDFILE,),
    "flac": (native.open_flac,),
    "ogg": (or_with_ffmpeg(OggSound, "ogg"), native.open_ogg_flac),
    "mpeg": (native.open_mpeg,),
    "aac": (or_with_ffmpeg(native.open_adts, "aac"),),
    "mp4": (_open_mp4,),
}
READERS = {kind: (with_ffmpeg(kind),) for kind in FFMPEG_KINDS} | READERS


def open_sound(source: ByteSource) -> Sound:
    """Open a file with the first reader of its kind that takes it.

    Raises
    ------
    SoundError
        If it cannot be decoded.
    OSError
        If it cannot be read.
    """
    try:
        return _opened(source)
    except UNFORESEEN as error:
        raise SoundError(Reason("cannot be decoded: its header is damaged", "damaged")) from error


def _opened(source: ByteSource) -> Sound:
    kind = kind_of(source)
    if kind is None:
        raise SoundError(refusal(source))
    for opener in READERS.get(kind, ()):
        try:
            return opener(source)
        except NotForMeError:
            continue
    raise SoundError(Reason(f"is {NAMES[kind]}, or a variant of it, that distill does not read", "not-decodable"))
