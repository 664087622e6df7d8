"""Where a request ends: what the server makes of bytes that may be read in two ways."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise

import h11
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.http_layer import MAX_BODY_BYTES, Asked, HttpLayer, http_layer

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
END = b"GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
END_ASKED = ("GET", "/end", b"")
CHUNKED = b"5;a=b\r\nhello\r\n%x\r\n%s\r\n0\r\n" % (len(SMUGGLED), SMUGGLED)


@pytest.fixture(scope="module")
def layer() -> Iterator[HttpLayer]:
    with http_layer(read_timeout_seconds=0.3) as layer:
        yield layer


def post(*lines: str, body: bytes = SMUGGLED, version: str = "1.1") -> bytes:
    return "\r\n".join([f"POST /p HTTP/{version}", "Host: a", *lines, "", ""]).encode("latin-1") + body


def of_length(body: bytes = SMUGGLED) -> str:
    return f"Content-Length: {len(body)}"


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", answer)]


OFFERS = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "tls": ("Connection: Upgrade", "Upgrade: TLS/1.2"),
    "websocket": ("Upgrade: websocket", "Connection: keep-alive, upgrade", "Sec-WebSocket-Key: YWJj"),
    "several": ("Upgrade: h2c", "Upgrade: TLS/1.2, h2c", "Connection: upgrade", "Connection: x"),
    "of-a-proxy": ("Proxy-Connection: upgrade", "Upgrade: h2c"),
    "no-upgrade": ("Connection: Upgrade",),
    "no-connection": ("Upgrade: h2c",),
    "nothing": ("Upgrade: ", "Connection: Upgrade"),
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("pieces", ["one", "head-then-body", "bytes"])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_offer_of_another_protocol_is_passed_over(layer, offer, pieces, chunked):
    framing, body, content = (
        ("Transfer-Encoding: chunked", CHUNKED + b"\r\n", b"hello" + SMUGGLED)
        if chunked
        else (of_length(), SMUGGLED, SMUGGLED)
    )
    head = post(framing, *offer, body=b"")
    sent = {
        "one": [head + body + END],
        "head-then-body": [head, body, END],
        "bytes": [bytes([byte]) for byte in head + body + END],
    }[pieces]
    answer, asked = layer.ask(sent)
    assert asked == [("POST", "/p", content), END_ASKED]
    assert statuses(answer) == [200, 200]
    assert sha256(content).hexdigest().encode() in answer


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_offer_of_another_protocol_without_a_body_is_passed_over(layer, offer):
    asked_for = "\r\n".join(["GET /g?a=b HTTP/1.1", "Host: a", *offer, "", ""]).encode()
    answer, asked = layer.ask([asked_for * 3 + END])
    assert asked == [("GET", "/g?a=b", b"")] * 3 + [END_ASKED]
    assert statuses(answer) == [200] * 4


def test_a_body_that_is_too_large_is_dropped_behind_an_offer_as_well(layer):
    body = SMUGGLED * (MAX_BODY_BYTES // len(SMUGGLED) + 1)
    answer, asked = layer.ask([post(of_length(body), *OFFERS["h2c"], body=body), END])
    assert asked == [END_ASKED]
    assert statuses(answer) == [413, 200]


REFUSED = {
    "length-and-chunks": (post(of_length(), "Transfer-Encoding: chunked"), 400),
    "chunks-and-length": (post("Transfer-Encoding: chunked", of_length()), 400),
    "two-lengths": (post("Content-Length: 0", of_length()), 400),
    "equal-lengths": (post(of_length(), of_length()), 400),
    "listed-lengths": (post("Content-Length: 0, 5"), 400),
    "signed-length": (post("Content-Length: +5"), 400),
    "negative-length": (post("Content-Length: -5"), 400),
    "hexadecimal-length": (post("Content-Length: 0x5"), 400),
    "grouped-length": (post("Content-Length: 3_0"), 400),
    "no-length": (post("Content-Length: "), 400),
    "endless-length": (post(f"Content-Length: {2**64}"), 400),
    "length-then-blank": (post("Content-Length : 5"), 400),
    "length-then-tab": (post("Content-Length\t: 5"), 400),
    "blank-before-name": (post(" Content-Length: 5"), 400),
    "folded": (post("A: b\r\n c"), 400),
    "folded-length": (post("Content-Length: 3\r\n 0"), 400),
    "folded-coding": (post("Transfer-Encoding:\r\n chunked"), 400),
    "bare-cr": (post("A: b\rContent-Length: 5"), 400),
    "bare-lf": (post("A: b\nContent-Length: 5"), 400),
    "bare-lf-everywhere": (b"POST /p HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello", 400),
    "nul-in-value": (post("A: \0"), 400),
    "nul-in-name": (post("A\0: b"), 400),
    "nul-in-target": (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no-name": (post(": b"), 400),
    "no-colon": (post("Content-Length"), 400),
    "unknown-coding": (post("Transfer-Encoding: identity"), 501),
    "half-a-name": (post("Transfer-Encoding: xchunked"), 501),
    "coding-behind-chunks": (post("Transfer-Encoding: chunked, identity"), 400),
    "chunks-twice": (post("Transfer-Encoding: chunked, chunked"), 400),
    "chunks-in-two-fields": (post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
    "coding-in-chunks": (post("Transfer-Encoding: gzip, chunked"), 501),
    "coding-in-two-fields": (post("Transfer-Encoding: identity", "Transfer-Encoding: chunked"), 501),
    "empty-coding": (post("Transfer-Encoding: ,chunked"), 501),
    "vertical-tab": (post("Transfer-Encoding: \x0bchunked"), 400),
    "chunks-in-1.0": (post("Transfer-Encoding: chunked", body=CHUNKED + b"\r\n", version="1.0"), 400),
    "chunk-with-sign": (post("Transfer-Encoding: chunked", body=b"+5\r\nhello\r\n0\r\n\r\n"), 400),
    "chunk-with-prefix": (post("Transfer-Encoding: chunked", body=b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
    "chunk-with-blank": (post("Transfer-Encoding: chunked", body=b"5 \r\nhello\r\n0\r\n\r\n"), 400),
    "chunk-too-short": (post("Transfer-Encoding: chunked", body=b"4\r\nhello\r\n0\r\n\r\n"), 400),
    "chunk-without-cr": (post("Transfer-Encoding: chunked", body=b"5\nhello\r\n0\r\n\r\n"), 400),
    "chunk-end-without-cr": (post("Transfer-Encoding: chunked", body=b"5\r\nhello\n0\r\n\r\n"), 400),
    "extension-with-lf": (post("Transfer-Encoding: chunked", body=b"5;a\nb\r\nhello\r\n0\r\n\r\n"), 400),
    "extension-with-cr": (post("Transfer-Encoding: chunked", body=b"5;a\rb\r\nhello\r\n0\r\n\r\n"), 400),
    "extension-with-nul": (post("Transfer-Encoding: chunked", body=b"5;\0\r\nhello\r\n0\r\n\r\n"), 400),
    "endless-chunk": (post("Transfer-Encoding: chunked", body=b"f" * 17 + b"\r\n"), 400),
    "length-in-trailer": (post("Transfer-Encoding: chunked", body=b"0\r\nContent-Length: 5\r\n\r\n"), 400),
    "coding-in-trailer": (post("Transfer-Encoding: chunked", body=b"0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400),
    "long-extension": (post("Transfer-Encoding: chunked", body=b"5;" + b"a" * 400_000), 431),
    "long-trailer": (post("Transfer-Encoding: chunked", body=b"0\r\n" + b"a: b\r\n" * 80_000), 431),
    "long-name": (post("a" * 400_000), 431),
    "no-host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two-hosts": (post("Host: b"), 400),
    "no-name-as-host": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "http-0.9": (b"GET /\r\n\r\n", 505),
    "http-2": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "http-2-preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "blank-in-target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "late-version": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
}


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("first", [False, True], ids=["second", "first"])
@pytest.mark.parametrize("offer", [False, True], ids=["plain", "offer"])
def test_a_request_that_may_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(
    layer, sent, status, first, offer
):
    if offer:
        sent = sent.replace(b"Host: a\r\n", b"Host: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n")
    before = b"" if first else post(of_length())
    answer, asked = layer.ask([before + sent + SMUGGLED + END])
    assert asked == ([] if first else [("POST", "/p", SMUGGLED)])
    answered = [200] * (not first)
    if status == 431:  # what is long is cut, perhaps before its answer is read, or its end is no HTTP either
        assert statuses(answer) in (answered[: len(statuses(answer))], [*answered, 431], [*answered, 400])
    else:
        assert statuses(answer) == [*answered, status]
        assert b'{"error":' in answer and b"connection: close" in answer


def test_what_stands_behind_a_body_is_none_of_the_head(layer):
    trailer = b"Authorization: Bearer b\r\nX-Request-Id: behind\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    answer, asked = layer.ask([post("Transfer-Encoding: Chunked ", "A: b \t", body=CHUNKED + trailer)])
    assert asked == [("POST", "/p", b"hello" + SMUGGLED)]
    assert layer.headers == {"host": "a", "transfer-encoding": "Chunked", "a": "b"}
    assert b"x-request-id: behind" not in answer


def test_http_1_0_gets_one_answer_and_the_connection_ends(layer):
    for lines in ((), ("Connection: keep-alive",), ("Expect: 100-continue",), OFFERS["h2c"]):
        answer, asked = layer.ask([post(of_length(), *lines, version="1.0") + SMUGGLED])
        assert (statuses(answer), asked) == ([200], [("POST", "/p", SMUGGLED)])


@pytest.mark.parametrize("value", ["100-continue", "100-Continue", " 100-continue "])
def test_who_waits_to_be_told_to_send_a_body_is_told_so(layer, value):
    for offer in ((), OFFERS["h2c"]):
        answer, asked = layer.ask([post(of_length(), f"Expect: {value}", *offer, body=b""), SMUGGLED + END])
        assert (statuses(answer), asked) == ([100, 200, 200], [("POST", "/p", SMUGGLED), END_ASKED])


def test_who_is_answered_instead_of_told_to_send_a_body_finds_the_connection_closed(layer):
    head = post(f"Content-Length: {MAX_BODY_BYTES + 1}", "Expect: 100-continue", body=b"")
    answer, asked = layer.ask([head, SMUGGLED + END])
    assert (statuses(answer), asked) == ([413], [])
    assert answer.count(b"connection: close") == 1


def as_h11_reads(sent: bytes) -> list[Asked]:
    """The whole requests in a stream, as another reader of RFC 9112 finds them."""
    found: list[Asked] = []
    while True:
        reader = h11.Connection(h11.SERVER)
        # Ours takes empty lines before a request, and more blanks than one in its first line.
        reader.receive_data(re.sub(rb"\A[\r\n]*([A-Z]+) +(\S+) +", rb"\1 \2 ", sent))
        try:
            head = reader.next_event()
            if not isinstance(head, h11.Request):
                return found
            body = b""
            while isinstance(event := reader.next_event(), h11.Data):
                body += event.data
            if event is h11.NEED_DATA:
                return found
        except h11.RemoteProtocolError:
            return found
        found.append((head.method.decode(), head.target.decode(), body))
        if reader.their_state is h11.MUST_CLOSE:
            return found
        sent = reader.trailing_data[0]


FIELDS = st.sampled_from(
    [
        *(line for offer in OFFERS.values() for line in offer),
        *("Connection: close", "Connection: keep-alive", "Expect: 100-continue", "Expect: x", "TE: trailers"),
        *("Content-Length: 0", "Content-Length: 5", "Content-Length: 5, 5", "Content-Length : 5", "Content-Length: 05"),
        *("Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Transfer-Encoding: gzip, chunked"),
        *("transfer-encoding:\tCHUNKED", "Transfer-Encoding : chunked", "Transfer-Encoding: chunked;q=1"),
        *("A: b\r\n c", "A: b\rContent-Length: 5", "A: b\nContent-Length: 5", "A: \0", "Host: b", "Trailer: a"),
    ]
)
BODIES = st.sampled_from([b"", b"hello", SMUGGLED])
TRAILERS = st.sampled_from([b"", b"A: b\r\n", b"Content-Length: 5\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n"])
ODD = st.sampled_from([b"", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\0", b":", b",", b";", b"0", b"5", b"\xff", SMUGGLED])


@st.composite
def requests(draw) -> bytes:
    body = draw(BODIES)
    lines = draw(st.lists(FIELDS, max_size=3))
    framing = draw(st.sampled_from(["none", "length", "chunks"]))
    if framing == "length":
        lines.insert(draw(st.integers(0, len(lines))), of_length(body))
    elif framing == "chunks":
        lines.insert(draw(st.integers(0, len(lines))), "Transfer-Encoding: chunked")
        extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b;c"']))
        chunk = b"%x%s\r\n%s\r\n" % (len(body), extension, body) if body else b""
        body = chunk + b"0\r\n" + draw(TRAILERS) + b"\r\n"
    method, version = draw(st.sampled_from(["GET", "POST", "HEAD"])), draw(st.sampled_from(["1.1", "1.1", "1.0"]))
    return "\r\n".join([f"{method} /r HTTP/{version}", "Host: a", *lines, "", ""]).encode("latin-1") + body


@st.composite
def streams(draw) -> list[bytes]:
    """Requests, some of them spoilt, in pieces."""
    sent = b"".join(draw(st.lists(requests(), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(sent)))
        sent = sent[:start] + draw(ODD) + sent[start + draw(st.integers(0, 2)) :]
    sent += END
    cuts = [0, *sorted(draw(st.sets(st.integers(1, len(sent) - 1), max_size=3))), len(sent)]
    return [sent[start:end] for start, end in pairwise(cuts)]


@given(pieces=streams())
@settings(
    max_examples=300,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_stream_holds_a_request_that_another_reader_does_not_find(layer, pieces):
    answer, asked = layer.ask(pieces)
    expected = as_h11_reads(b"".join(pieces))
    assert asked == expected[: len(asked)], pieces
    given_up = [status for status in statuses(answer) if status not in (100, 200)]
    assert statuses(answer).count(200) == len(asked), (pieces, answer)
    assert len(given_up) <= 1
    if len(asked) < len(expected):
        assert given_up or b"connection: close" in answer, (pieces, answer)
