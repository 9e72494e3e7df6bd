"""Texts to the pieces of a tokenizer, which is given or trained here (library tokenizers)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mocme.data.formats.writers import written
from mocme.encoders.pretrained import extra

# A piece that starts a word starts with it.
START = "\u2581"
# A word as `mocme.data.words.words` has it.
_WORD = r"[\p{L}\p{N}](?:[\p{L}\p{N}\p{M}]|[\u200c\u200d]+(?=[\p{L}\p{N}\p{M}]))*"


class Subwords:
    """A tokenizer that is loaded.

    Only byte pair encoding is trained here: the library's training of unigram models gives another
    model each time, for it goes through hash tables in their random order. Pieces inside words are
    unmarked for the same reason (those with a prefix are numbered in such an order).

    Attributes:
        size: pieces.
        described: what it is, for provenance.
        sha256: of its file.
    """

    def __init__(self, tokenizer: Any, content: bytes, described: str) -> None:
        self.tokenizer, self.content, self.described = tokenizer, content, described
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.size = int(tokenizer.get_vocab_size())
        added = tokenizer.get_added_tokens_decoder().values()
        unknown = getattr(tokenizer.model, "unk_token", None)
        special = [str(token.content) for token in added if token.special]
        # They say nothing of a text.
        empty = {START, *special, *([unknown] if unknown else [])}
        named = tokenizer.get_vocab(with_added_tokens=True).items()
        self.pieces = {id: piece for piece, id in named if piece not in empty}

    @staticmethod
    def read(path: Path) -> Subwords:
        """A ``tokenizer.json``.

        Raises:
            ValueError: there is none, or it is none.
        """
        with extra("tokenizers", "tokens"):
            from tokenizers import Tokenizer
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(
                f"{path}: cannot be read ({error.strerror}); name a tokenizer.json, or leave out "
                f"tokenizer to train one"
            ) from error
        try:
            return Subwords(Tokenizer.from_buffer(content), content, f"tokenizer {path.name}")
        except Exception as error:  # the library raises no other type
            reason = str(error).partition("\n")[0][:200]
            raise ValueError(
                f"{path}: is no tokenizer.json of the library tokenizers ({reason})"
            ) from error

    @staticmethod
    def trained(texts: Iterable[str], vocabulary: int) -> Subwords:
        """A tokenizer by byte pair encoding of lower-case words; equal texts give an equal one."""
        with extra("tokenizers", "tokens"):
            from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
        tokenizer: Any = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.NFC()])
        words = pre_tokenizers.Split(Regex(_WORD), "removed", invert=True)
        start = pre_tokenizers.Metaspace(replacement=START, split=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, start])
        trainer = trainers.BpeTrainer(vocab_size=vocabulary, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        content = tokenizer.to_str(pretty=True).encode() + b"\n"
        described = f"byte pair encoding trained on these texts, {vocabulary} pieces asked for"
        return Subwords(tokenizer, content, described)

    def write(self, path: Path) -> None:
        """Keep it as a ``tokenizer.json``."""
        with written(path) as file:
            file.write(self.content)

    def __call__(self, texts: Sequence[str]) -> list[list[str]]:
        """The distinct pieces of each text."""
        found = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        # The fast way makes ids only.
        named = self.pieces
        return [[named[id] for id in dict.fromkeys(own.ids) if id in named] for own in found]
