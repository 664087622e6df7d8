"""What routes share: the model that a path names, and the faults that a route may answer."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

from ensembleflow.serving.schemas import Fault
from ensembleflow.serving.service import Service

__all__ = ["MODEL", "body_of", "faults", "service_of"]

_FAULTS: dict[int | str, dict[str, Any]] = {
    400: {"model": Fault, "description": "The request is wrong, or does not suit the model"},
    401: {"model": Fault, "description": "The token is missing or wrong"},
    404: {"model": Fault, "description": "There is no such model"},
    408: {"model": Fault, "description": "The request came too slowly"},
    413: {"model": Fault, "description": "The body is too large"},
    415: {"model": Fault, "description": "The body is encoded in a way that is not understood"},
    503: {"model": Fault, "description": "No answer now: starting, overloaded, too late or a member is missing"},
}


def faults(*codes: int) -> dict[int | str, dict[str, Any]]:
    """A route's `responses`."""
    return {code: _FAULTS[code] for code in codes}


MODEL: dict[str, Any] = {"tags": ["metadata"], "responses": faults(401, 404)}
"""Of a route that tells about a model."""


def service_of(request: Request, name: str, version: str | None = None) -> Service:
    """What serves a model.

    Raises:
        HTTPException: there is no such model or version.
    """
    service: Service = request.app.state.service
    here = service.signature
    if name != here.model_name:
        raise HTTPException(404, f"there is no model {name!r} (expected: {here.model_name!r})")
    if version not in (None, here.model_version):
        raise HTTPException(404, f"there is no version {version!r} (expected: {here.model_version!r})")
    return service


async def body_of(request: Request) -> bytes:
    """The body of a POST, which `Admission` has read."""
    body: bytes = (await request.receive())["body"]
    return body
