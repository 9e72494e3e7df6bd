"""What is fuzzed: readers of everything that a user may have received from someone else.

A target gets bytes. It may refuse them with a `ValueError` whose message names the file or its
folder; any other exception, and an answer that is no finite number, is a failure. `test_corpus.py`
replays the stored inputs, `scripts/fuzz.py` looks for new ones.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import shutil
import struct
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from safetensors.torch import save

import mocme
from mocme.data.formats import tensors
from mocme.data.ingest.importer import import_recipe
from mocme.runs.run import Run


class Target(ABC):
    """A reader with a folder of its own, and valid inputs to begin with.

    Attributes:
        longest: bytes of an input; by default a choice and twenty edits.
    """

    longest = 81

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def seeds(self) -> Iterator[bytes]:
        """Valid inputs."""

    @abstractmethod
    def read(self, data: bytes) -> None:
        """Read the input."""

    def __call__(self, data: bytes) -> None:
        """Read the input; return if it is accepted or refused as it should be."""
        if not data:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.read(data)
            except ValueError as error:
                if str(self.folder) not in str(error):
                    raise AssertionError("the message names no file") from error


def split(data: bytes, choices: Sequence[str]) -> tuple[str, bytes]:
    """Take the choice of a file from the first byte."""
    return choices[data[0] % len(choices)], data[1:]


PIECES = (
    *(
        b"null",
        b"true",
        b"-1",
        b"0",
        b"1.5",
        b"1e999",
        b"NaN",
        b"99999999999999999999",
        b"[]",
        b"{}",
    ),
    *(
        b'"',
        b"\\ud800",
        b"\n",
        b"\t",
        b"\0",
        b"\x1b",
        b"\xff",
        b"\xe2\x80\xae",
        b"[" * 200,
        b'{"a":' * 200,
    ),
    *(struct.pack("<q", n) for n in (-1, 0, 2**31, 2**62)),
    *(struct.pack("<f", x) for x in (math.nan, math.inf, -1.0, 1e38)),
    *(struct.pack("<d", x) for x in (math.nan, 1e308)),
)


def edited(valid: bytes, script: bytes) -> bytes:
    """Edit valid content; noise alone would never pass the first check of a reader.

    An edit has four bytes: two say where, one what to do, one with what.
    """
    content = bytearray(valid)
    for first in range(0, len(script) - 3, 4):
        where = int.from_bytes(script[first : first + 2], "big") * (len(content) + 1) >> 16
        what, value = script[first + 2] % 6, script[first + 3]
        piece = PIECES[value % len(PIECES)]
        if what == 0:
            content[where : where + 1] = bytes([value])
        elif what == 1:
            content[where:where] = piece
        elif what == 2:
            content[where : where + len(piece)] = piece
        elif what == 3:
            del content[where : where + value]
        elif what == 4:
            content[where:where] = content[max(0, where - value) : where]
        else:
            del content[where:]
    return bytes(content)


class Facts(Target):
    """A file of facts in each format."""

    longest = 20_000
    endings = ("tsv", "csv", "jsonl", "nt", "ttl", "tsv.gz", "parquet")

    def seeds(self) -> Iterator[bytes]:
        texts = {
            "tsv": "a\tr\tb\nb\tr\tc\n",
            "csv": 'head,relation,tail\na,r,"b\tc"\nb,r,c\n',
            "jsonl": '{"head": "a", "relation": "r", "tail": "b"}\n["b", "r", "c"]\n',
            "nt": "<x:a> <x:r> <x:b> .\n<x:b> <x:n> 'text'@en .\n".replace("'", '"'),
            "ttl": '@prefix e: <http://e/> .\ne:a e:r e:b , [ e:n "x" ] ; e:n 1.5 .\n',
        }
        table = pyarrow.table({"head": ["a", "b"], "relation": ["r", "r"], "tail": ["b", "c"]})
        buffer = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, buffer)
        binary = {
            "tsv.gz": gzip.compress(texts["tsv"].encode(), mtime=0),
            "parquet": buffer.getvalue().to_pybytes(),
        }
        for number, ending in enumerate(self.endings):
            yield bytes([number]) + (binary.get(ending) or texts[ending].encode())

    def read(self, data: bytes) -> None:
        ending, content = split(data, self.endings)
        path = self.folder / f"facts.{ending}"
        path.write_bytes(content)
        try:
            mocme.load(path)
        finally:
            path.unlink()


GRAPH = '[modalities.t]\nkind = "words"\npaths = ["texts.tsv"]\nat_least = 1\n'
RECIPE = '[[facts]]\npath = "facts.csv"\nhead = "h"\nrelation = "r"\ntail = "t"\n'


class Tables(Target):
    """A graph's graph.toml, texts and numbers, and a recipe."""

    files = ("graph.toml", "texts.tsv", "numbers.tsv", "names.tsv", "facts.csv", "recipe.toml")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._valid = {
            "graph.toml": GRAPH + '[modalities.n]\nkind = "numbers"\npath = "numbers.tsv"\n',
            "texts.tsv": "".join(f"e{i}\tword{i % 3} thing\n" for i in range(8)),
            "numbers.tsv": "".join(f"e{i}\tsize\t{i}.5\n" for i in range(8)),
            "names.tsv": "".join(f"e{i}\tname {i}\n" for i in range(8)),
            "facts.csv": "h,r,t\n" + "".join(f"e{i},r,e{(i + 1) % 8}\n" for i in range(8)),
            "recipe.toml": RECIPE,
        }
        for name, text in self._valid.items():
            (folder / name).write_text(text)
        train = "".join(f"e{i}\tr\te{(i + 1) % 8}\n" for i in range(8))
        (folder / "train.tsv").write_text(train)

    def seeds(self) -> Iterator[bytes]:
        yield from (bytes([number]) for number in range(len(self.files)))

    def read(self, data: bytes) -> None:
        name, script = split(data, self.files)
        (self.folder / name).write_bytes(edited(self._valid[name].encode(), script))
        try:
            if name in ("facts.csv", "recipe.toml"):
                out = self.folder / "out"
                shutil.rmtree(out, ignore_errors=True)
                import_recipe(self.folder / "recipe.toml", out)
            else:
                mocme.load(self.folder)
        finally:
            (self.folder / name).write_text(self._valid[name])


