"""What is answered over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from mocme.data.reviews import Review
from mocme.inductive.content import Takes
from mocme.prediction.schema import Prediction
from mocme.serving.schema.requests import FactBody


class PredictionBody(BaseModel):
    """A prediction; see `mocme.Prediction`."""

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
    """The answers of one question, best first; of `check`, in the order of the facts."""

    question: str
    predictions: list[PredictionBody]

    @staticmethod
    def of(question: str, items: Sequence[Prediction]) -> dict[str, Any]:
        """As JSON has it."""
        return {"question": question, "predictions": [item.as_dict() for item in items]}


class ErrorDetail(BaseModel):
    """What went wrong, what to do, and which part of the request it is about, where it is one."""

    code: str
    message: str
    remedy: str = ""
    near: list[str] = []
    field: str = ""


class ErrorBody(BaseModel):
    """The body of every answer that is none."""

    error: ErrorDetail


class Answers(BaseModel):
    """Answers of a batch, each an answer or why there is none."""

    answers: list[Answer | ErrorBody]


class NamedCount(BaseModel):
    """A name and its number of facts."""

    name: str
    facts: int


class Present(BaseModel):
    """A modality: how many entities have it, and what of a new one it is made of.

    `pairs` tells those that are pairs of entities found in content, which patterns alone use. Of
    numbers `attributes` says which; what takes nothing is given ready, as vector or tokens.
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
    modalities: list[Present]
    probabilities: bool
    notes: list[str]
    additions: int


class Runs(BaseModel):
    """The served runs, the first is asked where none is named; and whether one may add to them."""

    runs: list[RunInfo]
    version: str
    adds: bool


class NameMatches(BaseModel):
    """Names that match."""

    entities: list[NamedCount]


class TextOf(BaseModel):
    """A text of an entity."""

    modality: str
    text: str


class NumberOf(BaseModel):
    """A number of an entity."""

    modality: str
    name: str
    value: float


class FileOf(BaseModel):
    """A file of an entity."""

    modality: str
    kind: Literal["image", "audio", "video", "other"]
    url: str


class AddedEntity(BaseModel):
    """An entity that was added; `given` says in words what its modalities are made of."""

    name: str
    facts: list[FactBody]
    modalities: list[str]
    tokens: dict[str, list[str]]
    given: dict[str, str]
    notes: list[str]
    fit: dict[str, float]
    time: str
    names: Annotated[list[str], Field(description="What texts call it; its name where empty.")]
    texts: Annotated[
        dict[str, list[str]], Field(description="By modality, the texts that it is made of.")
    ]
    pairs: Annotated[
        dict[str, dict[str, int]],
        Field(description="By modality of pairs and by kind, how many pairs it is in."),
    ]


class AdditionList(BaseModel):
    """Additions, the oldest first."""

    total: int
    additions: list[AddedEntity]


class UploadedImage(BaseModel):
    """A picture that was sent, for `content` of `POST /v1/additions`."""

    id: str
    bytes: int


class AdditionInfo(BaseModel):
    """How an entity was added: when, what was given by modality in words, what is to be known."""

    time: str
    given: dict[str, str]
    notes: list[str]


class EntityInfo(BaseModel):
    """An entity, and what is known of it."""

    name: str
    facts: int
    in_training: bool
    weights: dict[str, float]
    modalities: Annotated[dict[str, bool], Field(description="Content: whether it has it.")]
    pairs: Annotated[
        dict[str, int],
        Field(description="Pairs found in content, which patterns alone use: how many it is in."),
    ]
    texts: list[TextOf]
    numbers: list[NumberOf]
    files: list[FileOf]
    types: list[str]
    addition: AdditionInfo | None


class SplitFact(BaseModel):
    """A fact of the graph."""

    head: str
    relation: str
    tail: str
    split: str


class FactPage(BaseModel):
    """Some of an entity's facts."""

    total: int
    facts: list[SplitFact]


class Neighbourhood(BaseModel):
    """An entity and what it is linked to; `left_out` says how many neighbours are not shown."""

    nodes: list[NamedCount]
    edges: list[SplitFact]
    left_out: int


class RunReport(BaseModel):
    """The run in figures, as its folder holds them."""

    evaluations: list[dict[str, Any]]
    training: list[dict[str, Any]]
    calibration: dict[str, Any] | None


class ReviewList(BaseModel):
    """Decisions, the newest first."""

    total: int
    counts: dict[str, int]
    reviews: list[Review]


class Health(BaseModel):
    """Whether the server is up, or ready."""

    status: str
