"""The machine a training runs on: device, threads, precision, signals."""

from __future__ import annotations

import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


class Interrupted(RuntimeError):
    """Work was asked to stop, and can go on later."""


def find_device(device: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1`` as a device.

    Raises:
        ValueError: CUDA is asked for and not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, not {device!r}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("no CUDA device is available here; use --device cpu")
    return torch.device(device)


def use_threads(count: int | None) -> None:
    """Use this many threads for arithmetic (all cores by default)."""
    if count is not None:
        if count < 1:
            raise ValueError("threads must be at least 1")
        torch.set_num_threads(count)


def give_way() -> None:
    """Let other threads of this process pass the one that calls: it computes, they answer people.

    On Linux, where threads have priorities of their own; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + 5)


def environment() -> dict[str, Any]:
    """What the numbers of a run may depend on."""
    try:
        own = version("mocme")
    except PackageNotFoundError:
        own = "unknown"
    return {
        "mocme": own,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def checkout() -> dict[str, Any] | None:
    """The git commit of this package, and whether its files were changed since.

    None where the package does not lie in a checkout, or git is not there.
    """
    home = Path(__file__).parents[1]

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(home), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        # An installed package may lie within the checkout of something else.
        git("ls-files", "--error-unmatch", "__init__.py")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "-s", "."))}
    except (OSError, subprocess.CalledProcessError):
        return None


def peak_memory(process: int | None = None) -> int:
    """The most memory that a process ever held, in bytes.

    From the kernel's own line on Linux: there, ``ru_maxrss`` of a new program starts with what the
    program that started it held.

    Args:
        process: one that is running, by its number, 0 where the kernel does not say; this one by
            default.
    """
    try:
        lines = Path(f"/proc/{process or 'self'}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        if process is not None:
            return 0
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most << 10


def faster_precision(device: torch.device, width: int) -> str:
    """Which of float32 and bfloat16 multiplies faster here, by a short measurement.

    Some processors have bfloat16 instructions at four times the rate of float32, some at half.
    """
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(1024, width, generator=generator).to(device)
    right = torch.randn(2048, width, generator=generator).to(device)
    best = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        pair = left.to(dtype), right.to(dtype).T
        times = []
        for _ in range(4):
            started = time.perf_counter()
            result = pair[0] @ pair[1]
            float(result[0, 0])
            times.append(time.perf_counter() - started)
        best[name] = min(times[1:])
    return "bfloat16" if best["bfloat16"] * 1.2 < best["float32"] else "float32"


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """Ctrl-C sets an event instead of breaking a step in two; a second one stops at once.

    Inside another `stop_signal` it sets both events: a training may be over before it looks at
    its own, and then the work around it is what has to stop.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    old = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: Any) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, old)
        if callable(old) and getattr(old, "sets_an_event", False):
            old(number, frame)

    stop.sets_an_event = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, old)
