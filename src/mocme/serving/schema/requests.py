"""Bodies of HTTP requests, with their limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mocme.data.reviews import Decision
from mocme.prediction.schema import MAX_K, Question
from mocme.serving.limits import BATCH


def _valid_unicode(value: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("contains an unpaired surrogate, which is not valid text")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


Name = Annotated[
    str, Field(min_length=1, max_length=10_000, examples=["Chad"]), AfterValidator(_valid_unicode)
]
Relation = Annotated[
    str,
    Field(min_length=1, max_length=10_000, examples=["borders"]),
    AfterValidator(_valid_unicode),
]
RunName = Annotated[
    str | None,
    Field(None, description="Name of a served run; the first by default.", max_length=1_000),
]
K = Annotated[int, Field(10, ge=1, le=MAX_K, description="Maximum number of answers.")]
Known = Annotated[
    Literal["hide", "mark"],
    Field("hide", description="Whether to hide or mark facts that the graph already contains."),
]
# Where a list may have any length, the first wrong item ends its check: an error takes 1 KB.
Among = Annotated[
    Literal["all", "observed"] | Annotated[list[Name], Field(fail_fast=True)],
    Field(
        "all",
        description="Candidates. all: all entities; observed: entities that occur in this position "
        "of the relation in the graph; or a list of names.",
    ),
]
MinProbability = Annotated[
    float, Field(0.0, ge=0, le=1, description="Omit answers with a lower probability.")
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _RunRequest(_Body):
    run: RunName = None


class _EntityRequest(_RunRequest):
    k: K = 10
    known: Known = "hide"
    among: Among = "all"
    min_probability: MinProbability = 0.0

    def _question(self, head: str | None, relation: str, tail: str | None) -> Question:
        settings = (self.k, self.known, self.among, self.min_probability)
        return Question(head, relation, tail, *settings)


class TailsRequest(_EntityRequest):
    """Ask for the most likely tails of (head, relation, ?)."""

    head: Name
    relation: Relation

    def question(self) -> Question:
        """Convert to a question for `mocme.Predictor`."""
        return self._question(self.head, self.relation, None)


class HeadsRequest(_EntityRequest):
    """Ask for the most likely heads of (?, relation, tail)."""

    relation: Relation
    tail: Name

    def question(self) -> Question:
        """Convert to a question for `mocme.Predictor`."""
        return self._question(None, self.relation, self.tail)


class RelationsRequest(_RunRequest):
    """Ask for the most likely relations of (head, ?, tail)."""

    head: Name
    tail: Name
    k: K = 10
    known: Known = "hide"
    min_probability: MinProbability = 0.0

    def question(self) -> Question:
        """Convert to a question for `mocme.Predictor`."""
        return Question(self.head, None, self.tail, self.k, self.known, "all", self.min_probability)


class MissingRequest(_RunRequest):
    """Ask for the most likely missing facts of an entity, over all relations."""

    entity: Name
    k: K = 10
    min_probability: MinProbability = 0.0


class FactBody(_Body):
    """A fact, by names."""

    head: Name
    relation: Relation
    tail: Name


class ScoreRequest(_RunRequest):
    """Ask for score and probability of given facts."""

    facts: list[FactBody] = Field(min_length=1, max_length=BATCH)


class ExplainRequest(FactBody):
    """Ask for an explanation of a fact's score."""

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


class AskScore(ScoreRequest):
    """See `ScoreRequest`."""

    ask: Literal["score"]


AnyQuestion = Annotated[
    AskTails | AskHeads | AskRelations | AskMissing | AskScore, Field(discriminator="ask")
]


class BatchRequest(_Body):
    """Several questions, answered in order."""

    questions: list[AnyQuestion] = Field(
        fail_fast=True,
        min_length=1,
        max_length=BATCH,
        examples=[
            [
                {"ask": "tails", "head": "Chad", "relation": "borders", "k": 3},
                {"ask": "missing", "entity": "Chad"},
            ]
        ],
    )


class ReviewRequest(_RunRequest):
    """A decision on a fact."""

    head: Name
    relation: Relation
    tail: Name
    decision: Decision
    reviewer: Annotated[
        str,
        Field(min_length=1, max_length=200, examples=["Ada"]),
        AfterValidator(_valid_unicode),
        AfterValidator(_not_blank),
    ]
    note: Annotated[str, Field("", max_length=10_000), AfterValidator(_valid_unicode)] = ""


Text = Annotated[str, Field(max_length=1_000_000), AfterValidator(_valid_unicode)]
Numbers = Annotated[
    dict[str, Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1, max_length=10_000)
]


class ModalityContent(_Body):
    """Content of one modality of a new entity: exactly one of these fields."""

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
    def _exactly_one(self) -> ModalityContent:
        if len(self.model_fields_set) != 1 or all(value is None for _, value in self):
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        return self


class AdditionRequest(_RunRequest):
    """An entity to add to a run; everything but its name is optional."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=10_000, examples=["Newland"]),
        AfterValidator(_valid_unicode),
    ]
    facts: Annotated[
        list[FactBody],
        Field(
            max_length=1_000,
            description="Each contains the entity; the other end is in the graph or an addition.",
            examples=[[{"head": "Newland", "relation": "borders", "tail": "Chad"}]],
        ),
    ] = []
    text: Annotated[
        Text | None,
        Field(description="Used by every modality made of texts that is not in `content`."),
    ] = None
    numbers: Annotated[
        Numbers | None,
        Field(
            description="By attribute; used by every modality made of numbers that is not in "
            "`content`."
        ),
    ] = None
    content: Annotated[
        dict[str, ModalityContent], Field(max_length=1_000, description="By modality.")
    ] = {}
    names: Annotated[
        list[Name],
        Field(
            max_length=100,
            description="Names used in texts, for pairs found by name; its name by default.",
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
