"""Small random graphs with modalities, in memory and as folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import Graph, Vocabulary
from mocme.data.modality import Features, Modality, Tokens


@dataclass(frozen=True)
class Tiny:
    """A small random graph and its modalities."""

    graph: Graph
    features: Features

    def facts(self, candidates: str = "trained") -> TrainingFacts:
        """What a training of it learns from."""
        return TrainingFacts.of(self.graph, self.features.tokens, candidates)


def make_tiny(
    seed: int = 0,
    entities: int = 12,
    relations: int = 3,
    facts: int = 30,
    valid: int = 6,
    test: int = 6,
    unseen: int = 2,
    dense: Mapping[str, int] = {"shape": 5, "sound": 3},
    tokens: Mapping[str, int] = {"word": 6},
    share: float = 0.6,
) -> Tiny:
    """A random graph.

    Args:
        facts: of the train split; those of valid and test are other ones.
        unseen: how many entities (the last ones) occur in no training fact.
        dense: width by modality name.
        tokens: size of the vocabulary by modality name.
        share: of the entities that have a modality, in the mean. With two modalities or more the
            last entity has none of them, and the one before has all.
    """
    generator = torch.Generator().manual_seed(seed)
    everything = torch.cartesian_prod(
        torch.arange(entities), torch.arange(relations), torch.arange(entities)
    )
    everything = everything[torch.randperm(len(everything), generator=generator)]
    seen = (everything[:, [0, 2]] < entities - unseen).all(1)
    train = everything[seen][:facts]
    rest = torch.cat([everything[seen][facts:], everything[~seen]])
    rest = rest[torch.randperm(len(rest), generator=generator)]
    splits = {"train": train, "valid": rest[:valid], "test": rest[valid : valid + test]}
    graph = Graph(
        Vocabulary([f"e{n}" for n in range(entities)]),
        Vocabulary([f"r{n}" for n in range(relations)], "relation"),
        {name: split for name, split in splits.items() if len(split)},
        name="tiny",
    )

    def having() -> torch.Tensor:
        has = torch.rand(entities, generator=generator) < share
        has[-1], has[-2], has[0] = False, True, True
        return has.nonzero().flatten()

    vectors = {}
    for name, width in dense.items():
        rows = having()
        values = torch.randn(len(rows), width, generator=generator)
        vectors[name] = Modality(values, rows, entities)
    sets = {}
    for name, size in tokens.items():
        rows = having()
        chosen = torch.rand(len(rows), size, generator=generator) < 0.4
        chosen[torch.arange(len(rows)), torch.arange(len(rows)) % size] = True
        place, token = chosen.nonzero().unbind(1)
        vocabulary = tuple(f"{name}{n}" for n in range(size))
        sets[name] = Tokens(vocabulary, rows[place], token.contiguous(), entities)
    return Tiny(graph, Features(vectors, sets))


def write_tiny(folder: Path, tiny: Tiny) -> Path:
    """Write a tiny graph and its modalities as a folder that `mocme.load` reads."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    names = tiny.graph.entities.names
    for split, facts in tiny.graph.splits.items():
        rows = [(names[h], tiny.graph.relations[r], names[t]) for h, r, t in facts.tolist()]
        (folder / f"{split}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    (folder / "entities.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "relations.txt").write_text("".join(f"{name}\n" for name in tiny.graph.relations))
    lines = ['name = "tiny"']
    for name, modality in tiny.features.dense.items():
        save_file(
            {"values": modality.values, "rows": modality.rows}, folder / f"{name}.safetensors"
        )
        lines += [f"[modalities.{name}]", 'kind = "vectors"', f'path = "{name}.safetensors"']
    for name, tokens in tiny.features.tokens.items():
        pairs = zip(tokens.entity.tolist(), tokens.token.tolist(), strict=True)
        text = [f"{names[entity]}\t{tokens.vocabulary[token]}\n" for entity, token in pairs]
        (folder / f"{name}.tsv").write_text("".join(text))
        lines += [f"[modalities.{name}]", 'kind = "words"', f'paths = ["{name}.tsv"]']
        lines += ["at_least = 1", "at_most = 1.0", "per_entity = 100"]
    (folder / "graph.toml").write_text("\n".join(lines) + "\n")
    return folder
