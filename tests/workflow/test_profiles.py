"""The Snakemake profiles: found in a fresh clone, without surprises between them, and with options that exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]
# The default profile silently overrides any other, so it may hold only what cannot alter a run.
USER_INTERFACE_KEYS = {"nocolor", "printshellcmds", "quiet", "show-failed-logs"}


def _profile(name: str) -> dict[str, object]:
    content = yaml.safe_load((REPOSITORY / "profiles" / name / "config.yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return {key: value for key, value in content.items() if not key.startswith("__")}  # Python, run by yte


def test_the_slurm_profile_is_found_by_its_name_alone() -> None:
    link = REPOSITORY / "slurm"
    assert link.is_symlink()
    assert str(link.readlink()) == "profiles/slurm"


def test_the_default_profile_holds_only_keys_of_the_user_interface() -> None:
    assert set(_profile("default")) <= USER_INTERFACE_KEYS


def test_the_default_profile_overrides_nothing_of_the_slurm_profile() -> None:
    assert _profile("default").keys() & _profile("slurm").keys() == set()


def test_snakemake_knows_every_key_of_the_profiles() -> None:
    options = subprocess.run(
        [sys.executable, "-m", "snakemake", "--help"], capture_output=True, text=True, check=True
    ).stdout
    known = set(options.replace(",", " ").replace("[", " ").replace("]", " ").split())
    assert [key for name in ("default", "slurm") for key in _profile(name) if f"--{key}" not in known] == []


def test_the_slurm_profile_names_nothing_of_one_cluster() -> None:
    defaults = _profile("slurm")["default-resources"]
    assert isinstance(defaults, dict)
    assert defaults.keys() == {"mem_mb", "runtime"}


def test_a_lost_job_is_submitted_again_by_snakemake_alone() -> None:
    profile = _profile("slurm")
    assert profile["slurm-no-requeue"] is True
    assert profile["retries"] == 2
    # In Snakemake 9.27 it records the outputs of a failed job as good ones.
    assert "keep-incomplete" not in profile
