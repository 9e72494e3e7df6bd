"""Split texts into subwords with a tokenizer that is given or trained here (library tokenizers)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mocme.core.files import check_regular
from mocme.data.formats.writers import atomic_file
from mocme.encoders.pretrained import extra

# Marks the subword that starts a word.
START = "\u2581"
# A word as defined by `mocme.data.words.words`, in the syntax of the library.
_WORD = r"[\p{L}\p{N}](?:[\p{L}\p{N}\p{M}]|[\u200c\u200d]+(?=[\p{L}\p{N}\p{M}]))*"


class SubwordTokenizer:
    """A loaded tokenizer.

    Only byte pair encoding is trained here, because the library's training of unigram models is not
    reproducible: it iterates over hash tables in random order. Subwords inside words have no prefix
    for the same reason: the library numbers those with a prefix in such an order.

    Attributes:
        size: number of subwords.
        description: of the tokenizer, for the provenance.
        sha256: of its file.
    """

    def __init__(self, tokenizer: Any, content: bytes, description: str) -> None:
        self.tokenizer, self.content, self.description = tokenizer, content, description
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.size = int(tokenizer.get_vocab_size())
        added = tokenizer.get_added_tokens_decoder().values()
        unknown = getattr(tokenizer.model, "unk_token", None)
        special = [str(token.content) for token in added if token.special]
        # These carry no information about a text.
        excluded = {START, *special, *([unknown] if unknown else [])}
        vocabulary = tokenizer.get_vocab(with_added_tokens=True).items()
        self.subwords = {id: subword for subword, id in vocabulary if subword not in excluded}

    @staticmethod
    def read(path: Path) -> SubwordTokenizer:
        """Read a ``tokenizer.json``.

        Raises:
            ValueError: the file cannot be read, or is not a tokenizer.
        """
        with extra("tokenizers", "tokens"):
            from tokenizers import Tokenizer
        try:
            if path.exists():
                check_regular(path)
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(
                f"{path}: cannot be read ({error.strerror}); name a tokenizer.json, or leave out "
                f"tokenizer to train one"
            ) from error
        try:
            tokenizer = Tokenizer.from_buffer(content)
            return SubwordTokenizer(tokenizer, content, f"tokenizer {path.name}")
        except Exception as error:  # the library raises Exception itself
            reason = str(error).partition("\n")[0][:200]
            raise ValueError(
                f"{path}: is not a tokenizer.json of the library tokenizers ({reason})"
            ) from error

    @staticmethod
    def train(texts: Iterable[str], size: int) -> SubwordTokenizer:
        """Train byte pair encoding on the lower-case words of texts; deterministic.

        Args:
            size: number of subwords.
        """
        with extra("tokenizers", "tokens"):
            from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
        tokenizer: Any = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.NFC()])
        words = pre_tokenizers.Split(Regex(_WORD), "removed", invert=True)
        start = pre_tokenizers.Metaspace(replacement=START, split=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, start])
        trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        content = tokenizer.to_str(pretty=True).encode() + b"\n"
        description = f"byte pair encoding trained on these texts, {size} pieces asked for"
        return SubwordTokenizer(tokenizer, content, description)

    def write(self, path: Path) -> None:
        """Write the ``tokenizer.json``."""
        with atomic_file(path) as file:
            file.write(self.content)

    def __call__(self, texts: Sequence[str]) -> list[list[str]]:
        """The distinct subwords of each text."""
        # The fast variant returns ids only.
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        subwords = self.subwords
        return [
            [subwords[id] for id in dict.fromkeys(encoding.ids) if id in subwords]
            for encoding in encodings
        ]
