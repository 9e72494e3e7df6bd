"""The HTTP application: paths, and which lane answers what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from mocme.graph.triples import UnknownName
from mocme.inference.explanation import Explanation
from mocme.inference.predictions import Question
from mocme.machine import environment
from mocme.reviews import FORMATS, Decision, Review, ReviewError, Reviews, exported
from mocme.serving import schema
from mocme.serving.asking import Answering, Busy
from mocme.serving.content import LARGEST, kind_of
from mocme.serving.guard import Guard, failure
from mocme.serving.limits import Limits
from mocme.serving.metrics import Metrics
from mocme.serving.served import Served

VERSION = str(environment()["mocme"])
PAGES = Path(__file__).parent / "pages"
# Questions that are answered together, at most.
TOGETHER = 16
T = TypeVar("T")
Text = Annotated[str, Query(min_length=1, max_length=10_000)]
RunName = Annotated[str | None, Query(max_length=1_000, description="Which of the served runs.")]
_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": schema.Failure, "description": "A token is needed."},
    404: {"model": schema.Failure, "description": "There is nothing of that name."},
    413: {"model": schema.Failure, "description": "The request is too large."},
    422: {"model": schema.Failure, "description": "Something in the request is wrong."},
    503: {"model": schema.Failure, "description": "Too many wait; see Retry-After."},
    504: {"model": schema.Failure, "description": "It took too long."},
}


class Json(JSONResponse):
    """JSON without spaces, in which no number is NaN."""

    def render(self, content: Any) -> bytes:
        """As bytes."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


class Hub:
    """The served runs, their decisions, and the two lanes in which questions wait."""

    def __init__(
        self, served: Sequence[Served], reviews: Reviews | None, limits: Limits, metrics: Metrics
    ) -> None:
        self.served = {one.name: one for one in served}
        self.first = served[0]
        self.reviews, self.limits, self.metrics = reviews, limits, metrics
        self.fast = Answering(_scored, TOGETHER, limits.queue)
        self.slow: Answering[Callable[[], Any], Any] = Answering(
            lambda calls: [_called(call) for call in calls], 1, limits.slow
        )
        self.stopping = False
        metrics.watch("scores", lambda: len(self.fast))
        metrics.watch("slow", lambda: len(self.slow))

    def run(self, name: str | None) -> Served:
        """A served run by its name.

        Raises:
            HTTPException: 404, there is none.
        """
        if name is None:
            return self.first
        if name not in self.served:
            known = ", ".join(self.served)
            raise HTTPException(404, f"no run named {name!r} is served; there is {known}")
        return self.served[name]

    async def ask(self, served: Served, question: Question) -> Any:
        """The answer to a question that needs one look at the scores."""
        given = [name for name in (question.head, question.tail) if name is not None]
        names = served.graph.entities
        if any(name not in names for name in given) or (
            question.relation is not None and question.relation not in served.graph.relations
        ):
            # Looking for near names takes time, which others should not wait for.
            await self.slowly(lambda: served.known(given, question.relation))
        return await self._wait(self.fast.ask, (served, question))

    async def slowly(self, call: Callable[[], T]) -> T:
        """What a call gives that takes longer."""
        found: T = await self._wait(self.slow.ask, call)
        return found

    async def _wait(self, ask: Callable[[Any], Any], question: Any) -> Any:
        future = asyncio.wrap_future(ask(question))
        return await asyncio.wait_for(future, self.limits.seconds)

    def kept(self) -> Reviews:
        """The decisions.

        Raises:
            HTTPException: 404, none are kept.
        """
        if self.reviews is None:
            raise HTTPException(404, "this server keeps no decisions; start it with --reviews FILE")
        return self.reviews

    def close(self) -> None:
        """Answer what waits, and end both lanes."""
        self.stopping = True
        self.fast.close()
        self.slow.close()


