"""In what form a sound is written: kind of file, sample format, sample rate."""

from __future__ import annotations

from dataclasses import dataclass

from distill.errors import ConfigError
from distill.types import FileFormat, SampleFormat

_LOWEST_RATE, _HIGHEST_RATE = 8_000, 192_000
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True, kw_only=True)
class SoundFormat:
    """The form of a sound file."""

    file_format: FileFormat = "wav"
    """wav, flac, ogg (Vorbis) or mp3, which is also the extension of its name."""
    sample_format: SampleFormat | None = None
    """pcm16, pcm24 or float, for wav; pcm16 or pcm24, for flac. Default: pcm24."""
    sample_rate: int | None = None
    """Hz. Default: that of the sound."""

    @property
    def suffix(self) -> str:
        """The extension of a name."""
        return f".{self.file_format}"

    @property
    def is_lossy(self) -> bool:
        """Whether what is decoded differs from what was encoded."""
        return self.file_format in ("ogg", "mp3")

    def check(self, rate: int | None = None) -> None:
        """Raise ConfigError with all faults, which name the options of the commands.

        Parameters
        ----------
        rate : int, optional
            Sample rate of the sounds, Hz. Default: not known yet.
        """
        faults = []
        if self.sample_format is not None and self.is_lossy:
            why = f"has no effect with --format {self.file_format}: leave it out"
            faults.append(f"--sample-format {self.sample_format} {why}")
        elif self.sample_format == "float" and self.file_format == "flac":
            faults.append("--sample-format float: a FLAC file holds integers: give pcm24, or --format wav")
        faults += self._rate_faults(rate)
        if faults:
            raise ConfigError(faults)

    def _rate_faults(self, rate: int | None) -> list[str]:
        wanted = self.sample_rate
        if wanted is not None and not _LOWEST_RATE <= wanted <= _HIGHEST_RATE:
            return [f"--sample-rate {wanted} must be from {_LOWEST_RATE} to {_HIGHEST_RATE} Hz"]
        final = wanted if wanted is not None else rate
        if final is None or not self.is_lossy:
            return []
        name = f"--format {self.file_format}"
        remedy = "give --sample-rate 44100" + ("" if wanted is None else f", or leave out {name}")
        if self.file_format == "mp3" and final not in _MP3_RATES:
            return [f"{name}: MP3 has no sample rate of {final} Hz: {remedy}"]
        if not _LOWEST_RATE <= final <= _HIGHEST_RATE:
            return [f"{name}: a sample rate of {final} Hz is outside {_LOWEST_RATE} to {_HIGHEST_RATE}: {remedy}"]
        return []
