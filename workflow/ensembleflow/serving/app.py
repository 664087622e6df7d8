"""The server's routes: the Open Inference Protocol v2, classification of image files, metrics, and pages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

import ensembleflow
from ensembleflow.errors import DatasetError, EnsembleflowError, ServingError
from ensembleflow.inference import Answer
from ensembleflow.serving import extensions
from ensembleflow.serving.http.admission import note_images
from ensembleflow.serving.http.connection import CLIENT_GONE
from ensembleflow.serving.images import decode_image
from ensembleflow.serving.pages import operations_page, page_headers, voting_page
from ensembleflow.serving.protocol import HEADER_LENGTH, ProtocolError, build_response, disagreement, parse_request
from ensembleflow.serving.routing import MODEL, body_of, faults, service_of
from ensembleflow.serving.schemas import (
    Classification,
    ClassProbability,
    InferBody,
    InferResponse,
    Live,
    MemberVote,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    Worker,
    describe_model,
)
from ensembleflow.serving.service import NotReadyError, Service

__all__ = ["create_app"]

_RETRY_AFTER_SECONDS = "1"
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_INFER: dict[str, Any] = {
    "tags": ["inference"],
    "response_model": InferResponse,
    "responses": {
        200: {"content": {"application/octet-stream": _BYTES}, "description": "The outputs"},
        **faults(400, 401, 404, 408, 413, 415, 503),
    },
    "openapi_extra": {
        "parameters": [
            {
                "name": HEADER_LENGTH,
                "in": "header",
                "description": "length of the JSON in bytes, where tensors follow it as bytes",
                "schema": {"type": "integer", "minimum": 0},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/InferBody"}},
                "application/octet-stream": _BYTES,
            },
        },
    },
}
_CLASSIFY: dict[str, Any] = {
    "tags": ["inference"],
    "responses": faults(400, 401, 408, 413, 415, 503),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": dict.fromkeys(("image/png", "image/jpeg", "application/octet-stream"), _BYTES),
        }
    },
}
_MODEL_READY: dict[str, Any] = {"tags": ["health"], "responses": faults(401, 404, 503)}
_PAGE: dict[str, Any] = {"include_in_schema": False, "response_class": HTMLResponse}


router = APIRouter()
inference = APIRouter()


def create_app(service: Service) -> ASGIApp:
    """The routes around an ensemble; their OpenAPI document is at `/openapi.json`, readable at `/docs`."""
    app = FastAPI(
        title="ensembleflow",
        version=ensembleflow.__version__,
        description="An ensemble of deep networks behind the Open Inference Protocol v2.",
        docs_url=None,
        redoc_url=None,
        # Not by include_router, which compares each request with each route twice.
        routes=[*inference.routes, *extensions.router.routes, *router.routes],
    )
    app.state.service = service
    for kind, handler in _ERROR_HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return _InferenceFirst(app)


class _InferenceFirst:
    """The application, but that requests for inference go straight to their functions.

    For a small image, what FastAPI and Starlette do around a function took a quarter of the server's time.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            for route in inference.routes:
                match, matched = route.matches(scope)
                if match is Match.FULL:
                    scope.update(matched, app=self._app)
                    await (await self._answer(Request(scope, receive, send)))(scope, receive, send)
                    return
        if scope["type"] == "http" and scope["method"] == "HEAD":
            # Answered as a GET is; the connection sends the answer's head alone.
            asked = {**scope, "method": "GET"}
            await self._app(asked, receive, send)
            scope["route"] = asked.get("route")
            return
        await self._app(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            answer: Response = await request.scope["endpoint"](request=request, **request.path_params)
        except tuple(_ERROR_HANDLERS) as error:
            handler = next(handler for kind, handler in _ERROR_HANDLERS.items() if isinstance(error, kind))
            answer = await handler(request, error)
        return answer


@inference.post("/v2/models/{name}/infer", **_INFER)
async def infer(name: str, request: Request) -> Response:
    """Predict images."""
    return await _infer(request, service_of(request, name))


@inference.post("/v2/models/{name}/versions/{version}/infer", **_INFER)
async def infer_version(name: str, version: str, request: Request) -> Response:
    """Predict images, with a version of the model."""
    return await _infer(request, service_of(request, name, version))


@router.post("/classify", **_CLASSIFY)
async def classify(
    request: Request,
    top: Annotated[int, Query(ge=1, le=1000, description="classes to return")] = 5,
    allow_partial: Annotated[bool, Query(description="accept an answer of the members that are alive")] = False,
) -> Classification:
    """Classify one image file of any size; its bytes are the body."""
    service: Service = request.app.state.service
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise HTTPException(415, "a form was sent; expected the image file itself: curl --data-binary @image.png")
    _require_plain(request)
    shape = service.signature.image_shape
    if service.signature.image_dtype != "uint8":
        lengths = ", ".join(map(str, shape))
        raise HTTPException(
            415, f"the model takes arrays, no image files (expected: FP32 [n, {lengths}] at /v2/models/…/infer)"
        )
    content = await body_of(request)
    loop = asyncio.get_running_loop()
    pixels, (width, height) = await loop.run_in_executor(service.decoding, decode_image, content, shape)
    answer = await _unless_gone(
        request, service.answer(pixels[np.newaxis], allow_partial=allow_partial, with_members=True)
    )
    note_images(request.scope, 1)
    assert answer.member_probabilities is not None
    class_names = service.bundle.class_names
    ensemble = answer.probabilities[0]
    best = np.argsort(-ensemble, kind="stable")
    votes = []
    for member, row in zip(answer.members_used, answer.member_probabilities[:, 0], strict=True):
        if np.isnan(row).any():
            continue  # a cascade did not ask it
        vote = int(row.argmax())
        votes.append(
            MemberVote(
                member=member, class_name=class_names[vote], probability=float(row[vote]), agrees=vote == best[0]
            )
        )
    return Classification(
        classes=[ClassProbability(class_name=class_names[i], probability=float(ensemble[i])) for i in best[:top]],
        votes=votes,
        disagreement=float(disagreement(answer)[0]),
        confidence=float(ensemble[best[0]]),
        stage=int(answer.stage[0]),
        members_used=list(answer.members_used),
        width=width,
        height=height,
    )


@router.get("/v2/health/live", tags=["health"])
async def live() -> Live:
    """Whether the server runs."""
    return Live()


@router.get("/v2/health/ready", tags=["health"], responses=faults(503))
async def ready(request: Request) -> Ready:
    """Whether every member answers, and all have answered the bundle's check images as it says."""
    _require_ready(request.app.state.service)
    return Ready()


@router.get("/v2", tags=["metadata"], responses=faults(401))
async def server_metadata() -> ServerMetadata:
    """The server's name and version, and the extensions of the protocol that it knows."""
    return ServerMetadata(
        name="ensembleflow",
        version=ensembleflow.__version__,
        extensions=["binary_tensor_data", "model_configuration", "statistics"],
    )


@router.get("/v2/models/{name}", **MODEL)
async def model_metadata(name: str, request: Request) -> ModelMetadata:
    """The model's tensors, classes, members and allocation."""
    return _metadata(service_of(request, name))


@router.get("/v2/models/{name}/versions/{version}", **MODEL)
async def model_version_metadata(name: str, version: str, request: Request) -> ModelMetadata:
    """The tensors, classes, members and allocation of a version of the model."""
    return _metadata(service_of(request, name, version))


@router.get("/v2/models/{name}/ready", **_MODEL_READY)
async def model_ready(name: str, request: Request) -> ModelReady:
    """Whether the model answers."""
    _require_ready(service_of(request, name))
    return ModelReady(name=name)


@router.get("/v2/models/{name}/versions/{version}/ready", **_MODEL_READY)
async def model_version_ready(name: str, version: str, request: Request) -> ModelReady:
    """Whether a version of the model answers."""
    _require_ready(service_of(request, name, version))
    return ModelReady(name=name)


@router.get(
    "/metrics",
    tags=["metadata"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **faults(401)},
)
async def metrics(request: Request) -> Response:
    """What the server counts, for Prometheus."""
    service: Service = request.app.state.service
    return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})


