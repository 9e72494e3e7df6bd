"""Estimate how the score of an embedding would change without each training fact.

The estimate is an influence function (Koh and Liang, ICML 2017), restricted to the vectors of head
and tail with everything else fixed. Let v (D,) be the vector of an entity, L_j the loss of its fact
j, and S the score of the prediction. After training, v minimises sum_j L_j, so the gradients sum to
0. One Newton step on the sum without L_i moves v to

    v + H^-1 grad L_i,    H = sum_j hessian L_j + damping * I    (D, D),

and the score changes by grad S . H^-1 grad L_i. H is symmetric, so one linear system per entity
gives H^-1 grad S for all its facts. Retraining without each fact would be exact, but needs one
training per fact; the full influence function would need a Hessian over all parameters.

The step moves v itself. How v is fused from an entity's row and its modalities does not matter as
long as the row can move v in any direction, so no fusion appears here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.core.deadline import Check, unlimited
from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import AnswerIndex, Graph, Queries
from mocme.data.modality import Features, Tokens
from mocme.data.paths import Fact
from mocme.experts.embedding.expert import EmbeddingExpert
from mocme.experts.embedding.objective import Objective
from mocme.experts.embedding.vector_model import VectorModel

# The largest number of facts of one entity whose influence is estimated.
MOST_FACTS = 200
# The damping as a fraction of the mean of H's diagonal. It makes H invertible where an entity has
# fewer facts than dimensions, and scales with the losses.
DAMPING = 0.1
# Conjugate gradients stop after this many steps, or at this residual norm relative to the first.
STEPS = 20
RESIDUAL = 1e-2


class EmbeddingInfluence:
    """Estimated influence of training facts through the vectors of one embedding.

    Args:
        expert: the embedding.
        graph: the training view of the mixture's graph.
        features: the features of the graph's entities.
    """

    def __init__(self, expert: EmbeddingExpert, graph: Graph, features: Features) -> None:
        self.expert, self.model, self.graph = expert, expert.model, graph
        self.device = expert.device
        tokens = features.only(expert.reads).tokens
        self.facts = TrainingFacts.of(graph, tokens, expert.objective.candidates)
        self._all_ids = _ids_among_all(graph, list(tokens), features.tokens)
        self.estimator = InfluenceEstimator(expert.objective, self.model, self.facts)

    def changes(
        self,
        head: int,
        relation: int,
        tail: int,
        wanted: set[Fact],
        check: Check = unlimited,
    ) -> tuple[dict[Fact, float], list[str]]:
        """Estimate the change of the expert's mean score without each training fact, with notes.

        A fact between head and tail moves both vectors; its two changes are added.
        """
        slopes = self.slopes(head, relation, tail)
        total: dict[Fact, float] = {}
        notes = []
        for entity, slope in slopes.items():
            other = tail if entity == head else head
            all_facts = self.estimator.facts_of(entity)
            facts = self._selected(all_facts, other, wanted)
            name = self.graph.entities[entity]
            if not len(facts):
                notes.append(f"{name} is in no training fact, so none supports it")
                continue
            if len(facts) < len(all_facts):
                notes.append(
                    f"only {len(facts):,} of {len(all_facts):,} training facts of {name} were "
                    f"evaluated: first those on paths of rules, then those whose other entity is "
                    f"most similar to {self.graph.entities[other]}"
                )
            times = len(all_facts) / len(facts)
            change = self.estimator.changes(entity, facts, slope, times, check)
            for fact, value in zip(facts.tolist(), change.tolist(), strict=True):
                key = self._undirected(*fact)
                total[key] = total.get(key, 0.0) + value
        return total, notes

    # Callers may be inside torch.no_grad.
    @torch.enable_grad()
    def slopes(self, head: int, relation: int, tail: int) -> dict[int, Float[Tensor, " D"]]:
        """Return the gradients of the mean score with respect to the vectors of head and tail."""
        model = self.model
        vectors = model.frozen().vectors
        # If head and tail are the same entity, they share one vector and one gradient.
        leaves = {e: vectors[e].clone().requires_grad_() for e in dict.fromkeys((head, tail))}
        both = torch.tensor([relation, relation + self.graph.num_relations], device=self.device)
        query = model.query(torch.stack([leaves[head], leaves[tail]]), both)
        answers = torch.stack([leaves[tail], leaves[head]]).unsqueeze(1)  # (2, 1, D)
        score = model.scorer.compare(query, answers).mean()
        slopes = torch.autograd.grad(score, list(leaves.values()))
        return dict(zip(leaves, slopes, strict=True))

    def _selected(
        self, facts: Int[Tensor, "n 3"], other: int, wanted: set[Fact]
    ) -> Int[Tensor, "m 3"]:
        """Select at most `MOST_FACTS` facts of an entity: wanted ones, then similar ones."""
        if len(facts) <= MOST_FACTS:
            return facts
        vectors = self.model.frozen().vectors
        priority = torch.cosine_similarity(vectors[facts[:, 2]], vectors[other].unsqueeze(0))
        on_paths = [self._undirected(*fact) in wanted for fact in facts.tolist()]
        # Cosines span 2, so wanted facts come first.
        priority[torch.tensor(on_paths, device=priority.device)] += 2
        selected = priority.argsort(descending=True, stable=True)[:MOST_FACTS].sort().values
        return facts[selected.to(facts.device)]

    def _undirected(self, head: int, relation: int, tail: int) -> Fact:
        """Return a directed fact as it is stored, with ids among all vocabularies.

        A token fact already points from its entity.
        """
        num_relations = self.graph.num_relations
        if relation < num_relations:
            return head, relation, tail
        if relation < 2 * num_relations:
            return tail, relation - num_relations, head
        says, node = self._all_ids[(relation - 2 * num_relations) // 2]
        return head, relation + says, tail + node


def _ids_among_all(
    graph: Graph, read: Sequence[str], vocabularies: Mapping[str, Tokens]
) -> list[tuple[int, int]]:
    """By which an embedding's ids of relations and nodes of tokens differ from the graph's.

    An embedding numbers the vocabularies that it reads; a fact is named by a number among all.

    Returns:
        Both differences for each vocabulary of `read`.
    """
    first, own = {}, 0
    total = 0
    for name, tokens in vocabularies.items():
        first[name] = total
        total += len(tokens.vocabulary)
    shifts = []
    for m, name in enumerate(read):
        shifts.append((2 * (list(vocabularies).index(name) - m), first[name] - own))
        own += len(vocabularies[name].vocabulary)
    return shifts


class InfluenceEstimator:
    """Estimates the influence of each training fact of an entity on the entity's vector.

    Args:
        settings: the objective of the training.
        model: the trained embedding.
        facts: directed training facts, tokens included.
    """

    def __init__(self, settings: Objective, model: VectorModel, facts: TrainingFacts) -> None:
        self.settings, self.model, self.facts = settings, model, facts
        self.index = AnswerIndex(facts.facts)
        self.device = model.device

    def facts_of(self, entity: int) -> Int[Tensor, "n 3"]:
        """Return the training facts of an entity, tokens included, with the entity as head."""
        facts: Tensor = self.facts.facts[self.facts.facts[:, 0] == entity]
        return facts

    @torch.enable_grad()
    def changes(
        self,
        entity: int,
        facts: Int[Tensor, "n 3"],
        slope: Float[Tensor, " D"],
        times: float,
        check: Check = unlimited,
    ) -> Float[Tensor, " n"]:
        """Estimate the change of the score without each fact, grad L_i . H^-1 slope.

        Args:
            entity: the head of all facts.
            facts: directed facts of the entity.
            slope: gradient of the score with respect to the entity's vector.
            times: number of facts that each one represents in H, if only some are evaluated.
            check: called before each product with H.
        """
        check()
        vector = self.model.frozen().vectors[entity]
        # One copy of the vector per fact: one backward pass gives the gradients (n, D) of all.
        copies = vector.expand(len(facts), -1).clone().requires_grad_()
        (gradients,) = torch.autograd.grad(self.losses(facts, copies).sum(), copies)
        # One vector shared by all facts: its gradient is differentiated again for H.
        shared = vector.clone().requires_grad_()
        total = self.losses(facts, shared.expand(len(facts), -1)).sum() * times
        (total_gradient,) = torch.autograd.grad(total, shared, create_graph=True)

        def hessian_product(direction: Tensor) -> Tensor:
            check()
            (product,) = torch.autograd.grad(total_gradient, shared, direction, retain_graph=True)
            return product

        signs = torch.randn(len(vector), generator=torch.Generator().manual_seed(0)).sign()
        signs = signs.to(vector)
        # Hutchinson's estimator: for random signs z, the mean of z * Hz estimates trace(H) / D.
        # One product is enough for a damping, and the fixed seed keeps explanations reproducible.
        damping = DAMPING * float((signs * hessian_product(signs)).mean().clamp_min(1e-6))
        return gradients @ _solve(lambda d: hessian_product(d) + damping * d, slope)

    def losses(
        self, facts: Int[Tensor, "n 3"], vectors: Float[Tensor, "n D"]
    ) -> Float[Tensor, " n"]:
        """Return each fact's term of the objective, as a function of its head's vector.

        The term has a part for the fact (h, r, t) and one for its inverse (t, r^-1, h). Each part
        is the log-sum of exponentials over answers and weighted negatives, minus the score of the
        fact's answer (`_query_losses`). N3 of the vector is added. Only `vectors` varies: all other
        vectors, the head as a candidate of its own query, and the weights of negatives are fixed at
        their trained values.
        """
        inverse = torch.stack([facts[:, 2], self.facts.inverse[facts[:, 1]], facts[:, 0]], 1)
        total = vectors.new_zeros(len(facts))
        for directed, is_head in ((facts, True), (inverse, False)):
            for index in self._by_class(directed):
                rows = index.to(self.device)
                losses = self._query_losses(directed[index], vectors[rows], is_head)
                total = total.index_add(0, rows, losses)
        if self.settings.n3:
            cubes = self.model.scorer.moduli(vectors).pow(3).sum(1)
            # Once for the fact and once for its inverse.
            total = total + 2 * self.settings.n3 * cubes
        return total

    def _by_class(self, directed: Int[Tensor, "n 3"]) -> Iterator[Int[Tensor, " m"]]:
        """Yield the indices of the facts of each candidate class, which share their candidates."""
        classes = self.facts.relation_class[directed[:, 1]]
        for number in torch.unique(classes):
            yield (classes == number).nonzero().flatten()

    def _query_losses(
        self, directed: Int[Tensor, "m 3"], vectors: Float[Tensor, "m D"], is_head: bool
    ) -> Float[Tensor, " m"]:
        """Return the loss of m directed facts (h, r, a) of one candidate class.

        With s the scores of h and r, A the known answers of (h, r) and Z the weighted sum of the
        exponentials of the negatives' scores (`_negatives`), the loss is

            log(sum_{b in A} exp s_b + Z) - s_a    where answers are scored together,
            log(exp s_a + Z) - s_a                 where they are scored apart,

        times the weight of the relation.

        Args:
            directed: the facts.
            vectors: vectors of the heads if `is_head`, of the answers otherwise.
            is_head: whether the loss is a function of the heads or of the answers.
        """
        settings, model = self.settings, self.model
        table = model.frozen().vectors
        directed = directed.to(self.device)
        head, relation, answer = directed.unbind(1)
        query = model.query(vectors if is_head else table[head], relation)
        candidate_class = int(self.facts.relation_class[directed[0, 1].cpu()])
        span = self.facts.spans[candidate_class]
        scores = model.scorer.compare(query, table[slice(*span)])  # (m, C)
        rows = torch.arange(len(directed), device=self.device)
        answer_scores = scores[rows, answer - span[0]]
        if not is_head:
            # The table is constant; the answer's score must depend on `vectors`.
            answer_scores = model.scorer.compare(query, vectors.unsqueeze(1)).squeeze(1)
        # Known answers of all queries, as pairs (row, column) of `scores`.
        row, node = self.index.lookup(Queries(head.cpu(), relation.cpu()))
        row, column = row.to(self.device), node.to(self.device) - span[0]
        log_sum = self._negatives(scores, row, column, candidate_class)
        if settings.loss.answers == "together":
            answers = torch.full_like(scores, -torch.inf)
            answers = answers.index_put((row, column), scores[row, column])
            # After the known answers, so that the differentiable score replaces the constant one.
            answers = answers.index_put((rows, answer - span[0]), answer_scores)
            log_sum = torch.logaddexp(torch.logsumexp(answers, 1), log_sum)
        else:
            log_sum = torch.logaddexp(answer_scores, log_sum)
        return (log_sum - answer_scores) * settings.weight(relation, self.facts)

    def _negatives(
        self,
        scores: Float[Tensor, "m C"],
        row: Int[Tensor, " p"],
        column: Int[Tensor, " p"],
        candidate_class: int,
    ) -> Float[Tensor, " m"]:
        """Return log sum_j w_j exp s_j over all negatives j, where training may sample them.

        The weights w_j of a query have mean 1 and are constant in the gradient.

        Args:
            scores: scores of all candidates of the class.
            row, column: positions of the known answers in `scores`.
            candidate_class: 0 for entities, otherwise a token vocabulary.
        """
        not_negative = torch.zeros_like(scores, dtype=torch.bool)
        not_negative[row, column] = True
        if candidate_class == 0:
            not_negative[:, self.facts.excluded.to(self.device)] = True
        negatives = scores.masked_fill(not_negative, -torch.inf)
        with torch.no_grad():
            num_answers = torch.bincount(row, minlength=len(scores)).clamp_min(1)
            mean = scores.new_zeros(len(scores))
            mean = mean.index_add(0, row, scores[row, column]) / num_answers
            count = (~not_negative).sum(1).to(scores.dtype)
            weighted = negatives.detach().clone()
            generator = torch.Generator().manual_seed(0)
            log_total = self.settings.loss.weighting.weigh_(weighted, mean, count, generator)
            # log w = log u - log(sum u) + log(count), for the unnormalised weights u that `weigh_`
            # added to `weighted`. Where both are -inf, the difference would be NaN.
            log_u = torch.where(not_negative, 0.0, weighted - negatives)
            log_weights = log_u - log_total[:, None] + count.log()[:, None]
        return torch.logsumexp(negatives + log_weights, 1)


def _solve(
    hessian_product: Callable[[Tensor], Tensor], right: Float[Tensor, " D"]
) -> Float[Tensor, " D"]:
    """Solve H x = right by conjugate gradients (Hestenes and Stiefel, 1952).

    Only products with H are needed, so H (D, D) is never built. Conjugate gradients assume that H
    is positive definite. The losses of some scorers are not convex in one vector, so the solver
    stops at a direction of negative curvature and returns the solution up to it.
    """
    solution = torch.zeros_like(right)
    residual, direction = right.clone(), right.clone()
    norm = first_norm = float(residual @ residual)  # squared norms
    for _ in range(STEPS):
        if norm <= RESIDUAL**2 * first_norm or norm == 0:
            break
        product = hessian_product(direction)
        curvature = float(direction @ product)
        if curvature <= 0:
            break
        solution = solution + norm / curvature * direction
        residual = residual - norm / curvature * product
        norm, previous_norm = float(residual @ residual), norm
        direction = residual + norm / previous_norm * direction
    return solution
