"""Which files a job computes that shares a dataset with others."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from distill.errors import ConfigError

_TIP = "the first of four jobs is --shard 1/4"


@dataclass(frozen=True)
class Shard:
    """Which share of a dataset's files a job computes. A file's name alone decides, so jobs need not know each other.

    Parameters
    ----------
    number, count : int
        The job, from 1, and the number of jobs.

    Raises
    ------
    ConfigError
        If there is no such job.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ConfigError([f"shard={self.number}/{self.count} must be I/N, with I from 1 to N"], _TIP)

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that I/N means; raise ConfigError if it means none."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if found is None:
            raise ConfigError([f"shard={text!r} must be I/N, with I from 1 to N"], _TIP)
        return cls(int(found[1]), int(found[2]))

    def has(self, name: bytes) -> bool:
        """Whether this job computes the file with a path relative to the dataset."""
        digest = hashlib.blake2b(name, digest_size=8).digest()
        return int.from_bytes(digest, "little") % self.count == self.number - 1
