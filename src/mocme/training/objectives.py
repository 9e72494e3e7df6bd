"""What a training minimises: link prediction, its regulariser and the auxiliary term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.graph.tokens import TrainingFacts
from mocme.graph.triples import AnswerIndex
from mocme.model.model import Model
from mocme.parts import Part
from mocme.training.losses import Cubes, Softmax, score_batch
from mocme.training.negatives import Everyone, Negatives
from mocme.training.rows import Rows


class Objective(Part):
    """Link prediction over distinct questions.

    Args:
        n3: weight of the cubed-modulus regulariser on head, relation and answer vectors as scored
            (Lacroix et al., ICML 2018).
        redundancy: weight of the mean redundancy of a modality's views.
        token_weight: weight of the loss of questions about tokens against that of links (the
            regulariser counts every fact alike).
        candidates: see `TrainingFacts.of`.
        max_answers: answers of a question that take part in a step, drawn uniformly and rescaled;
            0 for all.
    """

    def __init__(
        self,
        *,
        loss: Softmax = Softmax(),
        negatives: Negatives = Everyone(),
        n3: float = 0.0,
        redundancy: float = 0.0,
        token_weight: float = 0.3,
        candidates: Literal["linked", "trained", "all"] = "trained",
        max_answers: int = 0,
        score_memory: float = 0.5,
    ) -> None:
        if min(n3, redundancy, token_weight, max_answers) < 0 or score_memory <= 0:
            raise ValueError("weights are at least 0 and score_memory (GiB) is above 0")
        self.loss, self.negatives, self.n3, self.redundancy = loss, negatives, n3, redundancy
        self.token_weight, self.candidates = token_weight, candidates
        self.max_answers, self.score_memory = max_answers, score_memory


class Batch:
    """Distinct questions of a step, grouped by candidate class, with their answers."""

    def __init__(
        self, index: AnswerIndex, chosen: Int[Tensor, " B"], relation_class: Tensor
    ) -> None:
        self.index, self.chosen = index, chosen
        classes = relation_class[index.queries.relation[chosen]]
        self.groups = [(int(c), chosen[classes == c]) for c in torch.unique(classes)]


class LinkPrediction:
    """The objective on one model and its training facts."""

    def __init__(
        self, settings: Objective, model: Model, facts: TrainingFacts, device: torch.device
    ) -> None:
        self.settings, self.model, self.facts, self.device = settings, model, facts, device
        self.index = AnswerIndex(facts.facts)
        self._excluded = facts.excluded.to(device)
        self._none = torch.empty(0, dtype=torch.int64, device=device)
        # Links keep their numbers 0..2R-1; everything after is about tokens.
        self._first_token_relation = facts.num_relations - 2 * (len(facts.spans) - 1)

    def batch(self, chosen: Int[Tensor, " B"]) -> Batch:
        """The questions at `chosen` of the index."""
        return Batch(self.index, chosen, self.facts.relation_class)

    def backward(
        self, batch: Batch, rows: Rows, redundancy: Tensor, generator: torch.Generator
    ) -> Mapping[str, float]:
        """Add the gradient of a batch's loss to all parameters; returns its terms.

        The terms are means per fact; `facts` is how many (answers of the batch's questions).
        """
        weight = self._weights(batch.chosen)
        counts = (self.index.offsets[batch.chosen + 1] - self.index.offsets[batch.chosen]).float()
        norm = float((weight * counts).sum()) or 1.0
        sums = {"loss": 0.0, "n3": 0.0}
        for number, chosen in batch.groups:
            loss, regulariser = self._group(number, chosen, rows, generator)
            total = (loss + regulariser) / norm if self.settings.n3 else loss / norm
            total.backward()
            sums["loss"] += float(loss.detach()) / norm
            sums["n3"] += float(regulariser.detach()) / norm
        if self.settings.redundancy and redundancy.requires_grad:
            # The table is differentiated once, by `Rows.backward`; this adds to the same graph.
            (self.settings.redundancy * redundancy).backward(retain_graph=True)
            sums["redundancy"] = float(redundancy.detach())
        rows.backward()
        return {**sums, "facts": norm}

    def _weights(self, chosen: Tensor) -> Float[Tensor, " B"]:
        about_tokens = self.index.queries.relation[chosen] >= self._first_token_relation
        return torch.where(about_tokens, self.settings.token_weight, 1.0)

    def _group(
        self, number: int, chosen: Tensor, rows: Rows, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Summed loss and regulariser of questions that share a candidate class."""
        settings, model, device = self.settings, self.model, self.device
        queries = self.index.queries[chosen].to(device)
        weight = self._weights(chosen).to(device)
        place, node = self.index.rows(chosen)
        used, share = self._sampled(place, generator)
        place, node, share = place.to(device), node.to(device), share.to(device, rows.values.dtype)
        used = None if used is None else used.to(device)
        heads = rows.gather(queries.head)
        relations = model.relations(queries.relation)
        query = model.scorer.query(heads, relations)
        negatives = settings.negatives.draw(
            self.facts.spans[number], self._excluded if number == 0 else self._none, generator
        )
        scores, others = score_batch(
            query,
            rows,
            negatives,
            (place, node),
            settings.loss.weighting,
            model.scorer,
            generator,
            int(settings.score_memory * 2**30),
            used=used,
        )
        if used is not None:
            place, node = place[used], node[used]
        loss = (settings.loss(scores, place, share, others) * weight).sum()
        if not settings.n3:
            return loss, loss.new_zeros(())
        count = torch.bincount(place, weights=share, minlength=len(chosen)).to(scores.dtype)
        # Not weighted: a fact about a token is regularised as much as any other.
        return loss, self._n3(rows, heads, relations, count, node, share)

    def _n3(
        self,
        rows: Rows,
        heads: Tensor,
        relations: Tensor,
        by_query: Tensor,
        answers: Tensor,
        by_answer: Tensor,
    ) -> Tensor:
        """N3 of a group: each fact counts its head, relation and answer once."""
        scorer = self.model.scorer
        cubes = Cubes.apply(heads, scorer.complex_entries)
        cubes = cubes + Cubes.apply(relations, scorer.complex_relations)
        # A node that answers many questions is cubed once, with the sum of their weights.
        nodes, place = torch.unique(answers, return_inverse=True)
        times = by_answer.new_zeros(len(nodes)).index_add_(0, place, by_answer)
        others = Cubes.apply(rows.gather(nodes), scorer.complex_entries)
        total: Tensor = (cubes * by_query).sum() + (others * times).sum()
        return self.settings.n3 * total

    def _sampled(self, place: Tensor, generator: torch.Generator) -> tuple[Tensor | None, Tensor]:
        """Which answers take part in the step (none: all), and how many each stands for."""
        limit = self.settings.max_answers
        counts = torch.bincount(place) if len(place) else place
        if not limit or not len(place) or int(counts.max()) <= limit:
            return None, torch.ones(len(place))
        lots = torch.rand(len(place), generator=generator)
        order = torch.argsort(place + lots.double() * 0.999)
        rank = torch.arange(len(place)) - (torch.cumsum(counts, 0) - counts)[place]
        used = order[rank < limit]
        share = counts.float() / counts.clamp_max(limit)
        return used, share[place[used]]


Objective.kinds = ()
