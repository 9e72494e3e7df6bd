"""A run's folder: safetensors and JSON, written atomically, resumable to the bit.

After the process is killed, or the power fails, at any instant: a file holds its old or its new
content; a checkpoint is there wholly or not at all, and older ones go only afterwards; a log
lacks at most the line being appended.

All that is read is compared with a SHA-256 first (logs: a CRC-32 a line). That of NAME stands in
NAME.sha256, in the form of the command ``sha256sum``. It is replaced *before* NAME and keeps, in
a second line, the sum of the content that NAME has until then: in between, either one is valid.

One process writes at a time (`RunFolder.lock`); reading needs no lock. Nothing is ever pickled.
"""

from mocme.storage.atomic_io import RunError, RunLocked
from mocme.storage.checkpoints import Checkpoint
from mocme.storage.run_directory import FORMAT_VERSION, RunFolder, Stamp

__all__ = ["FORMAT_VERSION", "Checkpoint", "RunError", "RunFolder", "RunLocked", "Stamp"]
