"""Questions to a run: which lane answers what."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI

from mocme.data.graph import UnknownName
from mocme.explanation.schema import Explanation
from mocme.serving.dispatcher import Dispatcher, called, scored
from mocme.serving.middleware import failure
from mocme.serving.responses import Json
from mocme.serving.run_view import RunView
from mocme.serving.schema import answers, requests


def add(app: FastAPI, hub: Dispatcher) -> None:
    """Questions to a run."""

    @app.post("/v1/tails", response_model=answers.Answer, tags=["ask"])
    async def tails(asked: requests.TailsRequest) -> Json:
        """The likeliest tails of (head, relation, ?)."""
        return Json(await hub.ask(asked.run, asked.question()))

    @app.post("/v1/heads", response_model=answers.Answer, tags=["ask"])
    async def heads(asked: requests.HeadsRequest) -> Json:
        """The likeliest heads of (?, relation, tail)."""
        return Json(await hub.ask(asked.run, asked.question()))

    @app.post("/v1/relations", response_model=answers.Answer, tags=["ask"])
    async def relations(asked: requests.RelationsRequest) -> Json:
        """The likeliest relations of (head, ?, tail)."""
        return Json(await _answered(hub, asked))

    @app.post("/v1/missing", response_model=answers.Answer, tags=["ask"])
    async def missing(asked: requests.MissingRequest) -> Json:
        """What is missing about an entity, over all relations."""
        return Json(await _answered(hub, asked))

    @app.post("/v1/check", response_model=answers.Answer, tags=["ask"])
    async def check(asked: requests.CheckRequest) -> Json:
        """Score and probability of given facts, known ones too, in their order."""
        return Json(await _answered(hub, asked))

    @app.post("/v1/batch", response_model=answers.Answers, tags=["ask"])
    async def batch(asked: requests.BatchRequest) -> Json:
        """Several questions; one that fails does not spoil the others."""
        named = {question.run for question in asked.questions}
        served = {name: await hub.newest(hub.live(name)) for name in named}
        calls = [(served[question.run], question) for question in asked.questions]
        return Json(await hub.together(lambda: {"answers": _all(calls)}))

    @app.post("/v1/explain", response_model=Explanation, tags=["ask"])
    async def explain(asked: requests.ExplainRequest) -> Json:
        """What speaks for a fact."""
        return Json(await hub.slowly(asked.run, lambda served: served.explain(asked)))


async def _answered(
    hub: Dispatcher,
    asked: requests.RelationsRequest | requests.MissingRequest | requests.CheckRequest,
) -> dict[str, Any]:
    return await hub.slowly(asked.run, lambda served: _answer(served, asked))


def _answer(served: RunView, asked: Any) -> dict[str, Any]:
    if isinstance(asked, requests.MissingRequest):
        return served.missing(asked)
    if isinstance(asked, requests.CheckRequest):
        return served.check(asked)
    found = served.ask([asked.question()])[0]
    if isinstance(found, Exception):
        raise found
    return found


def _all(calls: Sequence[tuple[RunView, Any]]) -> list[dict[str, Any]]:
    """Answers of a batch; questions about scores alone are scored together."""
    told: dict[int, Any] = {}
    plain = [
        (place, (served, asked.question()))
        for place, (served, asked) in enumerate(calls)
        if isinstance(asked, requests.TailsRequest | requests.HeadsRequest)
    ]
    found = scored([call for _, call in plain]) if plain else []
    told.update(zip((place for place, _ in plain), found, strict=True))
    for place, (served, asked) in enumerate(calls):
        if place not in told:
            told[place] = called(partial(_answer, served, asked))
    return [_or_failure(told[place]) for place in range(len(calls))]


def _or_failure(answer: Any) -> dict[str, Any]:
    if isinstance(answer, UnknownName):
        return failure("unknown_name", str(answer), "", tuple(answer.near))
    if isinstance(answer, ValueError):
        return failure("invalid", str(answer))
    if isinstance(answer, Exception):
        raise answer
    found: dict[str, Any] = answer
    return found
