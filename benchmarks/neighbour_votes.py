"""A baseline for entities without training facts: their nearest neighbours vote."""

from __future__ import annotations

import torch
from torch import Tensor

from mocme.data.graph import Graph, Queries
from mocme.data.modality import Modality

NEAREST = 10  # neighbours that vote


class Neighbours:
    """Votes of the seen entities whose vectors are nearest, by cosine.

    A candidate gets the cosine of each neighbour of the question's head whose answer it is, and of
    each of its own neighbours that answers the question.
    """

    def __init__(self, graph: Graph, modality: Modality) -> None:
        values = torch.zeros(graph.num_entities, modality.width)
        values[modality.rows] = torch.nn.functional.normalize(modality.values.float())
        seen = graph.linked()
        size, pairs, weights = graph.num_entities, [], []
        for block in torch.arange(size).split(2048):
            cosine = values[block] @ values.T
            cosine[:, ~seen] = -1.0
            cosine[torch.arange(len(block)), block] = -1.0
            top = cosine.topk(NEAREST, 1)
            pairs.append(torch.stack([block.repeat_interleave(NEAREST), top.indices.flatten()]))
            weights.append(top.values.flatten().clamp_min(0))
        self.near_NN = sparse(torch.cat(pairs, 1), torch.cat(weights), size)
        facts = graph.directed("train")
        self.size, self.links_NN = size, {}
        for relation in range(2 * graph.num_relations):
            of_relation = facts[facts[:, 1] == relation]
            ends = torch.stack([of_relation[:, 0], of_relation[:, 2]])
            self.links_NN[relation] = sparse(ends, torch.ones(len(of_relation)), size)

    def __call__(self, queries: Queries) -> Tensor:
        rows = []
        for head, relation in zip(queries.head.tolist(), queries.relation.tolist(), strict=True):
            links = self.links_NN[relation]
            near = self.dense_row(self.near_NN, head)
            answers = self.dense_row(links, head).clamp_max(1)
            of_neighbours = torch.sparse.mm(links.T, near.unsqueeze(1))
            near_answers = torch.sparse.mm(self.near_NN, answers.unsqueeze(1))
            rows.append((of_neighbours + near_answers).flatten())
        return torch.stack(rows)

    def dense_row(self, matrix: Tensor, index: int) -> Tensor:
        row = torch.zeros(self.size)
        mask = matrix.indices()[0] == index
        row[matrix.indices()[1][mask]] = matrix.values()[mask]
        return row


def sparse(positions: Tensor, values: Tensor, size: int) -> Tensor:
    """A square sparse matrix, coalesced.

    Args:
        positions: rows and columns, (2, n).
    """
    matrix = torch.sparse_coo_tensor(positions, values, (size, size), check_invariants=False)
    return matrix.coalesce()
