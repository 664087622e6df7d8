"""docs/troubleshooting.md has every message of the package, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.source_messages import Message, source_messages

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/troubleshooting.md").read_text(encoding="utf-8")
# Told to a client in the answer to its own malformed request: docs/serving.md says what a request must be.
OF_REQUESTS = {"ProtocolError"}


WARNINGS = "## Warnings"


def quoted(warnings: bool) -> list[str]:
    """The texts in backticks in the headings of the errors, or of the warnings."""
    errors, rest = PAGE.split(WARNINGS)
    section = rest.partition("\n## ")[0] if warnings else errors
    return [
        text for heading in re.findall(r"^#### (.*)", section, re.MULTILINE) for text in re.findall(r"`(.*?)`", heading)
    ]


def told() -> list[Message]:
    return [each for each in source_messages(REPOSITORY / "workflow/ensembleflow") if each.told_by not in OF_REQUESTS]


def test_the_source_shows_the_text_of_every_message() -> None:
    assert [f"{each.place}: {each.told_by}" for each in told() if each.text is None] == []


@pytest.mark.parametrize("warnings", [False, True], ids=["errors", "warnings"])
def test_the_page_has_every_message_and_none_that_the_package_does_not_tell(warnings: bool) -> None:
    places = {each.text: each.place for each in told() if (each.told_by == "warning") == warnings}
    page = quoted(warnings)
    assert sorted(f"{place}: {text}" for text, place in places.items() if text not in page) == []
    assert sorted(text for text in page if text not in places) == []
    assert sorted({text for text in page if page.count(text) > 1}) == []
