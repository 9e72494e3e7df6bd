"""What goes in and out over HTTP; the answers are those of `mocme.inference`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mocme.additions.contents import Takes
from mocme.inference.predictions import MAX_K, Prediction, Question
from mocme.reviews import Decision, Review
from mocme.serving.limits import BATCH


def _text(value: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("is no text: it holds half of a surrogate pair")
    return value


Name = Annotated[
    str, Field(min_length=1, max_length=10_000, examples=["Chad"]), AfterValidator(_text)
]
Relation = Annotated[
    str, Field(min_length=1, max_length=10_000, examples=["borders"]), AfterValidator(_text)
]
RunName = Annotated[
    str | None,
    Field(None, description="Which of the served runs; the first by default.", max_length=1_000),
]
K = Annotated[int, Field(10, ge=1, le=MAX_K, description="How many answers.")]
Known = Annotated[
    Literal["hide", "mark"], Field("hide", description="Facts that the graph holds already.")
]
Among = Annotated[
    Literal["all", "observed"] | list[Name],
    Field(
        "all",
        description="all entities; observed: those that answer this relation somewhere in the "
        "graph; or a list of names",
    ),
]
Least = Annotated[float, Field(0.0, ge=0, le=1, description="Leave out what is less probable.")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Asked(_Body):
    run: RunName = None


class _Linked(_Asked):
    k: K = 10
    known: Known = "hide"
    among: Among = "all"
    min_probability: Least = 0.0

    def _question(self, head: str | None, relation: str, tail: str | None) -> Question:
        settings = (self.k, self.known, self.among, self.min_probability)
        return Question(head, relation, tail, *settings)


class Tails(_Linked):
    """The likeliest tails of (head, relation, ?)."""

    head: Name
    relation: Relation

    def question(self) -> Question:
        """As `mocme.Completer` takes it."""
        return self._question(self.head, self.relation, None)


class Heads(_Linked):
    """The likeliest heads of (?, relation, tail)."""

    relation: Relation
    tail: Name

    def question(self) -> Question:
        """As `mocme.Completer` takes it."""
        return self._question(None, self.relation, self.tail)


class Relations(_Asked):
    """The likeliest relations of (head, ?, tail)."""

    head: Name
    tail: Name
    k: K = 10
    known: Known = "hide"
    min_probability: Least = 0.0

    def question(self) -> Question:
        """As `mocme.Completer` takes it."""
        return Question(self.head, None, self.tail, self.k, self.known, "all", self.min_probability)


class Missing(_Asked):
    """What is missing about an entity, over all relations."""

    entity: Name
    k: K = 10
    min_probability: Least = 0.0


class Fact(_Body):
    """A fact by names."""

    head: Name
    relation: Relation
    tail: Name


class Check(_Asked):
    """Score and probability of given facts."""

    facts: list[Fact] = Field(min_length=1, max_length=BATCH)


class Explain(Fact):
    """What speaks for a fact."""

    run: RunName = None


class AskTails(Tails):
    """See `Tails`."""

    ask: Literal["tails"]


class AskHeads(Heads):
    """See `Heads`."""

    ask: Literal["heads"]


class AskRelations(Relations):
    """See `Relations`."""

    ask: Literal["relations"]


class AskMissing(Missing):
    """See `Missing`."""

    ask: Literal["missing"]


class AskCheck(Check):
    """See `Check`."""

    ask: Literal["check"]


AnyQuestion = Annotated[
    AskTails | AskHeads | AskRelations | AskMissing | AskCheck, Field(discriminator="ask")
]


class Batch(_Body):
    """Several questions, answered in their order."""

    questions: list[AnyQuestion] = Field(
        min_length=1,
        max_length=BATCH,
        examples=[
            [
                {"ask": "tails", "head": "Chad", "relation": "borders", "k": 3},
                {"ask": "missing", "entity": "Chad"},
            ]
        ],
    )


class NewReview(_Asked):
    """A decision on a fact."""

    head: Name
    relation: Relation
    tail: Name
    decision: Decision
    reviewer: Annotated[
        str, Field(min_length=1, max_length=200, examples=["Ada"]), AfterValidator(_text)
    ]
    note: Annotated[str, Field("", max_length=10_000), AfterValidator(_text)] = ""


Text = Annotated[str, Field(max_length=1_000_000), AfterValidator(_text)]
Numbers = Annotated[
    dict[str, Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1, max_length=10_000)
]


class Given(_Body):
    """What a new entity has of one modality: one of these."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=100)] | None = None
    pictures: (
        Annotated[
            list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]],
            Field(min_length=1, max_length=16, description="Ids from `POST /v1/pictures`."),
        ]
        | None
    ) = None
    numbers: Numbers | None = None
    tokens: Annotated[list[Text], Field(min_length=1, max_length=10_000)] | None = None
    vector: (
        Annotated[
            list[Annotated[float, Field(allow_inf_nan=False)]],
            Field(min_length=1, max_length=100_000),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _one(self) -> Given:
        if len(self.model_fields_set) != 1 or all(value is None for _, value in self):
            raise ValueError(f"give one of {', '.join(type(self).model_fields)}")
        return self


class NewAddition(_Asked):
    """An entity to add to a run; all but its name may be left out."""

    name: Annotated[
        str, Field(min_length=1, max_length=10_000, examples=["Newland"]), AfterValidator(_text)
    ]
    facts: Annotated[
        list[Fact],
        Field(
            max_length=1_000,
            description="Each names the entity; the other end is in the graph, or an addition.",
            examples=[[{"head": "Newland", "relation": "borders", "tail": "Chad"}]],
        ),
    ] = []
    text: Annotated[
        Text | None,
        Field(description="For every modality made of texts that is not in `content`."),
    ] = None
    numbers: Annotated[
        Numbers | None,
        Field(description="By attribute, for every modality made of numbers not in `content`."),
    ] = None
    content: Annotated[
        dict[str, Given], Field(max_length=1_000, description="By name of the modality.")
    ] = {}
    names: Annotated[
        list[Name],
        Field(
            max_length=100,
            description="What texts call it, for pairs made of names; its name by default.",
        ),
    ] = []

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Newland",
                    "facts": [{"head": "Newland", "relation": "borders", "tail": "Chad"}],
                    "text": "Newland ; Nouvelle Terre",
                }
            ]
        }
    )


