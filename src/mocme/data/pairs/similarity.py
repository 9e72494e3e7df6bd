"""Find the entities with the most similar content: by words of texts, or by vectors.

Both rank by cosine similarity, rounded to five decimals so that rounding errors cannot decide, and
break ties by the lower id. Both work on blocks of rows, so that memory does not grow with the
square of the number of entities.
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

# The number of cosines in one block.
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
    """Pair each entity with the entities of the most similar texts.

    Texts are tf-idf vectors of unit length over words and pairs of adjacent words, with the weights
    (1 + ln tf) * (1 + ln((1 + n) / (1 + df))) of scikit-learn's TfidfVectorizer(sublinear_tf=True),
    for terms in at least `at_least` texts and at most the share `at_most` of all n texts.

    Args:
        texts: texts by entity; several count as one, but a pair of words is within one text.
        nearest: the largest number of tails per head.
        least: the cosine must be above it.
        since: return only the pairs with an entity of at least this id.

    Returns:
        Heads and tails of m pairs, ascending by head, then tail.
    """
    entities = [entity for entity in sorted(texts) if any(texts[entity])]
    rows = np.array(entities, np.int64)
    vectors = _tf_idf([_terms(texts[entity]) for entity in entities], at_least, at_most)
    transposed = vectors.T.tocsr()
    pairs = []
    positions = np.arange(len(rows))
    if since:
        # Products are symmetric to the bit, so a head that is similar to no new entity has none
        # among its nearest.
        similar = (vectors[rows >= since] @ transposed).tocoo()
        of_new = similar.col[similar.data > least]
        positions = np.union1d(positions[rows >= since], of_new).astype(np.int64)
    block = max(1, _CELLS // max(1, len(rows)))
    for first in range(0, len(positions), block):
        heads = positions[first : first + block]
        cosine = (vectors[heads] @ transposed).tocoo()
        keep = cosine.data > least
        head, tail = heads[cosine.row[keep]], cosine.col[keep].astype(np.int64)
        pairs.append(_nearest(head, tail, cosine.data[keep], nearest))
    return _as_ids(pairs, rows, since)


def similar_vectors(
    values: Float[Tensor, "n F"], rows: Int[Tensor, " n"], nearest: int = 5, *, least: float = 0.0
) -> IdPairs:
    """Pair each entity with the entities of the most similar vectors.

    Args:
        values: a vector for each of the entities `rows`; a zero vector is similar to none.
        nearest: the largest number of tails per head.
        least: the cosine must be above it.

    Returns:
        Heads and tails of m pairs, ascending by head, then tail.
    """
    positions = torch.arange(len(rows))
    return _as_ids(_nearest_blocks(_unit(values), positions, nearest, least), rows.numpy())


def similar_to_new(
    values: Float[Tensor, "n F"],
    rows: Int[Tensor, " n"],
    since: int,
    trained: tuple[Tensor, Tensor],
    nearest: int = 5,
    *,
    least: float = 0.0,
) -> IdPairs:
    """Return the pairs of `similar_vectors` with an entity of at least the id `since`.

    Not all pairs are compared: an old entity whose nearest old entities are all closer than any new
    one has no new tail.

    Args:
        rows: entity ids, ascending.
        trained: heads and tails that `similar_vectors` returns for the entities below `since`.
    """
    unit, positions = _unit(values), torch.arange(len(rows))
    new = rows >= since
    head, tail = (torch.searchsorted(rows, ids) for ids in trained)
    # The cosine that a new entity needs to be among the nearest of an old one: that of the last
    # pair of the old one, with a margin for rounding, or `least` if the old one has fewer pairs.
    is_full = torch.bincount(head, minlength=len(rows)) >= nearest
    limit = torch.full((len(rows),), torch.inf)
    cosines = torch.cat(
        [
            (unit[h] * unit[t]).sum(1)
            for h, t in zip(head.split(65536), tail.split(65536), strict=True)
        ]
    )
    limit = limit.scatter_reduce(0, head, cosines, "amin")
    limit = torch.where(is_full, limit - 2 * 10.0**-_DECIMALS, torch.tensor(least))
    to_new = torch.full((len(rows),), -torch.inf)
    for block in unit[new].split(1024):
        to_new = torch.maximum(to_new, (unit @ block.T).amax(1))
    affected = positions[new | (to_new >= limit)]
    return _as_ids(_nearest_blocks(unit, affected, nearest, least), rows.numpy(), since)


def _nearest_blocks(
    unit: Float[Tensor, "n F"], positions: Int[Tensor, " m"], nearest: int, least: float
) -> list[Int[np.ndarray, "_ 2"]]:
    """Return pairs of positions: the nearest of the vectors at `positions`, block by block."""
    pairs = []
    for heads in positions.split(max(1, _CELLS // max(1, len(unit)))):
        if not len(heads):
            continue
        cosine = unit[heads] @ unit.T
        cosine[torch.arange(len(heads)), heads] = -torch.inf
        # The margin keeps all that are equal to the last of the nearest after rounding, so that
        # ties are broken by id.
        last = cosine.topk(min(nearest, len(unit)), 1).values[:, -1:] - 2 * 10.0**-_DECIMALS
        head, tail = ((cosine > least) & (cosine >= last)).nonzero().unbind(1)
        candidates = cosine[head, tail].numpy()
        pairs.append(_nearest(heads[head].numpy(), tail.numpy(), candidates, nearest))
    return pairs


def nearest_to(
    values: Float[Tensor, "n F"], position: int, nearest: int = 5
) -> tuple[list[int], list[float]]:
    """Return the positions of the vectors most similar to that at `position`, and their cosines.

    The most similar comes first. A zero vector is similar to none.
    """
    unit = _unit(values)
    cosine = (unit @ unit[position]).double()
    cosine[position] = -torch.inf
    cosine[~unit.any(1)] = -torch.inf
    # Of cosines equal to five decimals, the lower position comes first, as in `similar_vectors`.
    order = torch.argsort(cosine.round(decimals=_DECIMALS), descending=True, stable=True)
    has_direction = bool(unit[position].any())
    positions = order[cosine[order] > -torch.inf][:nearest] if has_direction else order[:0]
    return positions.tolist(), cosine[positions].tolist()


def _unit(values: Float[Tensor, "n F"]) -> Float[Tensor, "n F"]:
    """Scale vectors to unit length, in float32; zero vectors stay zero."""
    # Scaled by the largest element first, so that no square over- or underflows float32.
    scaled = values.float()
    scaled = scaled / scaled.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return torch.nn.functional.normalize(scaled)


def _terms(texts: Sequence[str]) -> Counter[str]:
    """Count the words and the pairs of adjacent words of an entity's texts."""
    terms: Counter[str] = Counter()
    for text in texts:
        words = running(text)
        terms.update(words)
        terms.update(map(" ".join, pairwise(words)))
    return terms


