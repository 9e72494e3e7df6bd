"""The record of how a modality was made, checked before new content is encoded by it.

The record is metadata of a file that may come from elsewhere, and vectors of users have metadata of
their own. So it is checked where it is used, and a run without a usable record still answers.
"""

from __future__ import annotations

from mocme.core.text_formats import parse_json
from mocme.data.features.numeric import check_edges, read_scales
from mocme.data.modality import AnyModality, Modality, Tokens
from mocme.data.words import UNITS


def provenance_problem(modality: AnyModality) -> str:
    """Say why new content cannot be encoded by the record of a modality.

    Returns:
        The reason; empty where the record is usable or absent.
    """
    try:
        if isinstance(modality, Tokens):
            _check_tokens(modality)
        elif isinstance(modality, Modality) and "scales" in modality.provenance:
            _check_scales(modality)
    except ValueError as error:
        return f"the run's record of how it was computed cannot be used: {error}"
    return ""


def _check_scales(modality: Modality) -> None:
    scales = read_scales(modality.provenance["scales"])
    if not scales or modality.width % len(scales):
        raise ValueError("'scales' does not fit the width of the vectors")
    # Two columns, and one for each bin; without bins there are no edges.
    bins = modality.width // len(scales) - 2
    if any(len(scale.edges) != (bins + 1 if bins else 0) for scale in scales.values()):
        raise ValueError("'scales' does not fit the width of the vectors")


def _check_tokens(tokens: Tokens) -> None:
    provenance = tokens.provenance
    if "edges" in provenance:
        table = parse_json(provenance["edges"])
        if not isinstance(table, dict):
            raise ValueError("'edges' is not a JSON object")
        for attribute, edges in table.items():
            check_edges(attribute, edges)
    if provenance.get("unit") not in UNITS:
        return
    # New texts keep as many words of an entity, the rarest.
    if not provenance.get("per_entity", "").isdecimal():
        raise ValueError("'per_entity' is not a number")
    frequency = parse_json(provenance.get("frequency", "null"))
    if not isinstance(frequency, list) or not all(type(count) is int for count in frequency):
        raise ValueError("'frequency' is not a list of integers")
    if len(frequency) != len(tokens.vocabulary):
        raise ValueError("'frequency' does not count every token")