@router.get("/", **_PAGE)
async def page() -> HTMLResponse:
    """The page on which to drop an image."""
    return HTMLResponse(voting_page(), headers=page_headers(voting_page()))


@router.get("/docs", **_PAGE)
async def docs(request: Request) -> HTMLResponse:
    """The OpenAPI document as a page."""
    text = operations_page(request.app.openapi())
    return HTMLResponse(text, headers=page_headers(text))


async def _infer(request: Request, service: Service) -> Response:
    _require_plain(request)
    lengths = set(request.headers.getlist(HEADER_LENGTH))
    if len(lengths) > 1:
        raise ProtocolError("a header is there twice", where=HEADER_LENGTH, found=", ".join(sorted(lengths)))
    asked = parse_request(await body_of(request), lengths.pop() if lengths else None, service.signature)
    answer = await _unless_gone(
        request,
        service.answer(
            asked.images,
            allow_partial=asked.allow_partial,
            with_members=asked.with_members,
            timeout_seconds=asked.timeout_seconds,
        ),
    )
    note_images(request.scope, len(asked.images))
    body, json_length = build_response(asked, answer, service.signature)
    if json_length is None:
        return Response(body, media_type="application/json")
    return Response(body, media_type="application/octet-stream", headers={HEADER_LENGTH: str(json_length)})


