"""The server's log, as a file."""

from __future__ import annotations

import json
import logging

from ensembleflow.serving.http.log import json_log

LOG = logging.getLogger("ensembleflow.serving")


def test_lines_are_in_order_and_none_is_missing_at_the_end(tmp_path):
    with json_log(tmp_path / "log"):
        for number in range(500):
            LOG.info("%d", number)
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert events == [str(number) for number in range(500)]


def test_a_line_that_cannot_be_written_harms_neither_its_author_nor_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)  # it would be told on the terminal
    with json_log(tmp_path / "log"):
        LOG.info("before")
        LOG.info("a name that is no UTF-8: %s", "\udcff")
        LOG.info("after")
    assert [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()] == ["before", "after"]
