"""The directory of a run: safetensors and JSON, written atomically, resumable to the bit.

After a crash or a power failure at any time, a file has its old or its new content; a checkpoint
exists completely or not at all, and older ones are removed only afterwards; a log lacks at most the
line that was being appended.

Everything that is read is first checked against its SHA-256 (a line of a log: CRC-32). The SHA-256
of NAME is in NAME.sha256, in the format of the command ``sha256sum``. That file is replaced
*before* NAME and has, in a second line, the SHA-256 of the previous content of NAME, so that both
contents are valid in between.

Reading needs no lock. One process trains or changes additions at a time (`RunFolder.lock`). Results
of questions (calibration, evaluations) may be stored by several processes at the same time: each
writes into a `workspace` of its own, and of several contents of a file the last one stays. Nothing
is ever pickled.
"""

from mocme.storage.atomic_io import NotKept, kept_if_possible
from mocme.storage.checkpoints import Checkpoint
from mocme.storage.errors import RunError, RunLocked, RunReplaced
from mocme.storage.run_directory import FORMAT_VERSION, RunFolder, Stamp

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "NotKept",
    "RunError",
    "RunFolder",
    "RunLocked",
    "RunReplaced",
    "Stamp",
    "kept_if_possible",
]
