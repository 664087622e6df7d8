"""What a connection sends, and in how many pieces."""

from __future__ import annotations

import asyncio
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.serving.http.connection import GatheringTransport

STEPS = st.lists(
    st.one_of(st.binary(min_size=1, max_size=50), st.just(b"x" * 70_000), st.sampled_from(["turn", "flush"]))
)


def sent(steps: list[bytes | str]) -> list[bytes]:
    """The pieces that were sent, in order."""
    transport = mock.create_autospec(asyncio.Transport, instance=True)

    async def run() -> None:
        gathering = GatheringTransport(transport, asyncio.get_running_loop())
        for step in steps:
            if step == "turn":
                await asyncio.sleep(0)
            elif step == "flush":
                gathering.flush()
            else:
                gathering.write(step)
        gathering.close()

    asyncio.run(run())
    assert transport.close.called
    return [call.args[0] for call in transport.write.call_args_list]


@given(STEPS)
def test_everything_is_sent_once_and_in_order(steps):
    assert b"".join(sent(steps)) == b"".join(step for step in steps if isinstance(step, bytes))


def test_an_answers_head_and_body_are_one_piece():
    assert sent([b"head", b"body", "flush", b"head", b"next body", "turn"]) == [b"headbody", b"headnext body"]


def test_a_large_body_is_not_copied():
    body = b"x" * 100_000
    pieces = sent([b"head", body, "flush"])
    assert pieces == [b"head", body]
    assert pieces[1] is body
