"""The routes that clients of Triton and KServe call beside inference, metadata and health.

What a server of one ensemble does not have (models loaded at run time, shared memory, tracing) it says so, as a fault
of the protocol.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from ensembleflow.serving.extension_schemas import (
    IndexBody,
    IndexEntry,
    ModelConfig,
    ModelList,
    Statistics,
    describe_config,
    describe_statistics,
)
from ensembleflow.serving.protocol import ProtocolError
from ensembleflow.serving.routing import MODEL, body_of, faults, service_of
from ensembleflow.serving.service import Service

__all__ = ["router"]

_INDEX: dict[str, Any] = {
    "tags": ["metadata"],
    "responses": faults(400, 401, 408, 413, 503),
    "openapi_extra": {
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": IndexBody.model_json_schema()}},
        }
    },
}
_ABSENT: dict[str, Any] = {"include_in_schema": False}

router = APIRouter()


@router.get("/v2/models", tags=["metadata"], responses=faults(401))
async def models(request: Request) -> ModelList:
    """The models that are served: one."""
    service: Service = request.app.state.service
    return ModelList(models=[service.signature.model_name])


@router.get("/v2/models/stats", tags=["metadata"], responses=faults(401))
async def statistics(request: Request) -> Statistics:
    """What the models have answered."""
    return _statistics(request.app.state.service)


@router.get("/v2/models/{name}/stats", **MODEL)
async def model_statistics(name: str, request: Request) -> Statistics:
    """What the model has answered."""
    return _statistics(service_of(request, name))


@router.get("/v2/models/{name}/versions/{version}/stats", **MODEL)
async def model_version_statistics(name: str, version: str, request: Request) -> Statistics:
    """What a version of the model has answered."""
    return _statistics(service_of(request, name, version))


@router.get("/v2/models/{name}/config", response_model_exclude_none=True, **MODEL)
async def model_config(name: str, request: Request) -> ModelConfig:
    """The model's configuration, as Triton writes it."""
    return _config(service_of(request, name))


@router.get("/v2/models/{name}/versions/{version}/config", response_model_exclude_none=True, **MODEL)
async def model_version_config(name: str, version: str, request: Request) -> ModelConfig:
    """The configuration of a version of the model, as Triton writes it."""
    return _config(service_of(request, name, version))


@router.post("/v2/repository/index", **_INDEX)
async def repository_index(request: Request) -> list[IndexEntry]:
    """The models that there are, and whether they answer."""
    service: Service = request.app.state.service
    body = await body_of(request)
    try:
        asked = IndexBody.model_validate_json(body) if body.strip() else IndexBody()
    except ValidationError as error:
        raise ProtocolError(
            "a request is not as expected", found=error.errors()[0]["msg"], expected='{"ready": true}, or nothing'
        ) from None
    if asked.ready and not service.ready:
        return []
    state: Literal["READY", "UNAVAILABLE"] = "READY" if service.ready else "UNAVAILABLE"
    here = service.signature
    reason = "" if service.ready else "not every member is ready"
    return [IndexEntry(name=here.model_name, version=here.model_version, state=state, reason=reason)]


@router.post("/v2/repository/models/{name}/load", **_ABSENT)
@router.post("/v2/repository/models/{name}/unload", **_ABSENT)
async def load_or_unload(name: str) -> None:
    """There is no model but the bundle's."""
    raise HTTPException(400, "models are neither loaded nor unloaded (expected: a server for each bundle)")


@router.api_route("/v2/trace/setting", methods=["GET", "POST"], **_ABSENT)
@router.api_route("/v2/models/{name}/trace/setting", methods=["GET", "POST"], **_ABSENT)
async def trace_settings() -> None:
    """Nothing is traced."""
    raise HTTPException(400, "there is no tracing (expected: the metrics at /metrics)")


@router.api_route("/v2/logging", methods=["GET", "POST"], **_ABSENT)
async def log_settings() -> None:
    """The log is set when the server starts."""
    raise HTTPException(400, "the log has no settings at run time (expected: --log-file when the server starts)")


@router.get("/v2/systemsharedmemory/status", **_ABSENT)
@router.get("/v2/cudasharedmemory/status", **_ABSENT)
async def shared_memory_status() -> list[Any]:
    """No region is registered."""
    return []


@router.get("/v2/systemsharedmemory/region/{name}/status", **_ABSENT)
@router.get("/v2/cudasharedmemory/region/{name}/status", **_ABSENT)
async def shared_memory_region_status(name: str) -> None:
    """No region is registered."""
    raise HTTPException(404, f"there is no region {name!r} of shared memory")


@router.post("/v2/systemsharedmemory/region/{name}/register", **_ABSENT)
@router.post("/v2/cudasharedmemory/region/{name}/register", **_ABSENT)
async def register_shared_memory(name: str) -> None:
    """Tensors come with their requests alone."""
    raise HTTPException(400, "there is no shared memory (expected: tensors in the request, as bytes or JSON)")


@router.post("/v2/systemsharedmemory/unregister", **_ABSENT)
@router.post("/v2/cudasharedmemory/unregister", **_ABSENT)
@router.post("/v2/systemsharedmemory/region/{name}/unregister", **_ABSENT)
@router.post("/v2/cudasharedmemory/region/{name}/unregister", **_ABSENT)
async def unregister_shared_memory() -> dict[str, str]:
    """Nothing is registered, which is what is asked for; Triton's examples begin with it."""
    return {}


def _statistics(service: Service) -> Statistics:
    return describe_statistics(service.signature, service.metrics.served)


def _config(service: Service) -> ModelConfig:
    return describe_config(service.signature, len(service.bundle.class_names))