async def _unless_gone(request: Request, answering: Coroutine[Any, Any, Answer]) -> Answer:
    """The answer; nothing is worked at any longer once the client has gone."""
    waiting = asyncio.current_task()
    assert waiting is not None
    gone: asyncio.Future[None] = request.scope[CLIENT_GONE]

    def stop(_: asyncio.Future[None]) -> None:
        waiting.cancel()

    gone.add_done_callback(stop)
    try:
        return await answering
    except asyncio.CancelledError:
        if gone.done() and waiting.uncancel() == 0:  # nobody else has cancelled it
            raise HTTPException(499, "the client has gone") from None
        raise
    finally:
        gone.remove_done_callback(stop)


def _require_ready(service: Service) -> None:
    if not service.ready:
        raise NotReadyError(
            "not every member is ready",
            found=", ".join(f"{each.model} on {each.device}: {each.state}" for each in service.dispatcher.status()),
        )


def _require_plain(request: Request) -> None:
    encoding = ", ".join(request.headers.getlist("content-encoding"))
    if encoding and any(coding.strip().lower() not in ("", "identity") for coding in encoding.split(",")):
        raise HTTPException(415, f"the body is encoded (found: Content-Encoding {encoding}; expected: none)")


def _metadata(service: Service) -> ModelMetadata:
    workers = [
        Worker.model_validate(each, from_attributes=True, extra="ignore") for each in service.dispatcher.status()
    ]
    return describe_model(service.bundle.manifest, service.signature, workers)


def _tell(status: int) -> Any:
    async def tell(_: Request, error: EnsembleflowError) -> JSONResponse:
        headers = {"retry-after": _RETRY_AFTER_SECONDS} if status == 503 else None
        return JSONResponse({"error": _one_line(error)}, status, headers)

    return tell


async def _tell_http(_: Request, error: Any) -> JSONResponse:
    headers = error.headers
    if error.status_code == 405 and headers and "GET" in headers.get("Allow", ""):
        headers = {**headers, "Allow": f"{headers['Allow']}, HEAD"}
    return JSONResponse({"error": error.detail}, error.status_code, headers)


async def _tell_invalid(_: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    return JSONResponse({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 400)


_ERROR_HANDLERS: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
    ProtocolError: _tell(400),
    DatasetError: _tell(400),
    ServingError: _tell(503),
    HTTPException: _tell_http,
    RequestValidationError: _tell_invalid,
}


def _one_line(error: EnsembleflowError) -> str:
    parts = ((label, getattr(error, label)) for label in ("where", "found", "expected", "hint"))
    details = "; ".join(f"{label}: {' '.join(value.split())}" for label, value in parts if value is not None)
    return f"{error.what} ({details})" if details else error.what


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        schemas = document["components"]["schemas"]
        body = InferBody.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(body.pop("$defs"), InferBody=body)
        for name in ("HTTPValidationError", "ValidationError"):  # never answered: 400 tells the same
            schemas.pop(name, None)
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        schemes = document["components"].setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer", "description": "where the server asks for a token"}
        document["security"] = [{}, {"token": []}]
        app.openapi_schema = document
    return app.openapi_schema
