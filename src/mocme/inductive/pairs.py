"""Pairs of additions with each other and with training entities, found as in the training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from mocme.data.modality import AnyModality, Basis, Pairs
from mocme.data.pairs.build import NewContent, grown
from mocme.inductive.extended_run import RunContents
from mocme.inductive.store import Addition, Additions


def extendable_pairs(run: RunContents) -> dict[str, Pairs]:
    """Modalities of pairs that some expert reads and that record how pairs are found."""
    if not run.reads_pairs:
        return {}
    return {name: own for name, own in run.features.pairs.items() if own.basis is not None}


def accepted_modalities(run: RunContents) -> dict[str, AnyModality]:
    """Modalities that a new entity can have; for pairs, the vectors that they compare."""
    pairs: dict[str, AnyModality] = {}
    for name, own in extendable_pairs(run).items():
        assert own.basis is not None
        pairs[name] = own.basis.vectors or own
    return {**run.features.dense, **run.features.tokens, **pairs}


def related(trained: RunContents, items: Sequence[Addition]) -> Additions:
    """Additions with all their pairs, which do not depend on the order of the additions.

    Adding or removing one may change the pairs of another: it may be a nearer neighbour, or make a
    shared word too frequent.
    """
    first = trained.graph.num_entities
    pairs: dict[str, Tensor] = {}
    counts: list[dict[str, Mapping[str, int]]] = [{} for _ in items]
    for name, own in extendable_pairs(trained).items() if items else ():
        assert own.basis is not None
        rows = grown(own, _given(name, own.basis, items, first), trained.features.dense)
        pairs[name] = rows
        found: list[Counter[str]] = [Counter() for _ in items]
        for kind, head, tail in rows.tolist():
            for entity in (head, tail):
                if entity >= first:
                    found[entity - first][own.kinds[kind]] += 1
        for position, counted in enumerate(found):
            counts[position][name] = dict(counted)
    return Additions(
        [replace(item, pairs=own) for item, own in zip(items, counts, strict=True)], pairs
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
    """What is unknown of an addition for finding pairs, or is not supported."""
    if not run.reads_pairs:
        return []
    found = []
    for name, own in run.features.pairs.items():
        basis = own.basis
        if basis is None:
            why = f" ({own.provenance['replaced']})" if "replaced" in own.provenance else ""
            found.append(
                f"{name}{why}: pairs of a new entity are not made, so rules over them do not "
                f"reach it"
            )
            continue
        if "names" in basis.texts and not item.names:
            found.append(f"{name}: no names are given, so {item.name!r} is what it is called")
        if "texts" in basis.texts and name not in item.texts:
            found.append(f"{name}: no text is given that pairs begin with")
        if not basis.texts and (basis.modality or name) not in item.vectors:
            found.append(
                f"{name}: no vector is given ({basis.modality or name}), so it is like none"
            )
    return found