def _tf_idf(counts: Sequence[Counter[str]], at_least: int, at_most: float) -> Any:
    """Return a sparse matrix (n, terms) of rows of unit length, terms in alphabetical order."""
    # Imported here because it takes a fifth of a second.
    from scipy.sparse import csr_array

    frequency = Counter(term for terms in counts for term in terms)
    number = max(len(counts), 1)
    kept = sorted(t for t, df in frequency.items() if df >= at_least and df / number <= at_most)
    column_of = {term: column for column, term in enumerate(kept)}
    idf = np.array([1 + np.log((1 + len(counts)) / (1 + frequency[term])) for term in kept])
    columns: list[int] = []
    numbers: list[int] = []
    ends = [0]
    for terms in counts:
        cells = sorted((column_of[term], tf) for term, tf in terms.items() if term in column_of)
        columns.extend(column for column, _ in cells)
        numbers.extend(tf for _, tf in cells)
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
    """Return the `nearest` tails of each head by cosine, then by id; never the head itself."""
    different = head != tail
    head, tail, cosine = head[different], tail[different], cosine[different]
    order = np.lexsort((tail, -np.round(cosine.astype(np.float64), _DECIMALS), head))
    head, tail = head[order], tail[order]
    rank = np.arange(len(head)) - np.searchsorted(head, head)
    return np.stack([head, tail], 1)[rank < nearest]


def _as_ids(
    pairs: Sequence[Int[np.ndarray, "_ 2"]], rows: Int[np.ndarray, " n"], since: int = 0
) -> IdPairs:
    """Turn pairs of positions into sorted pairs of ids, at least one of them `since` or above."""
    ids = rows[np.concatenate([np.zeros((0, 2), np.int64), *pairs])]
    ids = ids[(ids >= since).any(1)]
    ids = ids[np.lexsort((ids[:, 1], ids[:, 0]))]
    head, tail = torch.from_numpy(ids).unbind(1)
    return head.contiguous(), tail.contiguous()
