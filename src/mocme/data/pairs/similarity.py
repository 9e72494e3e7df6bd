"""Entities whose content is most alike: by the words of their texts, or by their vectors.

Both rank by cosine and take the lower id first where two are equally near (to five decimals, so
that rounding errors decide nothing). Both work block by block of rows: memory grows with the block,
not with the square of the entities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.words import running

# Cosines that are held at a time.
_CELLS = 1 << 23
_DECIMALS = 5

IdPairs = tuple[Int[Tensor, " m"], Int[Tensor, " m"]]


def similar_texts(
    texts: Mapping[int, Sequence[str]],
    nearest: int = 5,
    *,
    least: float = 0.1,
    at_least: int = 2,
    at_most: float = 0.2,
    since: int = 0,
) -> IdPairs:
    """Each entity with the entities of the most similar texts, heads and tails ascending.

    Texts are tf-idf vectors of unit length over words and pairs of words that follow each other:
    (1 + ln tf) * (1 + ln((1 + n) / (1 + df))), as scikit-learn's TfidfVectorizer(sublinear_tf=True)
    has them, for terms of at least `at_least` texts and at most the share `at_most` of all n.

    Args:
        texts: by entity; several count as one, but no pair of words reaches across.
        nearest: how many tails a head has, at most.
        least: the cosine must be above it.
        since: only pairs are made with an entity of at least this id, out of the same ones.
    """
    held = [entity for entity in sorted(texts) if any(texts[entity])]
    rows = np.array(held, np.int64)
    vectors = _tf_idf([_terms(texts[entity]) for entity in held], at_least, at_most)
    across = vectors.T.tocsr()
    chosen = []
    places = np.arange(len(rows))
    if since:
        # Products are symmetric to the bit: who is near to none of the new has none among its own.
        near = (vectors[rows >= since] @ across).tocoo()
        places = np.union1d(places[rows >= since], near.col[near.data > least]).astype(np.int64)
    block = max(1, _CELLS // max(1, len(rows)))
    for first in range(0, len(places), block):
        own = places[first : first + block]
        cosine = (vectors[own] @ across).tocoo()
        keep = cosine.data > least
        head, tail = own[cosine.row[keep]], cosine.col[keep].astype(np.int64)
        chosen.append(_nearest(head, tail, cosine.data[keep], nearest))
    return _pairs(chosen, rows, since)


def similar_vectors(
    values: Float[Tensor, "n F"], rows: Int[Tensor, " n"], nearest: int = 5, *, least: float = 0.0
) -> IdPairs:
    """Each entity with the entities of the most similar vectors, heads and tails ascending.

    Args:
        values: a vector for each of the entities `rows`; one of zeros alone is near to none.
        nearest: how many tails a head has, at most.
        least: the cosine must be above it.
    """
    return _pairs(_alike(_unit(values), torch.arange(len(rows)), nearest, least), rows.numpy())


def similar_to_new(
    values: Float[Tensor, "n F"],
    rows: Int[Tensor, " n"],
    since: int,
    trained: tuple[Tensor, Tensor],
    nearest: int = 5,
    *,
    least: float = 0.0,
) -> IdPairs:
    """Those of `similar_vectors` with an entity of at least the id `since`.

    The cosines of all pairs are not looked at: who is less near to every new entity than its
    `nearest` are has none of the new among its own.

    Args:
        rows: ascending.
        trained: what `similar_vectors` gives for the entities below `since` alone.
    """
    unit, places = _unit(values), torch.arange(len(rows))
    new = rows >= since
    head, tail = (torch.searchsorted(rows, ids) for ids in trained)
    full = torch.bincount(head, minlength=len(rows)) >= nearest
    limit = torch.full((len(rows),), torch.inf)
    cosines = torch.cat(
        [
            (unit[h] * unit[t]).sum(1)
            for h, t in zip(head.split(65536), tail.split(65536), strict=True)
        ]
    )
    limit = limit.scatter_reduce(0, head, cosines, "amin")
    limit = torch.where(full, limit - 2 * 10.0**-_DECIMALS, torch.tensor(least))
    close = torch.full((len(rows),), -torch.inf)
    for own in unit[new].split(1024):
        close = torch.maximum(close, (unit @ own.T).amax(1))
    return _pairs(_alike(unit, places[new | (close >= limit)], nearest, least), rows.numpy(), since)


def _alike(
    unit: Float[Tensor, "n F"], places: Int[Tensor, " m"], nearest: int, least: float
) -> list[Int[np.ndarray, "_ 2"]]:
    """The nearest of the vectors at some places, block by block, as places."""
    chosen = []
    for own in places.split(max(1, _CELLS // max(1, len(unit)))):
        if not len(own):
            continue
        cosine = unit[own] @ unit.T
        cosine[torch.arange(len(own)), own] = -torch.inf
        # What could be among the nearest, with those that are as near as the last of them.
        last = cosine.topk(min(nearest, len(unit)), 1).values[:, -1:] - 2 * 10.0**-_DECIMALS
        head, tail = ((cosine > least) & (cosine >= last)).nonzero().unbind(1)
        near = cosine[head, tail].numpy()
        chosen.append(_nearest(own[head].numpy(), tail.numpy(), near, nearest))
    return chosen


def nearest_to(
    values: Float[Tensor, "n F"], place: int, nearest: int = 5
) -> tuple[list[int], list[float]]:
    """Places of the vectors most similar to that at `place`, nearest first, and their cosines.

    Those of zeros alone are near to none.
    """
    unit = _unit(values)
    cosine = (unit @ unit[place]).double()
    cosine[place] = -torch.inf
    cosine[~unit.any(1)] = -torch.inf
    # Equal to five decimals: the lower place first, as in `similar_vectors`.
    order = torch.argsort(cosine.round(decimals=_DECIMALS), descending=True, stable=True)
    found = order[cosine[order] > -torch.inf][:nearest] if bool(unit[place].any()) else order[:0]
    return found.tolist(), cosine[found].tolist()


def _unit(values: Float[Tensor, "n F"]) -> Float[Tensor, "n F"]:
    # Scaled by the largest number first, so that no square is too large or too small for float32.
    scaled = values.float()
    scaled = scaled / scaled.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return torch.nn.functional.normalize(scaled)


def _terms(texts: Sequence[str]) -> Counter[str]:
    terms: Counter[str] = Counter()
    for text in texts:
        words = running(text)
        terms.update(words)
        terms.update(map(" ".join, pairwise(words)))
    return terms


def _tf_idf(counts: Sequence[Counter[str]], at_least: int, at_most: float) -> Any:
    """A sparse matrix (n, terms) of rows of unit length, terms in alphabetical order."""
    # Costs a fifth of a second, which only this should pay.
    from scipy.sparse import csr_array

    frequency = Counter(term for own in counts for term in own)
    number = max(len(counts), 1)
    kept = sorted(t for t, df in frequency.items() if df >= at_least and df / number <= at_most)
    place = {term: column for column, term in enumerate(kept)}
    idf = np.array([1 + np.log((1 + len(counts)) / (1 + frequency[term])) for term in kept])
    columns: list[int] = []
    numbers: list[int] = []
    ends = [0]
    for own in counts:
        found = sorted((place[term], tf) for term, tf in own.items() if term in place)
        columns.extend(column for column, _ in found)
        numbers.extend(tf for _, tf in found)
        ends.append(len(columns))
    column = np.array(columns, np.int64)
    values = (1 + np.log(np.array(numbers, np.float64))) * idf[column]
    row = np.repeat(np.arange(len(counts)), np.diff(ends))
    length = np.sqrt(np.bincount(row, values**2, len(counts)))
    unit = (values / length[row]).astype(np.float32)
    return csr_array((unit, column, np.array(ends)), shape=(len(counts), len(kept)))


def _nearest(
    head: Int[np.ndarray, " k"],
    tail: Int[np.ndarray, " k"],
    cosine: Float[np.ndarray, " k"],
    nearest: int,
) -> Int[np.ndarray, "m 2"]:
    """The first `nearest` tails of each head by cosine, then by id; never the head itself."""
    apart = head != tail
    head, tail, cosine = head[apart], tail[apart], cosine[apart]
    order = np.lexsort((tail, -np.round(cosine.astype(np.float64), _DECIMALS), head))
    head, tail = head[order], tail[order]
    rank = np.arange(len(head)) - np.searchsorted(head, head)
    return np.stack([head, tail], 1)[rank < nearest]


def _pairs(
    chosen: Sequence[Int[np.ndarray, "_ 2"]], rows: Int[np.ndarray, " n"], since: int = 0
) -> IdPairs:
    """Entities instead of places, in ascending order; one of each pair has at least id `since`."""
    both = rows[np.concatenate([np.zeros((0, 2), np.int64), *chosen])]
    both = both[(both >= since).any(1)]
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    head, tail = torch.from_numpy(both).unbind(1)
    return head.contiguous(), tail.contiguous()
