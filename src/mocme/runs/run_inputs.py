"""The graph and the modalities in a run's folder, as they were trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from mocme.data.graph import Graph
from mocme.data.modality import AnyModality, Features, Pairs
from mocme.data.modality_files import unpack_modality
from mocme.data.pairs.build import check_basis, check_references
from mocme.runs.run_files import ABOUT, NAMES, read_about, read_names
from mocme.storage import RunError, RunFolder
from mocme.storage.errors import RESTORE, refuse_invalid
from mocme.storage.tensor_schema import Field, check_tensors

GRAPH = "graph.safetensors"
REJECTED = "rejected.safetensors"


def read_graph(folder: RunFolder) -> Graph:
    """Read the graph of a run, without additions.

    Raises:
        RunError: names or facts are missing or damaged, or are not those of the training.
    """
    about, (entities, relations) = read_about(folder), read_names(folder)
    facts, rejected = folder.read_tensors(GRAPH), _read_rejected(folder)
    # What is wrong may be the names or the facts.
    with refuse_invalid(folder.path / f"{GRAPH} with {NAMES}"):
        graph = Graph(
            entities,
            relations,
            facts,
            name=about["graph"],
            folder=about["data"],
            rejected=rejected,
        )
        digest = graph.digest()
    # A split that is left out would not be filtered, a rejected fact be suggested again.
    if digest != about["digest"]["graph"]:
        raise RunError(
            f"{folder.path}: {NAMES}, {GRAPH} and {REJECTED} are not those that the run was "
            f"trained on, by the digest in {ABOUT}; {RESTORE}"
        )
    return graph


def _read_rejected(folder: RunFolder) -> Tensor:
    if not folder.has(REJECTED):
        return torch.empty(0, 3, dtype=torch.int64)
    tensors = folder.read_tensors(REJECTED)
    with refuse_invalid(folder.path / REJECTED):
        check_tensors(tensors, {"rejected": Field(torch.int64, ("n", 3))})
    return tensors["rejected"]


def modality_file(name: str) -> str:
    """The file of a modality in a run's folder."""
    return f"modalities/{name}.safetensors"


def read_modalities(folder: RunFolder, graph: Graph) -> Features:
    """Read the modalities of a run, without additions.

    Raises:
        RunError: one is missing or damaged, or was made for other entities.
    """
    about, digest = read_about(folder), graph.entities.digest()
    modalities = {}
    for name in about["modalities"]:
        file = modality_file(name)
        tensors, metadata = folder.read_packed(file)
        with refuse_invalid(folder.path / file):
            if metadata.get("entities") != digest:
                raise ValueError("was made for other entities than this run has")
            modality = unpack_modality(tensors, metadata, graph.num_entities)
            _check_modality(modality, about["entities"][name])
        modalities[name] = modality
    with refuse_invalid(folder.path / "modalities"):
        check_references(modalities)
    return Features.of(modalities)


def _check_modality(modality: AnyModality, count: int) -> None:
    """Check a modality against run.json.

    Args:
        count: how many entities have it.
    """
    if (has := int(modality.present().sum())) != count:
        raise ValueError(f"{has:,} entities have it, but run.json says {count:,}")
    if isinstance(modality, Pairs) and modality.basis is not None:
        check_basis(modality.basis)
