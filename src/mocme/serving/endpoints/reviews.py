"""Decisions of reviewers: kept, listed, taken back, exported."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

from mocme.data.reviews import FORMATS, Decision, Review, export_name, exported
from mocme.serving.dispatcher import Dispatcher
from mocme.serving.responses import Json
from mocme.serving.schema import answers, requests


def add(app: FastAPI, hub: Dispatcher) -> None:
    """Decisions of reviewers."""

    @app.post("/v1/reviews", response_model=Review, status_code=201, tags=["review"])
    async def decide(asked: requests.NewReview) -> Json:
        """Keep a decision on a fact."""
        kept = hub.kept()
        fact = requests.FactBody(head=asked.head, relation=asked.relation, tail=asked.tail)
        # In no lane: a decision waits behind nobody's question.
        one = requests.CheckRequest(facts=[fact])
        (item,) = (await hub.look(asked.run, lambda served: served.check(one)))["predictions"]
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

    @app.get("/v1/reviews", response_model=answers.ReviewList, tags=["review"])
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
        name = export_name(hub.live(None).now.graph.name, format)
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        text = exported(reversed(reviews), format)
        kind = f"{media.get(format, 'application/jsonl')}; charset=utf-8"
        return StreamingResponse(text, media_type=kind, headers=headers)
