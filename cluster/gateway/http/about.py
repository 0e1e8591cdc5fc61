"""The server itself: what runs and waits, recipes, metrics, health."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from cluster.documents import recipes_document
from cluster.gateway.http.context import ServiceOf
from recon import __version__

router = APIRouter()


@router.get("/v1/cluster", summary="Workers, queue, batches")
def get_cluster(service: ServiceOf) -> JSONResponse:
    """What runs and waits now."""
    return JSONResponse({"version": __version__, **service.cluster()})


@router.get("/v1/recipes", summary="The catalogue of recipes")
def get_recipes() -> JSONResponse:
    """Names with their methods and parameters."""
    return JSONResponse(recipes_document())


@router.get("/metrics", summary="Prometheus metrics")
def get_metrics(service: ServiceOf) -> Response:
    """Prometheus' text format."""
    return Response(service.metrics_text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/healthz", summary="Alive")
async def get_health() -> PlainTextResponse:
    """Answers as long as the server runs."""
    return PlainTextResponse("ok\n")


@router.get("/readyz", summary="Ready to take scans")
def get_readiness(service: ServiceOf) -> PlainTextResponse:
    """503 while starting, draining, or unable to keep scans."""
    return PlainTextResponse("ready\n") if service.ready else PlainTextResponse("not ready\n", 503)
