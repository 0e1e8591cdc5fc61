"""Errors as answers (RFC 9457)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from cluster.documents import PROBLEM_TYPE, problem_document
from cluster.job import RequestError, RouteError, VerbError, no_descriptor
from recon.errors import ReconError


def problem(error: ReconError, *, scan: str = "", status: int = 0) -> JSONResponse:
    """The answer for `error`; `status` where it is not the usual one of its kind."""
    document = problem_document(error, scan=scan)
    if status:
        document["status"] = status
    retry_after_s = getattr(error, "retry_after_s", None)
    headers = {} if retry_after_s is None else {"retry-after": str(math.ceil(retry_after_s))}
    return JSONResponse(document, document["status"], headers, PROBLEM_TYPE)


async def _on_error(_request: Request, error: Exception) -> JSONResponse:
    return problem(cast(ReconError, error))


async def _on_http_error(routes: Sequence[APIRoute], request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself."""
    assert isinstance(error, HTTPException)
    path, verbs = repr(request.url.path[:200]), ", ".join(_verbs(routes, request.url.path))
    if verbs:
        answer = problem(VerbError(f"{path} does not take {request.method[:20]}, it takes {verbs}: use one of them"))
        answer.headers["allow"] = verbs
        return answer
    return problem(RouteError(f"there is nothing at {path}: /openapi.json lists what there is"))


def _verbs(routes: Sequence[APIRoute], path: str) -> list[str]:
    """What the path may be asked with."""
    matching = [route for route in routes if route.path_regex.match(path)]
    return sorted({verb for route in matching for verb in route.methods or ()})


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    words = "; ".join(map(_fault, error.errors()))
    return problem(RequestError(f"{words}: correct the request"))


def _fault(fault: Mapping[str, Any]) -> str:
    """What a parameter is, and what was expected."""
    expected = re.sub(r"^(Input|String) should (be|have) ", "", fault["msg"])
    return f"{fault['loc'][-1]} is {str(fault['input'])[:40]!r}, expected {expected}"


async def _on_os_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OSError)
    if busy := no_descriptor(error, "open what was asked for"):
        return problem(busy)
    raise error


async def _on_defect(_request: Request, error: Exception) -> JSONResponse:
    # The traceback goes to the server's log only: it could name paths and data.
    return problem(ReconError(f"internal error {type(error).__name__}: report it with the server's log"))


def answer_with_problems(app: FastAPI, routes: Sequence[APIRoute]) -> None:
    """Have `app`, which has these `routes`, answer every error with a problem."""
    app.add_exception_handler(ReconError, _on_error)
    app.add_exception_handler(HTTPException, partial(_on_http_error, routes))
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(OSError, _on_os_error)
    app.add_exception_handler(Exception, _on_defect)
