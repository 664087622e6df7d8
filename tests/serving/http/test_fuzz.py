"""The server under requests made up from its own OpenAPI document."""

from __future__ import annotations

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.checks import load_all_checks

from support.server_process import INFER, ServerProcess

load_all_checks()

# Among what is checked: no 5xx, and statuses, content types and bodies as the document says.
_CHECKS = [
    checks.CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    )
]
_BOUNDED = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


def test_no_operation_fails_whatever_it_is_asked(server: ServerProcess) -> None:
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    asked = set()
    for found in document.get_all_operations():
        operation = found.ok()

        @given(
            case=st.one_of(
                operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE),
                operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE),
            )
            if operation.method == "post"
            else operation.as_strategy()
        )
        @settings(max_examples=60 if operation.method == "post" else 10, **_BOUNDED)
        def ask(case: schemathesis.Case) -> None:
            case.path_parameters = {
                name: value if len(str(value)) % 2 else {"name": "digits-random-s0", "version": "4x"}[name]
                for name, value in (case.path_parameters or {}).items()
            }
            case.call_and_validate(checks=_CHECKS)

        ask()
        asked.add((operation.method, operation.path))
    paths = server.client.get("/openapi.json").json()["paths"]
    assert asked == {(method, path) for path, operations in paths.items() for method in operations}
    server.wait_until_ready()


_TENSOR = {"name": "images", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": [0] * 64}
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def test_no_mutation_of_a_good_request_fails(server: ServerProcess) -> None:
    @given(
        st.dictionaries(st.sampled_from([*_TENSOR, "parameters"]), _ANYTHING, max_size=2),
        st.dictionaries(st.sampled_from(["id", "parameters", "outputs", "inputs"]), _ANYTHING, max_size=2),
        st.none() | st.integers(-1, 500).map(str) | st.text(st.characters(codec="latin-1"), max_size=5),
    )
    @settings(max_examples=150, **_BOUNDED)
    def ask(tensor: dict, content: dict, header: str | None) -> None:
        try:
            headers = {} if header is None else {"Inference-Header-Content-Length": header.encode("latin-1")}
            answer = server.client.post(INFER, json={"inputs": [{**_TENSOR, **tensor}], **content}, headers=headers)
        except (httpx.LocalProtocolError, UnicodeEncodeError):
            return  # the client itself does not send it
        assert answer.status_code in (200, 400)
        assert answer.status_code == 200 or list(answer.json()) == ["error"]

    ask()