# -- answers ---------------------------------------------------------------------------------------


class Shown(BaseModel):
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
    predictions: list[Shown]

    @staticmethod
    def of(question: str, items: Sequence[Prediction]) -> dict[str, Any]:
        """As JSON has it."""
        return {"question": question, "predictions": [item.as_dict() for item in items]}


class Problem(BaseModel):
    """What went wrong, what to do, and which part of the request it is about, where it is one."""

    code: str
    message: str
    remedy: str = ""
    near: list[str] = []
    field: str = ""


class Failure(BaseModel):
    """The body of every answer that is none."""

    error: Problem


class Answers(BaseModel):
    """Answers of a batch, each an answer or why there is none."""

    answers: list[Answer | Failure]


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


class About(BaseModel):
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

    runs: list[About]
    version: str
    adds: bool


class Found(BaseModel):
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


class Added(BaseModel):
    """An entity that was added; `given` says in words what its modalities are made of."""

    name: str
    facts: list[Fact]
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
    additions: list[Added]


class Picture(BaseModel):
    """A picture that was sent, for `content` of `POST /v1/additions`."""

    id: str
    bytes: int


class AddedOf(BaseModel):
    """How an entity was added: when, what was given by modality in words, what is to be known."""

    time: str
    given: dict[str, str]
    notes: list[str]


class Entity(BaseModel):
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
    addition: AddedOf | None


class SplitFact(BaseModel):
    """A fact of the graph."""

    head: str
    relation: str
    tail: str
    split: str


class Facts(BaseModel):
    """Some of an entity's facts."""

    total: int
    facts: list[SplitFact]


class Neighbourhood(BaseModel):
    """An entity and what it is linked to; `left_out` says how many neighbours are not shown."""

    nodes: list[NamedCount]
    edges: list[SplitFact]
    left_out: int


class Report(BaseModel):
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
