"""Routes for reviewers' decisions: store, list, undo, export."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

from mocme.data.review_export import FORMATS, export_lines, export_name
from mocme.data.reviews import Decision, Review
from mocme.serving.dispatcher import Dispatcher
from mocme.serving.responses import Json
from mocme.serving.schema import answers, requests


def add_review_routes(app: FastAPI, dispatcher: Dispatcher) -> None:
    """Add the routes for reviewers' decisions."""

    @app.post("/v1/reviews", response_model=Review, status_code=201, tags=["review"])
    async def add_review(request: requests.ReviewRequest) -> Json:
        """Store a decision on a fact, with the fact's current score and probability."""
        reviews = dispatcher.require_reviews()
        fact = requests.FactBody(head=request.head, relation=request.relation, tail=request.tail)
        score_request = requests.ScoreRequest(facts=[fact])
        # In no queue: a decision must not wait behind questions.
        answer = await dispatcher.run_now(
            request.run, lambda run_view: run_view.score_facts(score_request)
        )
        (prediction,) = answer["predictions"]
        review = await asyncio.to_thread(
            reviews.add,
            (request.head, request.relation, request.tail),
            request.decision,
            request.reviewer,
            request.note,
            probability=prediction["probability"],
            score=prediction["score"],
        )
        return Json(vars(review), 201)

    @app.get("/v1/reviews", response_model=answers.ReviewList, tags=["review"])
    async def list_reviews(
        name: Annotated[str | None, Query(max_length=10_000)] = None,
        decision: Decision | None = None,
        offset: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    ) -> Json:
        """List decisions, newest first."""
        reviews = dispatcher.require_reviews()

        def read_page() -> dict[str, Any]:
            total, page = reviews.find(name=name, decision=decision, offset=offset, limit=limit)
            return {
                "total": total,
                "counts": reviews.count(),
                "reviews": [vars(review) for review in page],
            }

        return Json(await asyncio.to_thread(read_page))

    @app.delete("/v1/reviews/{id}", status_code=204, tags=["review"])
    async def remove_review(id: int) -> Response:
        """Undo a decision."""
        # SQLite integers have 64 bits; larger ids would be an overflow error.
        valid = -(1 << 62) < id < 1 << 62
        if not valid or not await asyncio.to_thread(dispatcher.require_reviews().remove, id):
            raise HTTPException(404, f"there is no decision {id}")
        return Response(status_code=204)

    @app.get("/v1/reviews/export", tags=["review"], response_class=StreamingResponse)
    async def export(
        format: Annotated[str, Query(pattern=f"^({'|'.join(FORMATS)})$")] = "tsv",
    ) -> Response:
        """Return all decisions as a file (tsv, csv or jsonl), oldest first."""
        reviews = dispatcher.require_reviews()
        _, newest_first = await asyncio.to_thread(reviews.find)
        media = {"tsv": "text/tab-separated-values", "csv": "text/csv"}
        name = export_name(dispatcher.hot_run(None).current.graph.name, format)
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        text = export_lines(reversed(newest_first), format)
        kind = f"{media.get(format, 'application/jsonl')}; charset=utf-8"
        return StreamingResponse(text, media_type=kind, headers=headers)