def _called(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


def _scored(asked: Sequence[tuple[Served, Question]]) -> Sequence[Any]:
    """Answers, those of one run scored together."""
    answers: dict[int, Any] = {}
    for served in {id(one): one for one, _ in asked}.values():
        places = [place for place, (one, _) in enumerate(asked) if one is served]
        found = served.ask([asked[place][1] for place in places])
        answers.update(zip(places, found, strict=True))
    return [answers[place] for place in range(len(asked))]


def application(
    served: Sequence[Served],
    reviews: Reviews | None = None,
    limits: Limits = Limits(),
    token: str | None = None,
    hosts: frozenset[str] | None = None,
) -> FastAPI:
    """The application for some runs; its two threads begin at once and end with its lifespan."""
    hub = Hub(served, reviews, limits, Metrics())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        yield
        hub.close()

    app = FastAPI(
        title="mocme",
        version=VERSION,
        description="Ask trained runs for missing facts, and review what they suggest.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        default_response_class=Json,
        responses=_ERRORS,
    )
    _errors(app, hub)
    _questions(app, hub)
    _looking(app, hub)
    _reviewing(app, hub)
    _running(app, hub)
    app.add_middleware(Guard, limits=limits, metrics=hub.metrics, token=token, hosts=hosts)
    return app


# -- errors ----------------------------------------------------------------------------------------


def _failed(
    status: int,
    code: str,
    message: str,
    remedy: str = "",
    near: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> Json:
    return Json(failure(code, message, remedy, tuple(near)), status, headers)


def _errors(app: FastAPI, hub: Hub) -> None:
    @app.exception_handler(UnknownName)
    async def unknown(_: Request, error: UnknownName) -> Json:
        remedy = "search for it: GET /v1/search?q=..."
        return _failed(404, "unknown_name", str(error), remedy, error.near)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Json:
        told = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]]
        remedy = "what is asked for stands in GET /v1/openapi.json"
        return _failed(422, "invalid", "; ".join(told), remedy)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Json:
        codes = {404: "not_found", 405: "wrong_method", 413: "too_large"}
        code = codes.get(error.status_code, "refused")
        return _failed(error.status_code, code, str(error.detail), "", (), error.headers)

    @app.exception_handler(ReviewError)
    async def unkept(_: Request, error: ReviewError) -> Json:
        return _failed(503, "not_kept", str(error), "the decision is not kept; send it again", ())

    @app.exception_handler(ValueError)
    async def wrong(_: Request, error: ValueError) -> Json:
        return _failed(422, "invalid", str(error))

    @app.exception_handler(LookupError)
    async def nothing(_: Request, error: LookupError) -> Json:
        return _failed(404, "not_found", str(error.args[0]) if error.args else "not there")

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> Json:
        hub.metrics.busy()
        after = {"retry-after": str(error.after)}
        return _failed(503, "busy", str(error), "wait as Retry-After says", (), after)

    @app.exception_handler(TimeoutError)
    async def late(_: Request, error: TimeoutError) -> Json:
        seconds = hub.limits.seconds
        remedy = "ask for less at once, or start the server with a larger --seconds"
        return _failed(504, "too_slow", f"no answer within {seconds:g} s", remedy)


# -- questions -------------------------------------------------------------------------------------


def _questions(app: FastAPI, hub: Hub) -> None:
    @app.post("/v1/tails", response_model=schema.Answer, tags=["ask"])
    async def tails(asked: schema.Tails) -> Json:
        """The likeliest tails of (head, relation, ?)."""
        return Json(await hub.ask(hub.run(asked.run), asked.question()))

    @app.post("/v1/heads", response_model=schema.Answer, tags=["ask"])
    async def heads(asked: schema.Heads) -> Json:
        """The likeliest heads of (?, relation, tail)."""
        return Json(await hub.ask(hub.run(asked.run), asked.question()))

    @app.post("/v1/relations", response_model=schema.Answer, tags=["ask"])
    async def relations(asked: schema.Relations) -> Json:
        """The likeliest relations of (head, ?, tail)."""
        return Json(await _answered(hub, asked))

    @app.post("/v1/missing", response_model=schema.Answer, tags=["ask"])
    async def missing(asked: schema.Missing) -> Json:
        """What is missing about an entity, over all relations."""
        return Json(await _answered(hub, asked))

    @app.post("/v1/check", response_model=schema.Answer, tags=["ask"])
    async def check(asked: schema.Check) -> Json:
        """Score and probability of given facts, known ones too, in their order."""
        return Json(await _answered(hub, asked))

    @app.post("/v1/batch", response_model=schema.Answers, tags=["ask"])
    async def batch(asked: schema.Batch) -> Json:
        """Several questions; one that fails does not spoil the others."""
        served = [hub.run(question.run) for question in asked.questions]
        calls = list(zip(served, asked.questions, strict=True))
        return Json(await hub.slowly(lambda: {"answers": _all(calls)}))

    @app.post("/v1/explain", response_model=Explanation, tags=["ask"])
    async def explain(asked: schema.Explain) -> Json:
        """What speaks for a fact."""
        served = hub.run(asked.run)
        return Json(await hub.slowly(lambda: served.explain(asked)))


