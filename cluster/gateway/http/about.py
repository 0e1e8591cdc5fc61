"""The server itself: what runs and waits, recipes, metrics, health."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from cluster.documents import recipes_document
from cluster.gateway.http.context import ServiceOf
from cluster.gateway.http.schemas import CLUSTER, RECIPES, TEXT, answers, problems
from recon import __version__

router = APIRouter()

_JSON = "application/json"
_CLUSTER = answers("As it is now", {_JSON: CLUSTER}) | problems()
_RECIPES = answers("All of it", {_JSON: RECIPES}) | problems()
_WORDS = answers("In a word", {"text/plain": TEXT}) | problems()
_NOT_READY = problems()[503]
_READY = _WORDS | {503: {**_NOT_READY, "content": {**_NOT_READY["content"], "text/plain": {"schema": TEXT}}}}


@router.get("/v1/cluster", responses=_CLUSTER, summary="Workers, queue, batches")
def get_cluster(service: ServiceOf) -> JSONResponse:
    """What runs and waits now."""
    return JSONResponse({"version": __version__, **service.cluster()})


@router.get("/v1/recipes", responses=_RECIPES, summary="The catalogue of recipes")
def get_recipes() -> JSONResponse:
    """Names with their methods and parameters."""
    return JSONResponse(recipes_document())


@router.get("/metrics", response_class=Response, responses=_WORDS, summary="Prometheus metrics")
def get_metrics(service: ServiceOf) -> Response:
    """Prometheus' text format."""
    return Response(service.metrics_text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/healthz", response_class=Response, responses=_WORDS, summary="Alive")
async def get_health() -> PlainTextResponse:
    """Answers as long as the server runs."""
    return PlainTextResponse("ok\n")


@router.get("/readyz", response_class=Response, responses=_READY, summary="Ready to take scans")
def get_readiness(service: ServiceOf) -> PlainTextResponse:
    """503 while starting, draining, or unable to keep scans."""
    troubles = service.troubles
    return (
        PlainTextResponse("not ready: " + "; ".join(troubles) + "\n", 503) if troubles else PlainTextResponse("ready\n")
    )
