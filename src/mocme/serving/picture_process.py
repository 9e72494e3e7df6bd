"""A process that decodes uploaded pictures, so that none can stall or exhaust the server."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import IO, final

import mocme
from mocme.core.deadline import Check, unlimited
from mocme.encoders.items import UnusableItem

# Time in which the process starts; not part of the time of a picture.
START_SECONDS = 60.0
# Between two checks whether the answer is still wanted.
CHECK_SECONDS = 0.1


@final
class PictureProcess:
    """Tries to decode pictures in a process that is kept, and ended when one takes too much.

    It is not forked: a fork of a process with the threads of torch may never run.

    Args:
        seconds: time limit of a picture.
        memory: bytes of memory that the process may use (on Linux).
    """

    def __init__(self, seconds: float, memory: int) -> None:
        self._seconds, self._memory = seconds, memory
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def start(self) -> None:
        """Start the process now, so that the first picture does not wait for it."""
        with self._lock:
            self._process()

    def check(self, data: bytes, check: Check = unlimited) -> None:
        """Try to decode a picture.

        Args:
            check: called ten times a second; what it raises ends the decoding.

        Raises:
            UnusableItem: it cannot be decoded, or not within the limits; with the reason.
            OSError: the process does not start.
        """
        with self._lock:
            running = self._process()
            try:
                if not running.ready:
                    if running.answer(START_SECONDS, check) is None:
                        raise OSError("the process that decodes pictures does not start")
                    running.ready = True
                reason = running.decode(data, self._seconds, check)
            except BaseException:
                self._end()
                raise
            if reason is None:
                self._end()
                raise UnusableItem(
                    f"takes more than {self._seconds:g} s or {self._memory / (1 << 30):.1f} GiB "
                    f"to decode"
                )
        if reason:
            raise UnusableItem(reason)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _process(self) -> _Running:
        if self._running is None or self._running.ended:
            self._end()
            self._running = _Running(self._seconds, self._memory)
        return self._running

    def _end(self) -> None:
        if self._running is not None:
            self._running.end()
            self._running = None


class _Running:
    """The running process."""

    def __init__(self, seconds: float, memory: int) -> None:
        # Only what is needed: no token, and this package wherever it was imported from.
        kept = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join([_package_folder(), *filter(None, sys.path)])
        command = [sys.executable, "-P", "-m", "mocme.encoders.image_worker"]
        process = subprocess.Popen(
            [*command, str(seconds), str(memory)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            # A Ctrl-C in the terminal must not end it before the server.
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._requests, self._answers = process, process.stdin, process.stdout
        self.ready = False
        # Also when nobody closes it.
        self.end = weakref.finalize(self, _end, process, self._requests, self._answers)

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def decode(self, data: bytes, seconds: float, check: Check) -> str | None:
        """Return the reason against a picture; None if the process was ended for it."""
        # Also ends the writing, which may wait for the process to read.
        watch = threading.Timer(seconds, self._process.kill)
        watch.daemon = True
        watch.start()
        try:
            message = memoryview(len(data).to_bytes(8, "big") + data)
            while message:
                message = message[self._requests.write(message) :]
            return self.answer(seconds, check)
        except BrokenPipeError:
            return None
        finally:
            watch.cancel()

    def answer(self, seconds: float, check: Check) -> str | None:
        """Return the next answer; None if the process ends or takes longer."""
        until = time.monotonic() + seconds
        answer = b""
        while len(answer) < 8 or len(answer) < 8 + int.from_bytes(answer[:8], "big"):
            check()
            if time.monotonic() > until:
                return None
            if select.select([self._answers], [], [], CHECK_SECONDS)[0]:
                part = self._answers.read(1 << 16)
                if not part:
                    return None
                answer += part
        return answer[8:].decode("utf-8")


def _end(process: subprocess.Popen[bytes], *files: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for file in files:
        file.close()


def _package_folder() -> str:
    return str(Path(str(mocme.__file__)).resolve().parents[1])