async def _answered(
    hub: Hub, asked: schema.Relations | schema.Missing | schema.Check
) -> dict[str, Any]:
    served = hub.run(asked.run)
    return await hub.slowly(lambda: _answer(served, asked))


def _answer(served: Served, asked: Any) -> dict[str, Any]:
    if isinstance(asked, schema.Missing):
        return served.missing(asked)
    if isinstance(asked, schema.Check):
        return served.check(asked)
    found = served.ask([asked.question()])[0]
    if isinstance(found, Exception):
        raise found
    return found


def _all(calls: Sequence[tuple[Served, Any]]) -> list[dict[str, Any]]:
    """Answers of a batch; questions about scores alone are scored together."""
    answers: dict[int, Any] = {}
    plain = [
        (place, (served, asked.question()))
        for place, (served, asked) in enumerate(calls)
        if isinstance(asked, schema.Tails | schema.Heads)
    ]
    found = _scored([call for _, call in plain]) if plain else []
    answers.update(zip((place for place, _ in plain), found, strict=True))
    for place, (served, asked) in enumerate(calls):
        if place not in answers:
            answers[place] = _called(partial(_answer, served, asked))
    return [_or_failure(answers[place]) for place in range(len(calls))]


def _or_failure(answer: Any) -> dict[str, Any]:
    if isinstance(answer, UnknownName):
        return failure("unknown_name", str(answer), "", tuple(answer.near))
    if isinstance(answer, ValueError):
        return failure("invalid", str(answer))
    if isinstance(answer, Exception):
        raise answer
    found: dict[str, Any] = answer
    return found


# -- looking about ---------------------------------------------------------------------------------


def _looking(app: FastAPI, hub: Hub) -> None:
    @app.get("/v1/runs", response_model=schema.Runs, tags=["look"])
    async def runs() -> Json:
        """The served runs."""
        abouts = [served.about for served in hub.served.values()]
        return Json({"runs": abouts, "version": VERSION})

    @app.get("/v1/search", response_model=schema.Found, tags=["look"])
    async def search(
        q: Annotated[str, Query(max_length=1_000)] = "",
        k: Annotated[int, Query(ge=1, le=100)] = 20,
        run: RunName = None,
    ) -> Json:
        """Entities by the beginning of their name, of a word in it, or by likeness."""
        served = hub.run(run)
        return Json(await asyncio.to_thread(served.find, q, k))

    @app.get("/v1/entity", response_model=schema.Entity, tags=["look"])
    async def entity(name: Text, run: RunName = None) -> Json:
        """An entity, and what is known of it."""
        served = hub.run(run)
        return Json(await asyncio.to_thread(served.entity, name))

    @app.get("/v1/facts", response_model=schema.Facts, tags=["look"])
    async def facts(
        name: Text,
        relation: Annotated[str | None, Query(max_length=10_000)] = None,
        offset: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
        run: RunName = None,
    ) -> Json:
        """Facts of an entity, of all splits."""
        served = hub.run(run)
        return Json(await asyncio.to_thread(served.facts, name, relation, offset, limit))

    @app.get("/v1/neighbourhood", response_model=schema.Neighbourhood, tags=["look"])
    async def neighbourhood(
        name: Text, limit: Annotated[int, Query(ge=1, le=200)] = 40, run: RunName = None
    ) -> Json:
        """An entity, its neighbours, and the facts among them."""
        served = hub.run(run)
        return Json(await asyncio.to_thread(served.neighbourhood, name, limit))

    @app.get("/v1/file", tags=["look"], response_class=FileResponse)
    async def file(
        name: Text,
        modality: Text,
        index: Annotated[int, Query(ge=0, le=1 << 30)] = 0,
        run: RunName = None,
    ) -> Response:
        """A picture, sound or film of an entity."""
        path = hub.run(run).file(name, modality, index)
        if path.stat().st_size > LARGEST:
            raise HTTPException(404, f"the file has more than {LARGEST:,} bytes, and is not sent")
        kind, media = kind_of(path)
        # A picture may be a document that runs scripts (SVG): nothing may, in a file of the graph.
        sandbox = {
            "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'"
        }
        how = "inline" if kind != "other" else "attachment"
        return FileResponse(path, media_type=media, headers=sandbox, content_disposition_type=how)

    @app.get("/v1/report", response_model=schema.Report, tags=["look"])
    async def report(run: RunName = None) -> Json:
        """Evaluations, the training's passes and the calibration."""
        served = hub.run(run)
        return Json(await asyncio.to_thread(served.report))


