"""Bodies of HTTP responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from mocme.data.reviews import Review
from mocme.inductive.content import Takes
from mocme.prediction.schema import Prediction
from mocme.serving.schema.requests import FactBody


class PredictionBody(BaseModel):
    """A predicted fact; see `mocme.Prediction`."""

    head: str
    relation: str
    tail: str
    score: float | None
    known: bool
    weights: dict[str, float]
    probability: float | None
    applies: float | None
    linked: list[str]
    symmetric: bool
    note: str


class Answer(BaseModel):
    """Predictions of one question, best first; for `score`, in the order of the given facts."""

    question: str
    predictions: list[PredictionBody]

    @staticmethod
    def of(question: str, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the JSON body."""
        return {"question": question, "predictions": [item.as_dict() for item in predictions]}


class ErrorDetail(BaseModel):
    """An error: what went wrong, the remedy, near names, and the part of the request at fault."""

    code: str
    message: str
    remedy: str = ""
    near: list[str] = []
    field: str = ""


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: ErrorDetail


class BatchAnswer(BaseModel):
    """Answers of a batch in the order of its questions, each an answer or an error."""

    answers: list[Answer | ErrorBody]


class NamedCount(BaseModel):
    """A name and its number of facts."""

    name: str
    facts: int


class ModalityInfo(BaseModel):
    """A modality of a run.

    `present` is the number of entities that have it. `pairs` marks pairs of entities found in
    content, which only rules use. `takes` is the raw content it is computed from for a new entity;
    if that is `nothing`, give a vector or tokens. `attributes` names the numbers that it takes.
    """

    name: str
    present: int
    pairs: bool
    takes: Takes
    attributes: list[str]


class RunInfo(BaseModel):
    """A served run."""

    name: str
    experiment: str
    graph: str
    seed: int
    entities: int
    relations: list[NamedCount]
    facts: dict[str, int]
    modalities: list[ModalityInfo]
    probabilities: bool
    notes: list[str]
    additions: int


class RunList(BaseModel):
    """The served runs, the default one first; `adds` says whether entities may be added to them."""

    runs: list[RunInfo]
    version: str
    adds: bool


class NameMatches(BaseModel):
    """Entities whose names match, best first."""

    entities: list[NamedCount]


class EntityText(BaseModel):
    """A text of an entity."""

    modality: str
    text: str


class EntityNumber(BaseModel):
    """A number of an entity."""

    modality: str
    name: str
    value: float


class EntityFile(BaseModel):
    """A file of an entity.

    Attributes:
        kind: by the content of the file.
        hidden: why the file is not sent; empty if it is.
    """

    modality: str
    kind: Literal["image", "audio", "video", "other"]
    url: str
    hidden: str


class AddedEntity(BaseModel):
    """An added entity; `given` describes by modality the content it was made of."""

    name: str
    facts: list[FactBody]
    modalities: list[str]
    tokens: dict[str, list[str]]
    given: dict[str, str]
    notes: list[str]
    fit: dict[str, float]
    time: str
    names: Annotated[list[str], Field(description="Names used in texts; if empty, its name.")]
    texts: Annotated[
        dict[str, list[str]], Field(description="By modality, the texts it was made of.")
    ]
    pairs: Annotated[
        dict[str, dict[str, int]],
        Field(description="By modality of pairs and by kind, its number of pairs."),
    ]


class AdditionList(BaseModel):
    """Additions, oldest first."""

    total: int
    additions: list[AddedEntity]


class UploadedImage(BaseModel):
    """An uploaded picture; its id is used in `content` of `POST /v1/additions`."""

    id: str
    bytes: int


class AdditionInfo(BaseModel):
    """When an entity was added, what was given for each modality, and notes."""

    time: str
    given: dict[str, str]
    notes: list[str]


class EntityInfo(BaseModel):
    """An entity: its modalities, raw content and types."""

    name: str
    facts: int
    in_training: bool
    weights: dict[str, float]
    modalities: Annotated[
        dict[str, bool], Field(description="By modality, whether the entity has content of it.")
    ]
    pairs: Annotated[
        dict[str, int],
        Field(description="By modality of pairs, which only rules use, its number of pairs."),
    ]
    texts: list[EntityText]
    numbers: list[EntityNumber]
    files: list[EntityFile]
    types: list[str]
    addition: AdditionInfo | None


class SplitFact(BaseModel):
    """A fact of the graph and its split."""

    head: str
    relation: str
    tail: str
    split: str


class FactPage(BaseModel):
    """A page of an entity's facts; `total` counts all of them."""

    total: int
    facts: list[SplitFact]


class Neighbourhood(BaseModel):
    """An entity, its neighbours, and their facts; `left_out` counts omitted neighbours."""

    nodes: list[NamedCount]
    edges: list[SplitFact]
    left_out: int


class RunReport(BaseModel):
    """Evaluations, training log and calibration, as stored in the run's folder."""

    evaluations: list[dict[str, Any]]
    training: list[dict[str, Any]]
    calibration: dict[str, Any] | None


class ReviewList(BaseModel):
    """Decisions, newest first; `counts` has their number by kind."""

    total: int
    counts: dict[str, int]
    reviews: list[Review]


class Health(BaseModel):
    """Whether the server is alive, or ready."""

    status: str
