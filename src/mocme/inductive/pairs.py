"""Pairs of additions with each other and with training entities, computed as in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from mocme.data.modality import AnyModality, Basis, Pairs
from mocme.data.pairs.build import NewContent, pairs_of_new_entities
from mocme.inductive.extended_run import RunContents
from mocme.inductive.store import Addition, Additions


def extendable_pairs(run: RunContents) -> dict[str, Pairs]:
    """Modalities of pairs that some expert reads and that record how pairs are computed."""
    reads = run.reads
    return {
        name: pairs
        for name, pairs in run.features.pairs.items()
        if pairs.basis is not None and name in reads
    }


def accepted_modalities(run: RunContents) -> dict[str, AnyModality]:
    """Modalities that a new entity can have; for pairs, the vectors that they compare."""
    accepted: dict[str, AnyModality] = {**run.features.dense, **run.features.tokens}
    for name, pairs in extendable_pairs(run).items():
        assert pairs.basis is not None
        accepted[name] = pairs.basis.vectors or pairs
    return accepted


def related(trained: RunContents, items: Sequence[Addition]) -> Additions:
    """Additions with all their pairs, which do not depend on the order of the additions.

    Adding or removing one may change the pairs of another: it may be a nearer neighbour, or make a
    shared word too frequent.
    """
    first = trained.graph.num_entities
    new_pairs: dict[str, Tensor] = {}
    counts: list[dict[str, Mapping[str, int]]] = [{} for _ in items]
    for name, pairs in extendable_pairs(trained).items() if items else ():
        assert pairs.basis is not None
        rows = pairs_of_new_entities(
            pairs, _given(name, pairs.basis, items, first), trained.features.dense
        )
        new_pairs[name] = rows
        by_item: list[Counter[str]] = [Counter() for _ in items]
        for kind, head, tail in rows.tolist():
            for entity in (head, tail):
                if entity >= first:
                    by_item[entity - first][pairs.kinds[kind]] += 1
        for position, counted in enumerate(by_item):
            counts[position][name] = dict(counted)
    return Additions(
        [replace(item, pairs=by_kind) for item, by_kind in zip(items, counts, strict=True)],
        new_pairs,
    )


def _given(name: str, basis: Basis, items: Sequence[Addition], first: int) -> NewContent:
    vectors = name if basis.modality is None else basis.modality
    ids = list(enumerate(items, first))
    return NewContent(
        len(items),
        {entity: item.names or (item.name,) for entity, item in ids},
        {
            entity: [line for text in item.texts[name] for line in text.split("\n")]
            for entity, item in ids
            if name in item.texts
        },
        {entity: item.vectors[vectors] for entity, item in ids if vectors in item.vectors},
    )


def remarks(run: RunContents, item: Addition) -> list[str]:
    """Notes on inputs that an addition lacks for its pairs, and on unsupported pairs."""
    notes, reads = [], run.reads
    for name, pairs in run.features.pairs.items():
        if name not in reads:
            continue
        basis = pairs.basis
        if basis is None:
            why = f" ({pairs.provenance['replaced']})" if "replaced" in pairs.provenance else ""
            notes.append(
                f"{name}{why}: pairs of a new entity are not computed, so rules over them do "
                f"not apply to it"
            )
            continue
        if "names" in basis.texts and not item.names:
            notes.append(f"{name}: no names are given, so {item.name!r} is used")
        if "texts" in basis.texts and name not in item.texts:
            notes.append(f"{name}: no text is given, so no pairs start at it")
        if not basis.texts and (basis.modality or name) not in item.vectors:
            notes.append(
                f"{name}: no vector is given ({basis.modality or name}), so it is similar "
                f"to no entity"
            )
    return notes
