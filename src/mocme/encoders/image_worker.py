"""A process that tries whether images can be decoded, within limits of memory and time.

Reads from its standard input: a length (8 bytes, big-endian) and an image; answers the same way
with the reason why it cannot be used, which is empty if it can. Its first answer, an empty one,
says that it is ready. It ends with its input.

    python -m mocme.encoders.image_worker SECONDS BYTES
"""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

from mocme.encoders.image_io import ImageShape, read_image
from mocme.encoders.items import UnusableItem


def limit_process(memory: int) -> None:
    """Limit the memory of this process to `memory` more bytes than it has now, and its files."""
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def limit_time(seconds: float) -> None:
    """Let this process take so many more seconds of processor time."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    until = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard < 0 else min(until, hard), hard))


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """Return so many bytes; fewer at the end of the file."""
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def reason_against(data: bytes) -> str:
    """Return why an image cannot be used; empty if it can."""
    try:
        read_image(data, ImageShape())
    except UnusableItem as error:
        return str(error)
    return ""


def main(seconds: float, memory: int) -> None:
    """Answer until the input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    from PIL import Image

    Image.init()
    limited = sys.platform == "linux"
    if limited:
        limit_process(memory)
    reason = ""
    while True:
        answer = reason.encode("utf-8", "replace")
        answers.write(len(answer).to_bytes(8, "big") + answer)
        answers.flush()
        length = read_exactly(requests, 8)
        if len(length) < 8:
            return
        data = read_exactly(requests, int.from_bytes(length, "big"))
        if limited:
            limit_time(seconds)
        reason = reason_against(data)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
