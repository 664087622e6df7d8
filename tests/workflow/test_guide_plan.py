"""What the guide from a folder of images shows of a dry run is what a dry run lists."""

from __future__ import annotations

import re

from support.clone import REPOSITORY, Clone

PAGE = (REPOSITORY / "docs/own-images.md").read_text(encoding="utf-8")


def job_stats(text: str) -> dict[str, int]:
    table = re.search(r"^Job stats:\njob +count\n[- ]+\n(.*?^total +\d+)$", text, re.MULTILINE | re.DOTALL)
    assert table
    return {line.split()[0]: int(line.split()[1]) for line in table[1].splitlines()}


def test_the_guides_table_of_jobs_is_what_its_config_plans(fresh_copy: Clone) -> None:
    config = re.search(r"```yaml\n(# my\.yaml\n.*?)```", PAGE, re.DOTALL)
    assert config
    fresh_copy.write_config(config[1])
    assert job_stats(PAGE) == job_stats(fresh_copy.run("--dry-run"))
