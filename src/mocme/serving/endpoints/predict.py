"""Routes that query a run: tails, heads, relations, missing facts, scores, explanations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI

from mocme.core.deadline import Check
from mocme.data.graph import UnknownName
from mocme.explanation.schema import Explanation
from mocme.serving.dispatcher import Dispatcher, call_or_error, score_views
from mocme.serving.refusals import Refusal, error_body
from mocme.serving.responses import Json
from mocme.serving.run_view import RunView
from mocme.serving.schema import answers, requests


def add_prediction_routes(app: FastAPI, dispatcher: Dispatcher) -> None:
    """Add the routes that query a run."""

    @app.post("/v1/tails", response_model=answers.Answer, tags=["ask"])
    async def tails(request: requests.TailsRequest) -> Json:
        """Predict the most likely tails of (head, relation, ?)."""
        return Json(await dispatcher.predict(request.run, request.question()))

    @app.post("/v1/heads", response_model=answers.Answer, tags=["ask"])
    async def heads(request: requests.HeadsRequest) -> Json:
        """Predict the most likely heads of (?, relation, tail)."""
        return Json(await dispatcher.predict(request.run, request.question()))

    @app.post("/v1/relations", response_model=answers.Answer, tags=["ask"])
    async def relations(request: requests.RelationsRequest) -> Json:
        """Predict the most likely relations of (head, ?, tail)."""
        return Json(await _answer_slow(dispatcher, request))

    @app.post("/v1/missing", response_model=answers.Answer, tags=["ask"])
    async def missing(request: requests.MissingRequest) -> Json:
        """Predict the most likely missing facts of an entity, over all relations."""
        return Json(await _answer_slow(dispatcher, request))

    @app.post("/v1/score", response_model=answers.Answer, tags=["ask"])
    async def score(request: requests.ScoreRequest) -> Json:
        """Return score and probability of given facts, including known ones, in their order."""
        return Json(await _answer_slow(dispatcher, request))

    @app.post("/v1/check", include_in_schema=False)
    async def check() -> Json:
        """Point clients of the old path to the new one."""
        raise Refusal(
            404, "not_found", "/v1/check is now /v1/score", "send the same body to POST /v1/score"
        )

    @app.post("/v1/batch", response_model=answers.BatchAnswer, tags=["ask"])
    async def batch(request: requests.BatchRequest) -> Json:
        """Answer several questions; the error of one does not affect the others."""
        names = {question.run for question in request.questions}
        run_views = {name: await dispatcher.latest(dispatcher.hot_run(name)) for name in names}
        hide = dispatcher.paths.hide
        pairs = [(run_views[question.run], question) for question in request.questions]
        return Json(await dispatcher.call_slow(lambda check: _answer_all(pairs, check, hide)))

    @app.post("/v1/explain", response_model=Explanation, tags=["ask"])
    async def explain(request: requests.ExplainRequest) -> Json:
        """Explain the score of a fact."""
        return Json(
            await dispatcher.run_slow(
                request.run, lambda run_view, check: run_view.explain(request, check)
            )
        )


async def _answer_slow(
    dispatcher: Dispatcher,
    request: requests.RelationsRequest | requests.MissingRequest | requests.ScoreRequest,
) -> dict[str, Any]:
    return await dispatcher.run_slow(
        request.run, lambda run_view, check: _answer(run_view, request, check)
    )


def _answer(run_view: RunView, request: Any, check: Check) -> dict[str, Any]:
    check()
    if isinstance(request, requests.MissingRequest):
        return run_view.missing(request, check)
    if isinstance(request, requests.ScoreRequest):
        return run_view.score_facts(request, check)
    answer = run_view.predict([request.question()], check)[0]
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer_all(
    pairs: Sequence[tuple[RunView, Any]], check: Check, hide: Callable[[str], str]
) -> dict[str, Any]:
    """Answer the questions of a batch, in order; tails and heads are scored together."""
    results: dict[int, Any] = {}
    entity_questions = [
        (index, (run_view, request.question()))
        for index, (run_view, request) in enumerate(pairs)
        if isinstance(request, requests.TailsRequest | requests.HeadsRequest)
    ]
    scored = score_views([pair for _, pair in entity_questions], check)
    results.update(zip((index for index, _ in entity_questions), scored, strict=True))
    for index, (run_view, request) in enumerate(pairs):
        if index not in results:
            check()
            results[index] = call_or_error(partial(_answer, run_view, request, check))
    return {"answers": [_answer_or_error(results[index], hide) for index in range(len(pairs))]}


def _answer_or_error(result: Any, hide: Callable[[str], str]) -> dict[str, Any]:
    if isinstance(result, UnknownName):
        return error_body("unknown_name", str(result), "", tuple(result.near))
    if isinstance(result, ValueError):
        return error_body("invalid", hide(str(result)))
    if isinstance(result, Exception):
        raise result
    answer: dict[str, Any] = result
    return answer
