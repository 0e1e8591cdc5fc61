"""The application: every route, and errors as answers."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from cluster.gateway.http import about, events, images, records, scans
from cluster.gateway.http.context import Context
from cluster.gateway.http.problems import answer_with_problems
from cluster.gateway.http.schemas import PROBLEMS
from cluster.service import Service
from recon import __version__


def create_app(service: Service) -> FastAPI:
    """The application; it serves one `service`."""
    app = FastAPI(title="recon-cluster", version=__version__, docs_url=None, redoc_url=None)
    app.state.context = Context(service)
    routers = [part.router for part in (scans, records, images, events, about)]
    for router in routers:
        app.include_router(router, responses=PROBLEMS)
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    answer_with_problems(app, routes)
    return app
