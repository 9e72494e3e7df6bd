"""How the graph already links two entities for which a fact is suggested."""

from __future__ import annotations

from mocme.data.graph import Graph, distinct
from mocme.data.paths import Fact, FactNetwork


class ExistingLinks:
    """Facts between two entities in all splits, and symmetric relations.

    Attributes:
        symmetric: relations that are symmetric in the training facts
            (`mocme.data.quality.relation_overlap.SYMMETRIC`).
    """

    def __init__(self, graph: Graph) -> None:
        self.names = graph.relations
        self.network = FactNetwork(graph, *graph.splits)
        self.symmetric = self.network.symmetric
        self._refused = {tuple(fact) for fact in distinct(graph.rejected).tolist()}

    def others(self, fact: Fact) -> tuple[str, ...]:
        """Relations that link head and tail besides the fact itself: "r" or "inverse of r".

        A symmetric relation that is known from tail to head only is "r (turned around)". If the
        fact is known and its relation symmetric, the reversed fact does not count as another one.
        """
        head, _, tail = fact
        return tuple(
            self.names[relation] if start == head else self._reversed_name(relation)
            for start, relation, end in self.network.links(head, tail)
            if (start, relation, end) != fact
        )

    def _reversed_name(self, relation: int) -> str:
        name = self.names[relation]
        return f"{name} (turned around)" if relation in self.symmetric else f"inverse of {name}"

    def both_ways(self, fact: Fact) -> bool:
        """Whether the reversed fact is equivalent, and neither known nor rejected."""
        head, relation, tail = fact
        if relation not in self.symmetric or head == tail:
            return False
        reversed_fact = (tail, relation, head)
        return (
            reversed_fact not in self.network.between(head, tail)
            and reversed_fact not in self._refused
        )