# -- decisions -------------------------------------------------------------------------------------


def _reviewing(app: FastAPI, hub: Hub) -> None:
    @app.post("/v1/reviews", response_model=Review, status_code=201, tags=["review"])
    async def decide(asked: schema.NewReview) -> Json:
        """Keep a decision on a fact."""
        served, kept = hub.run(asked.run), hub.kept()
        fact = schema.Fact(head=asked.head, relation=asked.relation, tail=asked.tail)
        # In no lane: a decision waits behind nobody's question.
        one = schema.Check(facts=[fact])
        (item,) = (await asyncio.to_thread(served.check, one))["predictions"]
        review = await asyncio.to_thread(
            kept.add,
            (asked.head, asked.relation, asked.tail),
            asked.decision,
            asked.reviewer,
            asked.note,
            probability=item["probability"],
            score=item["score"],
        )
        return Json(vars(review), 201)

    @app.get("/v1/reviews", response_model=schema.ReviewList, tags=["review"])
    async def decisions(
        name: Annotated[str | None, Query(max_length=10_000)] = None,
        decision: Decision | None = None,
        offset: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    ) -> Json:
        """Decisions, the newest first."""
        kept = hub.kept()

        def found() -> dict[str, Any]:
            total, reviews = kept.find(name=name, decision=decision, offset=offset, limit=limit)
            return {
                "total": total,
                "counts": kept.count(),
                "reviews": [vars(review) for review in reviews],
            }

        return Json(await asyncio.to_thread(found))

    @app.delete("/v1/reviews/{id}", status_code=204, tags=["review"])
    async def undo(id: int) -> Response:
        """Take a decision back."""
        if not -(1 << 62) < id < 1 << 62 or not await asyncio.to_thread(hub.kept().remove, id):
            raise HTTPException(404, f"there is no decision {id}")
        return Response(status_code=204)

    @app.get("/v1/reviews/export", tags=["review"], response_class=StreamingResponse)
    async def export(
        format: Annotated[str, Query(pattern=f"^({'|'.join(FORMATS)})$")] = "tsv",
    ) -> Response:
        """All decisions as a file: tsv, csv or jsonl, the oldest first."""
        kept = hub.kept()
        _, reviews = await asyncio.to_thread(kept.find)
        media = {"tsv": "text/tab-separated-values", "csv": "text/csv"}
        headers = {"content-disposition": f'attachment; filename="reviews.{format}"'}
        text = exported(reversed(reviews), format)
        kind = f"{media.get(format, 'application/jsonl')}; charset=utf-8"
        return StreamingResponse(text, media_type=kind, headers=headers)


# -- the process -----------------------------------------------------------------------------------


def _running(app: FastAPI, hub: Hub) -> None:
    @app.get("/healthz", response_model=schema.Health, tags=["process"])
    async def health() -> Json:
        """Whether the process answers."""
        return Json({"status": "ok"})

    @app.get("/readyz", response_model=schema.Health, tags=["process"])
    async def ready() -> Json:
        """Whether it takes questions."""
        if hub.stopping or not hub.fast.alive or not hub.slow.alive:
            return _failed(503, "not_ready", "the server is stopping", "ask another one")
        return Json({"status": "ready"})

    @app.get("/metrics", tags=["process"], response_class=Response)
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        return Response(hub.metrics.text(), media_type=hub.metrics.content_type)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(PAGES / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/static", _Pages(directory=PAGES), name="static")


class _Pages(StaticFiles):
    """Files of the page: a browser asks each time whether they are still the same."""

    def file_response(self, *args: Any, **settings: Any) -> Response:
        """A file, or that it has not changed."""
        response = super().file_response(*args, **settings)
        response.headers["cache-control"] = "no-cache"
        return response
