"""Extensions of audio and video files: which are read, which could be, and what to do about those that are not."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Mapping
from functools import cache

from distill.text import counted, printable

logger = logging.getLogger(__name__)

AUDIO_EXTENSIONS: tuple[str, ...] = (
    *("wav", "wave", "bwf", "w64", "rf64", "bw64"),
    *("flac", "fla", "ogg", "oga", "opus"),
    *("mp3", "mp2", "mp1", "mpga", "mpa"),
    *("m4a", "m4b", "m4r", "aac", "adts", "alac"),
    *("aif", "aiff", "aifc", "aiffc", "afc", "caf", "caff"),
    *("au", "snd", "sf", "ircam", "sph", "nist", "voc", "8svx", "svx", "iff", "paf", "fap", "pvf", "avr", "xi"),
)
"""File extensions that count as audio, in any case. What is in a file is decided by its first bytes."""

FFMPEG_EXTENSIONS: tuple[str, ...] = (
    *("wma", "asf", "xwma", "wv", "ape", "tta", "tak", "shn", "mpc", "mp+", "spx"),
    *("ac3", "eac3", "ec3", "dts", "dtshd", "mlp", "thd", "truehd", "dsf", "dff"),
    *("weba", "mka", "amr", "awb", "3ga", "dss", "ra", "oma", "aa3", "at3", "vqf", "latm", "loas", "qoa"),
    *("sox", "hcom", "wve", "maud", "nut"),
    *("mp4", "m4v", "mov", "qt", "3gp", "3g2", "webm", "mkv", "mk3d", "avi", "divx", "wmv", "flv", "f4v", "f4a"),
    *("ogv", "ogm", "ogx", "mpg", "mpeg", "vob", "mts", "m2ts", "rm", "rmvb", "mxf", "dv"),
)
"""Extensions of files that are read where FFmpeg's libraries are installed, as the Python package av."""

NEEDS_FFMPEG = "needs-ffmpeg"
"""The code of the reason of files that only FFmpeg reads."""

_INSTALL = "pip install 'distill[ffmpeg]'"
_REPAIR = "pip install --force-reinstall av, which is installed and cannot be loaded"
_EXPORT = "export WAV from a program that opens them"
_PROTECTED = "they are protected against copying"
_UNREAD: dict[str, str] = {
    **dict.fromkeys(("sd2", "rex", "rx2", "rcy", "ncw", "sf2", "sf3", "gig", "aup3", "omf", "aaf"), _EXPORT),
    **dict.fromkeys(("m4p", "aax", "aaxc"), _PROTECTED),
    **dict.fromkeys(("smp", "txw", "sds"), "convert them to WAV with SoX"),
    **dict.fromkeys(
        ("gsm", "sln", "vox", "htk", "aptx"), "samples without a header that says enough; convert them to WAV"
    ),
    "ofr": "convert them to FLAC",
    "pcm": "raw samples do not say what they are; convert them to WAV",
    "cda": "they only point to the tracks of a CD; copy those as WAV or FLAC",
}
"""Extensions of other audio files, and what to do about them."""


def has_ffmpeg(*, loads: bool = True) -> bool:
    """Whether FFmpeg's libraries are there, as the Python package av, and can be loaded.

    `loads`: find out whether they can, by loading them.
    """
    return _is_installed() and (not loads or _is_loadable())


def ffmpeg_remedy() -> str:
    """Return what to do about files that only FFmpeg reads, where it is not there."""
    return _REPAIR if _is_installed() and not _is_loadable() else _INSTALL


def _is_installed() -> bool:
    return importlib.util.find_spec("av") is not None


@cache
def _is_loadable() -> bool:
    """Whether av can be imported. It takes no longer than NumPy; if it fails, that is logged once."""
    try:
        importlib.import_module("av")
    except (ImportError, OSError) as error:
        text = "the package av, which reads files with FFmpeg, is installed and cannot be loaded: %s"
        logger.warning(text, printable(str(error)))
        return False
    return True


def read_extensions(*, loads_ffmpeg: bool = True) -> tuple[str, ...]:
    """Return the extensions of the files that are read with what is installed; `loads_ffmpeg`: see `has_ffmpeg`."""
    return AUDIO_EXTENSIONS + FFMPEG_EXTENSIONS if has_ffmpeg(loads=loads_ffmpeg) else AUDIO_EXTENSIONS


def unread_extensions(*, loads_ffmpeg: bool = True) -> tuple[str, ...]:
    """Return the extensions of other audio and video files. They are counted, so that a message can name them."""
    return tuple(_UNREAD) if has_ffmpeg(loads=loads_ffmpeg) else (*FFMPEG_EXTENSIONS, *_UNREAD)


def unread_lines(unread: Mapping[str, int]) -> list[str]:
    """Return a line about each kind of file that is not read: how many there are, and the remedy.

    Parameters
    ----------
    unread : mapping
        Number of files by extension.
    """
    lines = []
    for extension, number in unread.items():
        remedy = _UNREAD.get(extension) or ffmpeg_remedy()
        verb = "is" if number == 1 else "are"
        lines.append(f"{counted(number, f'.{extension} file')} {verb} not read: {remedy}")
    return lines
