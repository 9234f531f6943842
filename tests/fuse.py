"""A read-only FUSE file system that shows another folder, without a cache, until it is told to fail or is killed.

`python fuse.py DESCRIPTOR FOLDER` answers the kernel's requests on an open /dev/fuse. While the folder has a file
`.fail`, every answer is the error whose number it holds.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from pathlib import Path
from stat import S_IFDIR, S_IFREG

LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 17, 18, 25, 26
OPENDIR, READDIR, RELEASEDIR, INTERRUPT, BATCH_FORGET = 27, 28, 29, 36, 42
DIRECT_IO = 1


class Server:
    def __init__(self, descriptor: int, folder: Path) -> None:
        self.descriptor = descriptor
        self.fail = folder / ".fail"
        self.paths = {1: folder}
        self.nodes = {folder: 1}

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self.descriptor, 1 << 21)
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                raise
            _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
            if opcode in (FORGET, INTERRUPT, BATCH_FORGET):
                continue
            try:
                answer, code = self.answer(opcode, node, request[40:]), 0
            except OSError as error:
                answer, code = b"", -error.errno
            os.write(self.descriptor, struct.pack("<IiQ", 16 + len(answer), code, unique) + answer)

    def answer(self, opcode: int, node: int, body: bytes) -> bytes:
        if opcode == INIT:
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, 1 << 17, 0, 8, 8, 1 << 17, 1, 32, 0, 0)
        if self.fail.exists():
            raise OSError(int(self.fail.read_text()), "told to fail")
        path = self.paths[node]
        if opcode == LOOKUP:
            return self.looked_up(path / os.fsdecode(body.rstrip(b"\0")))
        if opcode == GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self.attributes(path)
        if opcode in (OPEN, OPENDIR):
            return struct.pack("<QII", 0, DIRECT_IO, 0)
        if opcode == READ:
            _, start, size = struct.unpack_from("<QQI", body)
            return path.read_bytes()[start : start + size]
        if opcode == READDIR:
            return self.entries(path, *struct.unpack_from("<QQI", body)[1:])
        if opcode == STATFS:
            return bytes(80)
        if opcode in (RELEASE, RELEASEDIR, FLUSH):
            return b""
        raise OSError(errno.ENOSYS, "unknown request")

    def looked_up(self, path: Path) -> bytes:
        attributes = self.attributes(path)
        node = self.nodes.setdefault(path, len(self.nodes) + 1)
        self.paths[node] = path
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + attributes

    def attributes(self, path: Path) -> bytes:
        status = path.stat()
        times = [status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns]
        seconds, rest = [time // 10**9 for time in times], [time % 10**9 for time in times]
        mode = status.st_mode & (S_IFDIR | S_IFREG) | 0o555
        return struct.pack("<6Q10I", status.st_ino, status.st_size, 0, *seconds, *rest, mode, 1, 0, 0, 0, 4096, 0)

    def entries(self, path: Path, start: int, size: int) -> bytes:
        found = b""
        for number, entry in enumerate(sorted(path.iterdir())[start:], start + 1):
            name = os.fsencode(entry.name)
            record = struct.pack("<QQII", 1, number, len(name), 0) + name
            record = record.ljust(-(-len(record) // 8) * 8, b"\0")
            if len(found) + len(record) > size:
                break
            found += record
        return found


if __name__ == "__main__":
    Server(int(sys.argv[1]), Path(sys.argv[2])).serve()
