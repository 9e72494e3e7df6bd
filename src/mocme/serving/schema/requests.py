"""What is asked over HTTP, and within which limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mocme.data.reviews import Decision
from mocme.prediction.schema import MAX_K, Question
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


class _RunRequest(_Body):
    run: RunName = None


class _Linked(_RunRequest):
    k: K = 10
    known: Known = "hide"
    among: Among = "all"
    min_probability: Least = 0.0

    def _question(self, head: str | None, relation: str, tail: str | None) -> Question:
        settings = (self.k, self.known, self.among, self.min_probability)
        return Question(head, relation, tail, *settings)


class TailsRequest(_Linked):
    """The likeliest tails of (head, relation, ?)."""

    head: Name
    relation: Relation

    def question(self) -> Question:
        """As `mocme.Predictor` takes it."""
        return self._question(self.head, self.relation, None)


class HeadsRequest(_Linked):
    """The likeliest heads of (?, relation, tail)."""

    relation: Relation
    tail: Name

    def question(self) -> Question:
        """As `mocme.Predictor` takes it."""
        return self._question(None, self.relation, self.tail)


class RelationsRequest(_RunRequest):
    """The likeliest relations of (head, ?, tail)."""

    head: Name
    tail: Name
    k: K = 10
    known: Known = "hide"
    min_probability: Least = 0.0

    def question(self) -> Question:
        """As `mocme.Predictor` takes it."""
        return Question(self.head, None, self.tail, self.k, self.known, "all", self.min_probability)


class MissingRequest(_RunRequest):
    """What is missing about an entity, over all relations."""

    entity: Name
    k: K = 10
    min_probability: Least = 0.0


class FactBody(_Body):
    """A fact by names."""

    head: Name
    relation: Relation
    tail: Name


class CheckRequest(_RunRequest):
    """Score and probability of given facts."""

    facts: list[FactBody] = Field(min_length=1, max_length=BATCH)


class ExplainRequest(FactBody):
    """What speaks for a fact."""

    run: RunName = None


class AskTails(TailsRequest):
    """See `TailsRequest`."""

    ask: Literal["tails"]


class AskHeads(HeadsRequest):
    """See `HeadsRequest`."""

    ask: Literal["heads"]


class AskRelations(RelationsRequest):
    """See `RelationsRequest`."""

    ask: Literal["relations"]


class AskMissing(MissingRequest):
    """See `MissingRequest`."""

    ask: Literal["missing"]


class AskCheck(CheckRequest):
    """See `CheckRequest`."""

    ask: Literal["check"]


AnyQuestion = Annotated[
    AskTails | AskHeads | AskRelations | AskMissing | AskCheck, Field(discriminator="ask")
]


class BatchRequest(_Body):
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


class NewReview(_RunRequest):
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


class ModalityContent(_Body):
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
    def _one(self) -> ModalityContent:
        if len(self.model_fields_set) != 1 or all(value is None for _, value in self):
            raise ValueError(f"give one of {', '.join(type(self).model_fields)}")
        return self


class NewAddition(_RunRequest):
    """An entity to add to a run; all but its name may be left out."""

    name: Annotated[
        str, Field(min_length=1, max_length=10_000, examples=["Newland"]), AfterValidator(_text)
    ]
    facts: Annotated[
        list[FactBody],
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
        dict[str, ModalityContent], Field(max_length=1_000, description="By name of the modality.")
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
