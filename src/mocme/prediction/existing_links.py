"""How the graph links two entities already, beside a fact that is suggested of them."""

from __future__ import annotations

from mocme.data.graph import Graph, distinct
from mocme.data.paths import Fact, FactNetwork


class ExistingLinks:
    """Facts between two entities, of all splits, and which relations are symmetric.

    Attributes:
        symmetric: relations that training facts show to be so
            (`mocme.data.quality.relation_overlap.SYMMETRIC`).
    """

    def __init__(self, graph: Graph) -> None:
        self.names = graph.relations
        self.network = FactNetwork(graph, *graph.splits)
        self.symmetric = self.network.symmetric
        self._refused = {tuple(fact) for fact in distinct(graph.rejected).tolist()}

    def others(self, fact: Fact) -> tuple[str, ...]:
        """Relations that link head and tail besides the fact itself: "r", or "inverse of r".

        A symmetric relation that is known from tail to head only is "r (turned around)".

        Where the fact is known and its relation symmetric, the fact turned around is no other one.
        """
        head, _, tail = fact
        return tuple(
            self.names[relation] if start == head else self._turned(relation)
            for start, relation, end in self.network.links(head, tail)
            if (start, relation, end) != fact
        )

    def _turned(self, relation: int) -> str:
        name = self.names[relation]
        return f"{name} (turned around)" if relation in self.symmetric else f"inverse of {name}"

    def both_ways(self, fact: Fact) -> bool:
        """Whether the fact turned around says the same, and is neither known nor rejected."""
        head, relation, tail = fact
        if relation not in self.symmetric or head == tail:
            return False
        turned = (tail, relation, head)
        return turned not in self.network.between(head, tail) and turned not in self._refused
