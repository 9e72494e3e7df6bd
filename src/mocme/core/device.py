"""The device of a training: processor or GPU, threads, precision, memory."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def find_device(device: str) -> torch.device:
    """Return the device named ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: the name is unknown, or CUDA is not available.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, not {device!r}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("no CUDA device is available here; use --device cpu")
    return torch.device(device)


def use_threads(count: int | None) -> None:
    """Set the number of threads for tensor operations; None leaves it at all cores.

    Raises:
        ValueError: the number is below 1.
    """
    if count is not None:
        if count < 1:
            raise ValueError("threads must be at least 1")
        torch.set_num_threads(count)


def lower_thread_priority() -> None:
    """Lower the priority of the calling thread, so that threads that answer requests run first.

    Only Linux has a priority for each thread; elsewhere this does nothing.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + 5)


def environment() -> dict[str, Any]:
    """Versions and hardware that the numbers of a run may depend on."""
    try:
        package_version = version("mocme")
    except PackageNotFoundError:
        package_version = "unknown"
    return {
        "mocme": package_version,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def checkout() -> dict[str, Any] | None:
    """The git commit of this package, and whether its files have changed since.

    None if the package is not in a checkout, or git is not installed.
    """
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        process = subprocess.run(
            ["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True
        )
        return process.stdout.strip()

    try:
        # An installed package may be inside the checkout of another project.
        git("ls-files", "--error-unmatch", "__init__.py")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "-s", "."))}
    except (OSError, subprocess.CalledProcessError):
        return None


def memory_of_machine() -> int:
    """Bytes of physical memory; a very large number where the system does not tell."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return sys.maxsize
    return memory if memory > 0 else sys.maxsize


def peak_memory(process: int | None = None) -> int:
    """Peak resident memory of a process in bytes.

    On Linux it is read from /proc: there, ``ru_maxrss`` of a new program starts with the peak of
    the program that started it.

    Args:
        process: id of a running process, this one by default. The result is 0 where the kernel
            does not report it.
    """
    try:
        lines = Path(f"/proc/{process or 'self'}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        if process is not None:
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Bytes on macOS, KiB elsewhere.
        return peak if sys.platform == "darwin" else peak << 10


def faster_precision(device: torch.device, width: int) -> str:
    """Return "float32" or "bfloat16", whichever multiplies matrices faster on a device.

    A short measurement decides: some processors have bfloat16 instructions at four times the rate
    of float32, some at half. bfloat16 must be at least 1.2 times as fast.

    Args:
        width: inner dimension of the product.
    """
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(1024, width, generator=generator).to(device)
    right = torch.randn(2048, width, generator=generator).to(device)
    seconds = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        pair = left.to(dtype), right.to(dtype).T
        times = []
        for _ in range(4):
            started = time.perf_counter()
            product = pair[0] @ pair[1]
            float(product[0, 0])  # waits for the device
            times.append(time.perf_counter() - started)
        seconds[name] = min(times[1:])  # the first product warms up
    return "bfloat16" if seconds["bfloat16"] * 1.2 < seconds["float32"] else "float32"
