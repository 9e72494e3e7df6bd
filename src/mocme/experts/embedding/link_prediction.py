"""Link prediction: the loss of a training, its regulariser and the auxiliary term."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import AnswerIndex, Queries
from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.losses import CubedModuli, score_batch
from mocme.experts.embedding.model import EmbeddingModel
from mocme.experts.embedding.negative_sampling import (
    Candidates,
    UniformSampling,
)
from mocme.experts.embedding.objective import Objective

# Rejected answers of a step, and candidates that they compete with, at most.
MOST_REJECTED, RIVALS = 256, 4096


@dataclass(frozen=True)
class QueryGroup:
    """Questions of a step that share a candidate class, on the CPU.

    Attributes:
        queries: B distinct questions.
        weight: of each question's loss.
        row, node: the question and the node of every known answer.
        used: answers that take part in the step; None: all.
        share: number of answers that each of these represents.
        negatives: the candidates.
    """

    queries: Queries
    weight: Float[Tensor, " B"]
    row: Int[Tensor, " n"]
    node: Int[Tensor, " n"]
    used: Int[Tensor, " u"] | None
    share: Float[Tensor, " u"]
    negatives: Candidates


@dataclass(frozen=True)
class RejectedBatch:
    """Rejected answers that a step pushes down.

    Attributes:
        queries, answer: B questions and the wrong answer of each.
        rivals: sampled candidates that the answers compete with.
        weight: of each loss.
    """

    queries: Queries
    answer: Int[Tensor, " B"]
    rivals: Int[Tensor, " C"]
    weight: float


@dataclass(frozen=True)
class TrainingBatch:
    """The questions of a step, group by group.

    Attributes:
        norm: weighted number of facts.
    """

    groups: Sequence[QueryGroup]
    norm: float
    wrong: RejectedBatch | None = None

    def entities(self, number: int) -> Int[Tensor, " n"] | None:
        """Which of `number` entities the step needs, ascending; None: it may need any."""
        needed = []
        for group in self.groups:
            if isinstance(group.negatives.nodes, slice):
                if group.negatives.nodes.start < number:
                    return None
            else:
                needed.append(group.negatives.nodes.cpu())
            needed += [group.queries.head, group.node]
        if self.wrong is not None:
            needed += [self.wrong.queries.head, self.wrong.answer, self.wrong.rivals]
        ids: Tensor = torch.unique(torch.cat(needed))
        return ids[ids < number]


class LinkPrediction:
    """The objective on one model and its training facts."""

    def __init__(
        self, settings: Objective, model: EmbeddingModel, facts: TrainingFacts, device: torch.device
    ) -> None:
        self.settings, self.model, self.facts, self.device = settings, model, facts, device
        self.index = AnswerIndex(facts.facts)
        self._excluded = facts.excluded.to(device)
        self._none = torch.empty(0, dtype=torch.int64, device=device)

    def batch(self, chosen: Int[Tensor, " B"], generator: torch.Generator) -> TrainingBatch:
        """The questions at the positions `chosen` of the index, with sampled candidates."""
        weight = self._weights(chosen)
        counts = (self.index.offsets[chosen + 1] - self.index.offsets[chosen]).float()
        classes = self.facts.relation_class[self.index.queries.relation[chosen]]
        groups = [
            self._group(int(number), chosen[classes == number], generator)
            for number in torch.unique(classes)
        ]
        wrong = self._wrong(len(chosen), generator)
        return TrainingBatch(groups, float((weight * counts).sum()) or 1.0, wrong)

    def backward(
        self,
        batch: TrainingBatch,
        rows: GradientBuffer,
        redundancy: Tensor,
        generator: torch.Generator,
    ) -> Mapping[str, float]:
        """Add the gradient of a batch's loss to all parameters; returns its terms.

        The terms are means per fact; `facts` is the weighted number of facts.
        """
        sums = {"loss": 0.0, "n3": 0.0}
        for group in batch.groups:
            loss, regulariser = self._terms(group, rows, generator)
            total = (loss + regulariser) / batch.norm if self.settings.n3 else loss / batch.norm
            total.backward()
            sums["loss"] += float(loss.detach()) / batch.norm
            sums["n3"] += float(regulariser.detach()) / batch.norm
        if batch.wrong is not None:
            refused = self._refused(batch.wrong, rows) / batch.norm
            refused.backward()
            sums["rejected"] = float(refused.detach())
        if self.settings.redundancy and redundancy.requires_grad:
            # `GradientBuffer.backward` differentiates the table once; this adds to the same graph.
            (self.settings.redundancy * redundancy).backward(retain_graph=True)
            sums["redundancy"] = float(redundancy.detach())
        rows.backward()
        return {**sums, "facts": batch.norm}

    def _wrong(self, num_questions: int, generator: torch.Generator) -> RejectedBatch | None:
        """Sample rejected answers for a step: each occurs once per epoch on average."""
        rejected, share = self.facts.rejected, num_questions / max(1, len(self.index))
        if not len(rejected) or not self.settings.rejected:
            return None
        count = min(len(rejected), math.ceil(len(rejected) * share), MOST_REJECTED)
        drawn = rejected[torch.randperm(len(rejected), generator=generator)[:count]]
        rivals = (
            UniformSampling(size=RIVALS)
            .draw(self.facts.spans[0], self.facts.excluded, generator)
            .nodes
        )
        assert isinstance(rivals, Tensor)
        weight = self.settings.rejected * len(rejected) * share / count
        queries = Queries(drawn[:, 0], drawn[:, 1])
        return RejectedBatch(queries, drawn[:, 2], rivals, weight)

    def _refused(self, wrong: RejectedBatch, rows: GradientBuffer) -> Tensor:
        """Summed softplus(s - log mean e^o) of rejected answers, o the scores of their rivals.

        The alternative, -log(1 - p) with the softmax probability p, has a vanishing gradient: p is
        small even where the answer ranks high.
        """
        queries, answer = wrong.queries.to(self.device), wrong.answer.to(self.device)
        rivals = wrong.rivals.to(self.device)
        relations = self.model.relations(queries.relation)
        query = self.model.query(rows.gather(queries.head), queries.relation, relations)
        rejected_scores = self.model.scorer.compare(
            query, rows.gather(answer).unsqueeze(1)
        ).squeeze(1)
        scores = self.model.scorer.compare(query, rows.gather(rivals))
        itself = answer.unsqueeze(1) == rivals
        average = scores.masked_fill(itself, -torch.inf).logsumexp(1)
        others = average - (~itself).sum(1).log()
        return wrong.weight * torch.nn.functional.softplus(rejected_scores - others).sum()

    def _weights(self, chosen: Tensor) -> Float[Tensor, " B"]:
        return self.settings.weight(self.index.queries.relation[chosen], self.facts)

    def _group(self, number: int, chosen: Tensor, generator: torch.Generator) -> QueryGroup:
        row, node = self.index.rows(chosen)
        used, share = self._sampled(row, generator)
        negatives = self.settings.negatives.draw(
            self.facts.spans[number], self._excluded if number == 0 else self._none, generator
        )
        queries, weight = self.index.queries[chosen], self._weights(chosen)
        return QueryGroup(queries, weight, row, node, used, share, negatives)

    def _terms(
        self, group: QueryGroup, rows: GradientBuffer, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Summed loss and regulariser of a group."""
        settings, model, device = self.settings, self.model, self.device
        queries, weight = group.queries.to(device), group.weight.to(device)
        used = None if group.used is None else group.used.to(device)
        row, node = group.row.to(device), group.node.to(device)
        share = group.share.to(device, rows.values.dtype)
        heads = rows.gather(queries.head)
        relations = model.relations(queries.relation)
        query = model.query(heads, queries.relation, relations)
        scores, others = score_batch(
            query,
            rows,
            group.negatives,
            (row, node),
            settings.loss.weighting,
            model.scorer,
            generator,
            int(settings.score_memory * 2**30),
            used=used,
        )
        if used is not None:
            row, node = row[used], node[used]
        loss = (settings.loss(scores, row, share, others) * weight).sum()
        if not settings.n3:
            return loss, loss.new_zeros(())
        count = torch.bincount(row, weights=share, minlength=len(queries)).to(scores.dtype)
        # Not weighted: a fact about a token is regularised as much as any other.
        return loss, self._n3(rows, heads, relations, count, node, share)

    def _n3(
        self,
        rows: GradientBuffer,
        heads: Tensor,
        relations: Tensor,
        by_query: Tensor,
        answers: Tensor,
        by_answer: Tensor,
    ) -> Tensor:
        """N3 of a group: each fact counts its head, relation and answer once."""
        scorer = self.model.scorer
        cubes = CubedModuli.apply(heads, scorer.complex_entries)
        cubes = cubes + CubedModuli.apply(relations, scorer.complex_relations)
        # A node that answers many questions is cubed once, with the sum of their weights.
        nodes, position = torch.unique(answers, return_inverse=True)
        times = by_answer.new_zeros(len(nodes)).index_add_(0, position, by_answer)
        others = CubedModuli.apply(rows.gather(nodes), scorer.complex_entries)
        total: Tensor = (cubes * by_query).sum() + (others * times).sum()
        return self.settings.n3 * total

    def _sampled(self, row: Tensor, generator: torch.Generator) -> tuple[Tensor | None, Tensor]:
        """Answers that take part in the step (None: all), and how many each represents."""
        limit = self.settings.max_answers
        counts = torch.bincount(row) if len(row) else row
        if not limit or not len(row) or int(counts.max()) <= limit:
            return None, torch.ones(len(row))
        lots = torch.rand(len(row), generator=generator)
        order = torch.argsort(row + lots.double() * 0.999)
        rank = torch.arange(len(row)) - (torch.cumsum(counts, 0) - counts)[row]
        used = order[rank < limit]
        share = counts.float() / counts.clamp_max(limit)
        return used, share[row[used]]