class Tensors(Target):
    """A file of features in each binary format."""

    endings = ("npy", "pth", "h5", "safetensors")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        rows = np.arange(6, dtype=np.float32).reshape(3, 2)
        np.save(folder / "x.npy", rows)
        torch.save({"rows": torch.from_numpy(rows)}, folder / "x.pth")
        with h5py.File(folder / "x.h5", "w") as file:
            file["rows"] = rows
        (folder / "x.safetensors").write_bytes(save({"rows": torch.from_numpy(rows)}))
        self._valid = {ending: (folder / f"x.{ending}").read_bytes() for ending in self.endings}

    def seeds(self) -> Iterator[bytes]:
        yield from (bytes([number]) for number in range(len(self.endings)))

    def read(self, data: bytes) -> None:
        ending, script = split(data, self.endings)
        path = self.folder / f"features.{ending}"
        path.write_bytes(edited(self._valid[ending], script))
        try:
            tensors.read(path)
        finally:
            path.unlink()


class RunFiles(Target):
    """One file of a run; the others are intact, and the checksum fits."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        data = folder / "data"
        data.mkdir()
        facts = [
            (f"e{i}", r, f"e{(i + k) % 30}") for i in range(30) for k, r in ((1, "r"), (2, "s"))
        ]
        lines = ["\t".join(fact) + "\n" for fact in facts]
        (data / "train.tsv").write_text("".join(lines[:50]))
        (data / "valid.tsv").write_text("".join(lines[50:]))
        texts = "".join(f"e{i}\tword{i % 5} item{i % 7}\n" for i in range(30))
        (data / "texts.tsv").write_text(texts)
        numbers = "".join(f"e{i}\tsize\t{i}.5\n" for i in range(30))
        (data / "numbers.tsv").write_text(numbers)
        (data / "graph.toml").write_text(
            GRAPH + '[modalities.n]\nkind = "numbers"\npath = "numbers.tsv"\n'
        )
        self.run = folder / "run"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = {
                "experts.embedding.embedding_dim": 4,
                "experts.embedding.training.epochs": 1,
            }
            mocme.train(data, "default", out=self.run, settings=settings)
        self._ask()
        shutil.rmtree(self.run / "checkpoints", ignore_errors=True)
        self.files = sorted(
            str(path.relative_to(self.run))
            for path in self.run.rglob("*")
            if path.is_file() and path.suffix in (".json", ".toml", ".safetensors", ".jsonl")
        )
        self._valid = {name: (self.run / name).read_bytes() for name in self.files}

    def seeds(self) -> Iterator[bytes]:
        yield from (bytes([number]) for number in range(len(self.files)))

    def _ask(self) -> None:
        predictor = Run.open(self.run).predictor()
        for item in predictor.tails("e0", "r", k=3):
            assert math.isfinite(item.score), item
            assert item.probability is None or 0 <= item.probability <= 1, item

    def read(self, data: bytes) -> None:
        name, script = split(data, self.files)
        self._put(name, edited(self._valid[name], script))
        try:
            self._ask()
        finally:
            for other, valid in self._valid.items():
                if not (self.run / other).exists() or (self.run / other).read_bytes() != valid:
                    self._put(other, valid)

    def _put(self, name: str, content: bytes) -> None:
        path = self.run / name
        path.write_bytes(content)
        if path.suffix != ".jsonl":
            line = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
            path.with_name(f"{path.name}.sha256").write_text(line)


TARGETS: dict[str, type[Target]] = {
    "facts": Facts,
    "tables": Tables,
    "tensors": Tensors,
    "run": RunFiles,
}


@contextmanager
def target(name: str) -> Iterator[Target]:
    """A target in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="mocme-fuzz-") as folder:
        yield TARGETS[name](Path(folder).resolve())
