"""A user whose home cannot be written is told so before Snakemake makes its cache there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.clone import Clone


def plan(clone: Clone, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "no_folder").touch()  # in which not even root can write
    return subprocess.run(
        [*clone.command("--dry-run", "--quiet")],
        cwd=clone.folder,
        env={**os.environ, "HOME": str(folder / "no_folder/home"), "XDG_CACHE_HOME": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_a_home_that_cannot_be_written_ends_in_one_message(untouched: Clone, tmp_path: Path) -> None:
    done = plan(untouched, tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert f"  where:    {tmp_path}/no_folder/home/.cache/snakemake" in done.stdout
    assert "  hint:     export XDG_CACHE_HOME=" in done.stdout


def test_what_the_message_says_helps(untouched: Clone, tmp_path: Path) -> None:
    done = plan(untouched, tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stdout
