"""Add entities to a trained run: check everything, fit rows, return the additions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from mocme.core.deadline import Check, unlimited
from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import Vocabulary
from mocme.data.modality import Tokens
from mocme.data.names import alike, difference, name_problem
from mocme.experts.embedding.expert import EmbeddingExpert, added_entities
from mocme.experts.embedding.extended_model import AddedVectors, FusionStats, longest
from mocme.experts.embedding.fit_rows import FittedRows, FrozenQuestions, fit_rows
from mocme.inductive.content import FILES, attributes, encode_content, takes
from mocme.inductive.extended_run import RunContents
from mocme.inductive.new_entity import Content, EncodedContent, InvalidEntity, NewEntity, part
from mocme.inductive.pairs import accepted_modalities, extendable_pairs, remarks
from mocme.inductive.store import Addition, Additions, Fact

Advance = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Adder:
    """Adds new entities to a trained run.

    Attributes:
        trained: graph, modalities and model as they were trained.
        present: existing additions.
        as_negatives: see `fit_rows`; without it, additions rank too high in all queries.
        fits: cached state of earlier fits of the same run.
    """

    trained: RunContents
    present: Sequence[Addition]
    as_negatives: bool = True
    fits: RowFits | None = None

    def add(
        self,
        entities: Sequence[NewEntity],
        advance: Advance | None = None,
        check: Check = unlimited,
    ) -> list[Addition]:
        """Compute additions without their pairs (see `related`); nothing is written.

        Entities with facts among each other are fitted together, all others separately, so the
        result for an entity does not depend on unrelated entities of the batch.

        Args:
            advance: receives (entities done, entities in all).
            check: called between the steps of the work; what it raises ends it.

        Raises:
            ValueError: an entity is wrong; the message names it and the remedy.
        """
        self._check_names(entities)
        facts = self._facts(entities)
        contents_of = self._encoded(entities, check)
        drafts = [
            self._draft(entity, facts[entity.name], contents_of[entity.name]) for entity in entities
        ]
        report, done = advance or (lambda done, total: None), 0
        fits = self.fits or RowFits(self.trained)
        additions: dict[str, Addition] = {}
        for group in _groups(drafts):
            links = [item for item in group if item.facts or any(item.tokens.values())]
            if links:
                group = [item for item in group if item not in links]
                group += self._fitted(links, fits, check)
            additions |= {item.name: item for item in group}
            done += len(group)
            report(done, len(drafts))
        return fits.noted([additions[item.name] for item in drafts])

    # -- checks ----------------------------------------------------------------------------------

    def _check_names(self, entities: Sequence[NewEntity]) -> None:
        if not entities:
            raise ValueError("no entity is given; give at least one with a name")
        taken = {item.name for item in self.present}
        for entity in entities:
            if not entity.name.strip():
                raise InvalidEntity("an entity's name is empty; give it one", "name")
            if problem := name_problem(entity.name):
                raise InvalidEntity(problem, "name")
            if entity.name in self.trained.graph.entities:
                raise InvalidEntity(
                    f"{entity.name!r} is an entity of the graph that the run was trained on; "
                    f"choose another name, or train again to give it more facts",
                    "name",
                )
            if entity.name in taken:
                raise InvalidEntity(
                    f"{entity.name!r} is an addition already, or given twice; remove it first, or "
                    f"choose another name",
                    "name",
                )
            taken.add(entity.name)
            self._check_names_of(entity)

    def _check_names_of(self, entity: NewEntity) -> None:
        names = _listed(entity.names)
        if not all(isinstance(name, str) and name.strip() for name in names):
            raise InvalidEntity(
                f"{entity.name!r}: one of its names is empty; leave it out", "names"
            )
        bases = [pairs.basis for pairs in extendable_pairs(self.trained).values()]
        if names and not any(basis is not None and "names" in basis.texts for basis in bases):
            raise InvalidEntity(
                f"{entity.name!r}: names are given, but no pairs of the run are derived from "
                f"names; omit them",
                "names",
            )

    def _facts(self, entities: Sequence[NewEntity]) -> dict[str, list[Fact]]:
        """All facts of the batch by the new entity that they contain."""
        graph = self.trained.graph
        present = [item.name for item in self.present]
        vocabulary = Vocabulary([*graph.entities, *present, *(entity.name for entity in entities)])
        facts: dict[str, dict[Fact, None]] = {entity.name: {} for entity in entities}
        for entity in entities:
            for number, fact in enumerate(entity.facts):
                with part(f"facts.{number}"):
                    _check_fact(entity.name, fact)
                    head, relation, tail = fact
                    graph.relations.id(relation)
                    for name in (head, tail):
                        vocabulary.id(name)
                        if name in facts:
                            facts[name][(head, relation, tail)] = None
        return {name: list(kept) for name, kept in facts.items()}

    def _encoded(
        self, entities: Sequence[NewEntity], check: Check
    ) -> dict[str, dict[str, EncodedContent]]:
        """Encoded content by entity and modality; each encoder is loaded once."""
        accepted = accepted_modalities(self.trained)
        given: dict[str, dict[str, Content]] = {name: {} for name in accepted}
        for entity in entities:
            for name, content in self._spread(entity).items():
                given[name][entity.name] = content
        device = self.trained.mixture.device
        encoded: dict[str, dict[str, EncodedContent]] = {entity.name: {} for entity in entities}
        for name, contents in given.items():
            if not contents:
                continue
            check()
            with part(f"content.{name}"):
                results = encode_content(name, accepted[name], contents, device)
            for entity_name, result in results.items():
                encoded[entity_name][name] = result
        return encoded

    def _spread(self, entity: NewEntity) -> dict[str, Content]:
        """Content by modality: what is given for it, else the texts and numbers of the entity."""
        accepted = accepted_modalities(self.trained)
        content = dict(entity.content)
        for name in content:
            if name in self.trained.features.pairs and name not in accepted:
                raise InvalidEntity(
                    f"{entity.name!r}: {name} has pairs of entities, which this run does not "
                    f"compute for new entities; omit it",
                    f"content.{name}",
                )
            if name not in accepted:
                raise InvalidEntity(
                    f"{entity.name!r}: the run has no modality {name!r} to give content for; it "
                    f"has {', '.join(accepted) or 'structure only'}",
                    f"content.{name}",
                )
        kinds = {name: takes(modality)[0] for name, modality in accepted.items()}
        for name, value in content.items():
            if kinds[name] in FILES:
                content[name] = _at(entity.home, value)
        free = [name for name in accepted if name not in content]
        if entity.text is not None:
            reading = [name for name in free if kinds[name] == "texts"]
            if not reading:
                raise InvalidEntity(
                    f"{entity.name!r}: no modality of the run is computed from texts by a known "
                    f"encoder; omit the text, or give content by modality",
                    "text",
                )
            content |= dict.fromkeys(reading, entity.text)
        if entity.numbers is not None:
            content |= self._numbers(entity, [name for name in free if kinds[name] == "numbers"])
        return content

    def _numbers(self, entity: NewEntity, reading: Sequence[str]) -> dict[str, Content]:
        """For each modality the numbers of its attributes."""
        accepted = accepted_modalities(self.trained)
        has = {name: attributes(accepted[name]) for name in reading}
        assert entity.numbers is not None
        for attribute in entity.numbers:
            if not any(attribute in names for names in has.values()):
                every = sorted({name for names in has.values() for name in names})
                raise InvalidEntity(
                    f"{entity.name!r}: no modality of the run has the attribute {attribute!r}; "
                    f"there are {', '.join(every) or 'none'}",
                    "numbers",
                )
        numbers_of: dict[str, Content] = {}
        for name, names in has.items():
            if numbers := {key: n for key, n in entity.numbers.items() if key in names}:
                numbers_of[name] = numbers
        return numbers_of

    # -- rows ------------------------------------------------------------------------------------

    def _draft(
        self, entity: NewEntity, facts: Sequence[Fact], content: Mapping[str, EncodedContent]
    ) -> Addition:
        """The addition without rows."""
        notes = [f"{name}: {note}" for name, encoded in content.items() for note in encoded.notes]
        vectors = {
            name: encoded.vector for name, encoded in content.items() if encoded.vector is not None
        }
        tokens = {name: encoded.tokens for name, encoded in content.items() if encoded.tokens}
        reads = self.trained.reads
        if not facts and not any(name in reads for name in (*vectors, *tokens)):
            notes.append("it has no facts and no content: its vector is the mean of all others")
        notes += self._alike(entity.name)
        draft = Addition(
            entity.name,
            tuple(facts),
            {},
            vectors,
            tokens,
            {name: encoded.given for name, encoded in content.items()},
            tuple(notes),
            {},
            datetime.now(UTC).isoformat(timespec="seconds"),
            _listed(entity.names),
            {name: encoded.texts for name, encoded in content.items() if encoded.texts is not None},
        )
        return replace(draft, remarks=(*notes, *remarks(self.trained, draft)))

    def _alike(self, name: str) -> list[str]:
        """A note if the name looks like that of another entity."""
        present = [item.name for item in self.present]
        found = alike(name, [*self.trained.graph.entities, *present])
        if found is None:
            return []
        return [
            f"its name {name!a} looks like {found!a} ({difference(name, found)}), which is another "
            f"entity; remove it if they are the same"
        ]

    def _fitted(self, group: Sequence[Addition], fits: RowFits, check: Check) -> list[Addition]:
        """The additions with rows in every embedding, fitted together."""
        items = list(group)
        for expert in self.trained.embeddings:
            vocabularies = self.trained.features.only(expert.reads).tokens
            if not any(item.facts or _has_tokens(item, vocabularies) for item in group):
                continue  # this embedding reads nothing that a row could be fitted to
            frozen = fits.of(expert)
            later = self._later(group, expert.name)
            new = self._numbered(group, frozen.facts, list(later), vocabularies)
            more = torch.stack(list(later.values())) if later else None
            zeros = torch.zeros(expert.base.settings.embedding_dim)
            vectors = [item.vectors for item in group]
            added = added_entities(expert.base, vectors, [zeros] * len(group))
            fitted = fit_rows(
                frozen, added, new, later=more, as_negatives=self.as_negatives, check=check
            )
            prefix = f"{expert.name}: " if len(self.trained.embeddings) > 1 else ""
            items = [
                replace(
                    item,
                    rows={**item.rows, expert.name: row.cpu().clone()},
                    fit={**item.fit, **_fit_record(fitted, prefix)},
                    remarks=_with_fit_note(item, fitted),
                )
                for item, row in zip(items, fitted.rows, strict=True)
            ]
        return items

    def _later(self, group: Sequence[Addition], expert: str) -> dict[str, Tensor]:
        """Vectors of present additions that facts name."""
        named = {name for item in group for h, _, t in item.facts for name in (h, t)}
        chosen = [position for position, item in enumerate(self.present) if item.name in named]
        if not chosen:
            return {}
        extended = self.trained.extended(Additions(self.present))
        first = self.trained.graph.num_entities
        model = next(e.model for e in extended.embeddings if e.name == expert)
        vectors = model.frozen().vectors
        return {self.present[position].name: vectors[first + position] for position in chosen}

    def _numbered(
        self,
        group: Sequence[Addition],
        facts: TrainingFacts,
        later: Sequence[str],
        vocabularies: Mapping[str, Tokens],
    ) -> Int[Tensor, "k 3"]:
        """Facts and tokens in the numbering of `fit_rows`."""
        graph = self.trained.graph
        names = [*later, *(item.name for item in group)]
        ids = {name: facts.num_nodes + position for position, name in enumerate(names)}

        def node(name: str) -> int:
            return ids[name] if name in ids else graph.entities.id(name)

        rows = [
            (node(h), graph.relations.id(r), node(t)) for item in group for h, r, t in item.facts
        ]
        for number, (name, vocabulary) in enumerate(vocabularies.items()):
            says, first = 2 * graph.num_relations + 2 * number, facts.spans[number + 1][0]
            nodes = {token: first + index for index, token in enumerate(vocabulary.vocabulary)}
            rows += [
                (ids[item.name], says, nodes[token])
                for item in group
                for token in item.tokens.get(name, ())
            ]
        return torch.tensor(list(dict.fromkeys(rows)), dtype=torch.int64).view(-1, 3)


class RowFits:
    """The frozen part of row fits, by embedding; computed when first needed.

    Args:
        trained: the run as it was trained.
    """

    def __init__(self, trained: RunContents) -> None:
        self.trained = trained
        self._frozen: dict[str, FrozenQuestions] = {}
        self._ranges: dict[str, tuple[FusionStats, Tensor]] = {}

    def of(self, expert: EmbeddingExpert) -> FrozenQuestions:
        """The frozen queries of an embedding."""
        if expert.name not in self._frozen:
            tokens = self.trained.features.only(expert.reads).tokens
            facts = TrainingFacts.of(self.trained.graph, tokens, expert.objective.candidates)
            self._frozen[expert.name] = FrozenQuestions(expert.base, facts, expert.objective)
        return self._frozen[expert.name]

    def noted(self, items: Sequence[Addition]) -> list[Addition]:
        """The additions, with a note where a vector is longer than any of the training."""
        notes: dict[str, str] = {}
        for expert in self.trained.embeddings:
            base, prefix = expert.base, ""
            if len(self.trained.embeddings) > 1:
                prefix = f"{expert.name}: "
            if expert.name not in self._ranges:
                trained = base.frozen().vectors[: base.num_entities]
                self._ranges[expert.name] = FusionStats.of(base), longest(trained)
            stats, length = self._ranges[expert.name]
            rows = [item.rows.get(expert.name) for item in items]
            added = added_entities(base, [item.vectors for item in items], rows)
            with torch.no_grad():
                vectors, _ = AddedVectors(base, added, stats)(added.rows, added.present)
            for item, size in zip(items, vectors.norm(dim=1).tolist(), strict=True):
                if size > float(length):
                    notes[item.name] = (
                        f"{prefix}its vector is {size / float(length):.3g} times as long as the "
                        f"longest of the training, and is used as if it were as long as that one"
                    )
        return [
            replace(item, remarks=(*item.remarks, notes[item.name])) if item.name in notes else item
            for item in items
        ]

    def slim(self) -> None:
        """Free what is large and quickly computed again."""
        for frozen in self._frozen.values():
            frozen.slim()


def _check_fact(name: str, fact: Fact) -> None:
    """Refuse a fact that is malformed or does not contain the new entity."""
    if len(fact) != 3 or not all(isinstance(name, str) for name in fact):
        raise ValueError(f"{name!r}: {fact!r} is not a fact; give (head, relation, tail)")
    head, relation, tail = fact
    if name not in (head, tail):
        raise ValueError(
            f"{name!r}: the fact ({head}, {relation}, {tail}) does not contain it; "
            f"facts between other entities require a new training"
        )


def _at(home: Path, content: Content) -> Content:
    """Resolve relative paths."""
    if isinstance(content, str | Path):
        return home / content
    if isinstance(content, Sequence) and all(isinstance(one, str | Path) for one in content):
        return [home / str(one) for one in content]
    return content


def _groups(drafts: Sequence[Addition]) -> list[list[Addition]]:
    """Group entities that facts of the batch connect."""
    group = {item.name: [item] for item in drafts}
    for item in drafts:
        for head, _, tail in item.facts:
            if head in group and tail in group and group[head] is not group[tail]:
                group[head].extend(group[tail])
                for other in group[tail]:
                    group[other.name] = group[head]
    return list({id(members): members for members in group.values()}.values())


def _has_tokens(item: Addition, vocabularies: Mapping[str, Tokens]) -> bool:
    return any(item.tokens.get(name) for name in vocabularies)


def _listed(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _fit_record(fitted: FittedRows, prefix: str) -> dict[str, float]:
    return {
        f"{prefix}loss": fitted.loss,
        f"{prefix}gradient": fitted.gradient,
        f"{prefix}gradient at first": fitted.first,
        f"{prefix}steps": fitted.steps,
    }


def _with_fit_note(item: Addition, fitted: FittedRows) -> tuple[str, ...]:
    if fitted.settled:
        return item.remarks
    return (
        *item.remarks,
        f"its row did not converge in {fitted.steps} steps (gradient {fitted.gradient:.2g}, "
        f"initially {fitted.first:.2g}): its scores may be unreliable",
    )
