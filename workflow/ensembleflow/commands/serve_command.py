"""`ensembleflow serve`: a bundle behind HTTP."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ensembleflow.allocation import read_allocation
from ensembleflow.commands.number_arguments import number, whole_number
from ensembleflow.config import is_simulated
from ensembleflow.errors import BundleError, ConfigError
from ensembleflow.inference import Limits, Member
from ensembleflow.io import read_json
from ensembleflow.models.engines import ONNX_FILE, prepare_members
from ensembleflow.serving.bundle import Bundle, open_bundle
from ensembleflow.serving.bundled_allocation import bundled_allocation
from ensembleflow.serving.http.admission import RequestLimits, needed_body_bytes
from ensembleflow.serving.http.log import json_log
from ensembleflow.serving.http_server import ServerLimits, is_loopback, listen, run_server, url_of
from ensembleflow.serving.service import Service
from ensembleflow.serving.signature import Signature

__all__ = ["add_command"]

_LOG = logging.getLogger("ensembleflow.serving")

_TOKEN_VARIABLE = "ENSEMBLEFLOW_TOKEN"
_SECONDS = number(0.001, 1_000_000)
_MILLISECONDS = number(0, 1_000_000)


class _DefaultsShown(argparse.ArgumentDefaultsHelpFormatter):
    """Adds an option's default; where that is decided later, the option's own text says how."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def add_command(subparsers: Any) -> None:
    """Add `serve` to the command line."""
    limits = Limits()
    parser = subparsers.add_parser(
        "serve",
        help="serve a bundle over HTTP",
        description="Serve a bundle's ensemble over HTTP: Open Inference Protocol v2, image files, a page, metrics.",
        formatter_class=_DefaultsShown,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument(
        "--port", type=whole_number(0, 65535), default=8000, help="port to listen at; 0 takes a free one"
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"file with the token that clients must send (default: the variable {_TOKEN_VARIABLE}, if it is set)",
    )
    parser.add_argument(
        "--allocation", type=Path, metavar="FILE", help="devices-N.json of the same ensemble (default: the bundle's)"
    )
    parser.add_argument(
        "--max-request-images",
        type=whole_number(1),
        metavar="N",
        help="images of one request (default: 1024, or what 32 MB hold)",
    )
    parser.add_argument(
        "--max-queued-images",
        type=whole_number(1),
        default=limits.max_queued_images,
        metavar="N",
        help="images that may wait; more are answered 503",
    )
    parser.add_argument(
        "--max-body-mb", type=whole_number(1), metavar="MB", help="size of a request (default: what its images need)"
    )
    parser.add_argument("--max-connections", type=whole_number(1), default=4096, metavar="N", help="open connections")
    parser.add_argument(
        "--request-timeout", type=_SECONDS, default=60.0, metavar="S", help="seconds until a request is answered 503"
    )
    parser.add_argument(
        "--read-timeout", type=_SECONDS, default=10.0, metavar="S", help="seconds that a client may take to ask"
    )
    parser.add_argument(
        "--worker-timeout",
        type=_SECONDS,
        default=limits.worker_timeout_seconds,
        metavar="S",
        help="seconds after which a member that is silent at work is started anew",
    )
    parser.add_argument(
        "--batch-wait-ms",
        type=_MILLISECONDS,
        default=limits.batch_wait_seconds * 1000,
        metavar="MS",
        help="milliseconds that an ensemble which has just answered waits for each further request to batch",
    )
    parser.add_argument(
        "--grace", type=_SECONDS, default=30.0, metavar="S", help="seconds for requests at work when the server stops"
    )
    parser.add_argument("--log-file", type=Path, metavar="FILE", help="file of the log (default: standard error)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    token = _read_token(arguments.token_file)
    bundle = open_bundle(arguments.bundle)
    if arguments.allocation is not None:
        bundle = _reallocate(bundle, arguments.allocation)
    with (
        json_log(arguments.log_file),
        _members_for_engines(bundle) as members,
        listen(arguments.host, arguments.port) as listener,
    ):
        url = url_of(listener)
        if token is None and not is_loopback(listener):
            _LOG.warning("anybody who reaches this machine may ask: give a token with --token-file")
        service = Service(
            bundle,
            bundle.dispatcher(
                members=members,
                limits=Limits(
                    max_queued_images=arguments.max_queued_images,
                    batch_wait_seconds=arguments.batch_wait_ms / 1000,
                    worker_timeout_seconds=arguments.worker_timeout,
                ),
            ),
            max_images=arguments.max_request_images,
            request_timeout_seconds=arguments.request_timeout,
        )
        if arguments.max_body_mb is None:
            max_body_bytes = needed_body_bytes(service.signature)
        else:
            max_body_bytes = arguments.max_body_mb * 2**20
        limits = ServerLimits(
            RequestLimits(max_body_bytes, arguments.read_timeout, token), arguments.max_connections, arguments.grace
        )
        _say(f"{service.signature.model_name} listens at {url}; its {len(bundle.manifest.members)} members start")
        run_server(service, listener, limits, on_ready=lambda: _say(_how_to_try(url, token, service.signature)))
    return 0


def _how_to_try(url: str, token: str | None, signature: Signature) -> str:
    header = "" if token is None else ' -H "Authorization: Bearer $(cat TOKEN_FILE)"'
    if signature.image_dtype != "uint8":
        return f"ready: the tensors that it takes are told by\n  curl{header} {url}/v2/models/{signature.model_name}"
    return f"ready: open {url}/ in a browser, or\n  curl{header} --data-binary @image.png {url}/classify"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _read_token(path: Path | None) -> str | None:
    where: str | Path = path or f"the variable {_TOKEN_VARIABLE}"
    if path is None:
        text = os.environ.get(_TOKEN_VARIABLE)
        if text is None:
            return None
    else:
        try:
            text = path.read_text(encoding="ascii")
        except OSError as error:
            raise ConfigError("the token cannot be read", where=path, found=error.strerror) from None
        except UnicodeDecodeError:
            text = ""
    token = text.strip()
    if not (token.isascii() and token.isprintable() and token and " " not in token):
        raise ConfigError("the token cannot be used", where=where, expected="one line of letters, digits and signs")
    return token


def _reallocate(bundle: Bundle, path: Path) -> Bundle:
    """The same bundle under another allocation, of the allocation stage."""
    content = read_json(path, ["members", "devices"])
    read_allocation(path, bundle.manifest.members)
    if is_simulated(content):
        raise BundleError(
            "a simulated allocation cannot be served",
            where=path,
            hint="tune it on this machine: ensembleflow allocate BUNDLE --output FILE",
        )
    try:
        placements, devices = bundled_allocation(content)
    except (ValidationError, TypeError, KeyError) as error:
        raise BundleError("an allocation is damaged", where=path, found=str(error).splitlines()[0]) from None
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"allocation": placements, "devices": devices}))


@contextmanager
def _members_for_engines(bundle: Bundle) -> Iterator[list[Member]]:
    """The members with what the allocation's engines read, which another allocation's bundle may lack."""
    engines = {placement.engine for placement in bundle.allocation}
    if "onnxruntime" not in engines or all((member.exported / ONNX_FILE).exists() for member in bundle.members):
        yield bundle.members
        return
    with tempfile.TemporaryDirectory(prefix="ensembleflow-members-") as folder:
        paths = prepare_members([member.exported for member in bundle.members], Path(folder), engines)
        yield [Member(path.name, path) for path in paths]
