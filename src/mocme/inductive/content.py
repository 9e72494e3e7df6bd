"""Content of a new entity, encoded like the modalities of the run.

The files of a run record how each modality was computed (`mocme.data.modality`, provenance): by an
encoder with settings, by the scales of numbers, by a vocabulary of words. Without such a record
only encoded content is accepted: a vector of the right dimension, or tokens.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mocme.core.finite import all_finite
from mocme.core.text_formats import parse_json
from mocme.data.features.numeric import bin_of, read_scales
from mocme.data.graph import Graph, Vocabulary
from mocme.data.modality import AnyModality, Modality, Pairs, Tokens
from mocme.data.modality_files import read_safetensors
from mocme.data.words import UNITS
from mocme.inductive.new_entity import Content, EncodedContent
from mocme.inductive.provenance import provenance_problem
from mocme.inductive.ranges import numbers_in_range, tokens_in_range, vector_in_range

Takes = Literal["texts", "pictures", "sounds", "videos", "numbers", "nothing"]
# Given as paths of files.
FILES: AbstractSet[Takes] = {"pictures", "sounds", "videos"}
# Kinds of encoders that are run again for new content; the files of a run name no other code.
NETWORKS: Mapping[str, Takes] = {
    "text": "texts",
    "image": "pictures",
    "audio": "sounds",
    "video": "videos",
}
# Provenance that differs between modalities of the same encoder.
_OWN = ("sources", "sources_sha256", "source", "sha256", "settings", "entities", "format")
# Words that a note lists one by one.
_MOST_LISTED = 20
# The largest float64.
_LARGEST = float(np.finfo(np.float64).max)


def takes(modality: AnyModality) -> tuple[Takes, str]:
    """What a modality is computed from; if unknown, the reason why only vectors are accepted."""
    provenance = modality.provenance
    if "replaced" in provenance:
        return "nothing", f"it is a control ({provenance['replaced']})"
    if isinstance(modality, Pairs):
        return _takes_for_pairs(modality)
    if problem := provenance_problem(modality):
        return "nothing", problem
    if isinstance(modality, Tokens):
        if "edges" in provenance:
            return "numbers", ""
        if provenance.get("unit") in UNITS:
            return "texts", ""
        return "nothing", "the run does not record how its tokens were computed"
    if "scales" in provenance:
        return "numbers", ""
    kind = _settings(provenance).get("kind")
    if isinstance(kind, str) and kind in NETWORKS:
        return NETWORKS[kind], ""
    return "nothing", "the run does not record how its vectors were computed"


def _takes_for_pairs(pairs: Pairs) -> tuple[Takes, str]:
    basis = pairs.basis
    if basis is None:
        return "nothing", "the run does not record how its pairs were computed; omit it"
    if basis.modality is not None:
        return "nothing", f"its pairs are computed from {basis.modality}; give content for that"
    if "texts" in basis.texts:
        return "texts", ""
    return "nothing", "its pairs are computed from names; give names instead"


def _settings(provenance: Mapping[str, str]) -> dict[str, Any]:
    try:
        settings = parse_json(provenance.get("settings", "") or "{}")
    except ValueError:
        return {}
    return settings if isinstance(settings, dict) else {}


def encode_content(
    name: str, modality: AnyModality, given: Mapping[str, Content], device: torch.device
) -> dict[str, EncodedContent]:
    """Encode the content of a modality for new entities.

    Args:
        name: of the modality.
        given: by name of the entity.

    Raises:
        ValueError: the content does not fit the modality; the message names entity, modality and
            remedy.
    """
    encoded: dict[str, EncodedContent] = {}
    raw: dict[str, list[str]] = {}
    kind, why = takes(modality)
    for entity, content in given.items():
        where = f"{entity!r}, {name}"
        if isinstance(modality, Tokens):
            encoded[entity] = _tokens(where, modality, content, kind, why)
        elif isinstance(modality, Pairs):
            encoded[entity] = _for_pairs(where, modality, content, kind, why)
        elif _ready(content):
            vector, notes = vector_in_range(modality, _vector(where, modality, content))
            encoded[entity] = EncodedContent(vector, None, "a vector", tuple(notes))
        elif isinstance(content, Mapping) and kind == "numbers":
            encoded[entity] = _numbers(where, modality, content)
        elif (texts := _texts(content)) is not None and (kind == "texts" or kind in FILES):
            raw[entity] = [str(text) for text in texts]
        else:
            raise _unfit(where, modality, kind, why)
    if raw:
        assert isinstance(modality, Modality)
        encoded |= _encoded(name, modality, raw, kind, device)
    return encoded


def _for_pairs(where: str, pairs: Pairs, content: Content, kind: Takes, why: str) -> EncodedContent:
    texts = [str(text) for text in _texts(content) or ()]
    if kind != "texts" or not texts:
        raise _unfit(where, pairs, kind, why)
    if not any(text.strip() for text in texts):
        raise ValueError(f"{where}: the text is empty; omit it")
    description = f"a text of {sum(map(len, texts)):,} characters"
    return EncodedContent(None, None, description, (), tuple(texts))


def _unfit(where: str, modality: AnyModality, kind: Takes, why: str) -> ValueError:
    if isinstance(modality, Pairs):
        return ValueError(f"{where}: {why or 'give a text, or a list of texts'}")
    ready = "a set of tokens"
    if isinstance(modality, Modality):
        ready = f"a vector of width {modality.width}"
    if kind == "nothing":
        return ValueError(f"{where}: {why}; give {ready} instead")
    what = {"texts": "a text", "numbers": "numbers by attribute"}.get(kind, "the path of a file")
    return ValueError(f"{where}: give {what}, or {ready}")


def _ready(content: Content) -> bool:
    """Whether the content is a vector."""
    if isinstance(content, np.ndarray | Tensor):
        return True
    if isinstance(content, str | Path | Mapping | AbstractSet) or not len(content):
        return False
    return all(isinstance(value, int | float) for value in content)


def _texts(content: Content) -> list[str | Path] | None:
    if isinstance(content, str | Path):
        return [content]
    if not isinstance(content, Sequence) or not content:
        return None
    texts = [text for text in content if isinstance(text, str | Path)]
    return texts if len(texts) == len(content) else None


def _vector(where: str, modality: Modality, content: Any) -> Tensor:
    try:
        vector = torch.as_tensor(content).detach().cpu().float()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{where}: cannot be read as a vector ({error}); give numbers") from error
    if vector.ndim == 2 and len(vector) == 1:
        vector = vector[0]
    if vector.shape != (modality.width,):
        raise ValueError(
            f"{where}: a vector of shape {tuple(vector.shape)}; this run's have width "
            f"{modality.width}: compute it with the encoder of the run"
        )
    if not all_finite(vector):
        raise ValueError(f"{where}: the vector contains NaN or infinity; omit the modality")
    return vector.clone()


def _numbers(where: str, modality: Modality, content: Mapping[str, float]) -> EncodedContent:
    scales = read_scales(modality.provenance["scales"])
    _check_numbers(where, content, scales)
    width = modality.width // len(scales)
    vector = torch.zeros(modality.width)
    for position, (attribute, scale) in enumerate(scales.items()):
        if attribute in content:
            number = torch.tensor([float(content[attribute])], dtype=torch.float64)
            vector[position * width : (position + 1) * width] = scale(number)[0].float()
    notes = numbers_in_range(modality, scales, vector, dict(content))
    return EncodedContent(vector, None, _described(content), tuple(notes))


def attributes(modality: AnyModality) -> list[str]:
    """The attributes of a modality of numbers."""
    provenance = modality.provenance
    return list(json.loads(provenance.get("edges") or provenance.get("scales") or "{}"))


def _check_numbers(where: str, content: Mapping[str, float], known: Mapping[str, Any]) -> None:
    if not content:
        raise ValueError(f"{where}: no number is given; omit the modality, or give numbers")
    for attribute, number in content.items():
        if attribute not in known:
            raise ValueError(
                f"{where}: there is no attribute {attribute!r}; it has {', '.join(known)}"
            )
        # An integer of any size is compared exactly; `math.isfinite` overflows.
        usable = isinstance(number, int | float) and -_LARGEST <= number <= _LARGEST
        if not usable:
            raise ValueError(f"{where}: {attribute} = {number!r} is not a finite number")


def _described(content: Mapping[str, float]) -> str:
    return ", ".join(f"{attribute} = {number:g}" for attribute, number in content.items())


# -- tokens ------------------------------------------------------------------------------------


def _tokens(
    where: str, modality: Tokens, content: Content, kind: Takes, why: str
) -> EncodedContent:
    provenance = modality.provenance
    texts = None
    if isinstance(content, AbstractSet):
        if not all(isinstance(token, str) for token in content):
            raise ValueError(f"{where}: a set of tokens must be of strings")
        given = sorted(content)
        limit, what = 0, "tokens"
    elif isinstance(content, Mapping) and kind == "numbers":
        edges = json.loads(provenance["edges"])
        _check_numbers(where, content, edges)
        given = [bin_of(name, float(number), edges[name]) for name, number in content.items()]
        limit, what = 0, _described(content)
    elif (texts := _texts(content)) is not None and kind == "texts":
        joined = "\n".join(map(str, texts))
        given = UNITS[provenance["unit"]](joined)
        limit, what = int(provenance["per_entity"]), f"a text of {len(joined):,} characters"
    else:
        raise _unfit(where, modality, kind, why)
    ids = {token: index for index, token in enumerate(modality.vocabulary)}
    known = [token for token in given if token in ids]
    unknown = [token for token in given if token not in ids]
    notes = [f"not in the run's vocabulary: {_some(unknown)}"] if unknown else []
    if limit and len(known) > limit:
        frequency = json.loads(provenance["frequency"])
        known.sort(key=lambda token: (frequency[ids[token]], token))
        notes.append(f"known, but not among the {limit} rarest: {_some(sorted(known[limit:]))}")
        known = known[:limit]
    elif not limit and kind != "numbers":
        known, left_out = tokens_in_range(modality, known)
        if left_out:
            notes.append(
                f"has more tokens than any entity of the training; the {len(known)} rarest are "
                f"used, without {_some(sorted(left_out))}"
            )
    if not known:
        notes.append("no token is in the vocabulary, so the modality counts as absent")
    read = None if texts is None else tuple(map(str, texts))
    return EncodedContent(None, tuple(sorted(known)), what, tuple(notes), read)


def _some(tokens: Sequence[str]) -> str:
    more = f" and {len(tokens) - _MOST_LISTED:,} more" if len(tokens) > _MOST_LISTED else ""
    return ", ".join(tokens[:_MOST_LISTED]) + more


# -- networks ----------------------------------------------------------------------------------


def _encoded(
    name: str,
    modality: Modality,
    raw: Mapping[str, Sequence[str]],
    kind: Takes,
    device: torch.device,
) -> dict[str, EncodedContent]:
    """Vectors by the encoder of the modality, with its settings."""
    from mocme.encoders.base import EncodingJob
    from mocme.encoders.catalog import encoder_of

    column = "text" if kind == "texts" else "path"
    shared = ("paths", "columns", "entity", "delimiter")
    table = {k: v for k, v in _settings(modality.provenance).items() if k not in shared}
    names = Vocabulary(raw)
    graph = Graph(names, Vocabulary([], "relation"), {"train": torch.empty(0, 3).long()})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lines = [
            {"entity": entity, column: os.path.abspath(text) if kind in FILES else text}
            for entity, texts in raw.items()
            for text in texts
        ]
        rows = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "content.jsonl").write_text(rows, encoding="utf-8")
        encoder = encoder_of({**table, "paths": ["content.jsonl"]}, f"encode.{name}")
        job = EncodingJob(graph, name, folder, folder, device=device)
        try:
            report = encoder.encode(job)
        except sqlite3.OperationalError as error:
            # The encoder stores its items in the folder: the disk failed, not the content.
            full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
            number = errno.ENOSPC if full else errno.EIO
            raise OSError(number, f"{os.strerror(number)} ({error})", str(folder)) from error
        for failure in report.failures:
            raise ValueError(f"{failure.entity!r}, {name}: {failure.reason}")
        tensors, metadata = read_safetensors(job.path)
        values = tensors["values"].float().clone()
        rows_of = tensors["rows"].tolist()
    _check_same(name, modality.provenance, metadata)
    what = "file" if kind in FILES else "text"
    encoded = {}
    for row, vector in zip(rows_of, values, strict=True):
        entity = names[row]
        count = len(raw[entity])
        description = f"a {what}" if count == 1 else f"{count} {what}s"
        read = tuple(raw[entity]) if kind == "texts" else None
        checked = _vector(f"{entity!r}, {name}", modality, vector)
        checked, notes = vector_in_range(modality, checked)
        encoded[entity] = EncodedContent(checked, None, description, tuple(notes), read)
    return encoded


def _check_same(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Refuse an encoder other than the one that computed the modality."""
    for key, value in new.items():
        if key not in _OWN and old.get(key) != value:
            raise ValueError(
                f"{name}: was computed with {key} {old.get(key)!r}, but the installed encoder "
                f"has {value!r}; install the original one, or give vectors"
            )
