"""What a public repository is expected to have: licence, citation, the catalogue's entry, the forge's files."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import yaml

import ensembleflow

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
DEVELOPERS = "The ensembleflow developers"
DOI = "10.1145/3492805.3492819"


def loaded(path: str) -> dict:
    return yaml.safe_load((REPOSITORY / path).read_text(encoding="utf-8"))


def test_one_version_and_one_licence_stand_everywhere() -> None:
    assert PROJECT["version"] == CITATION["version"] == ensembleflow.__version__
    assert PROJECT["license"] == CITATION["license"] == "MIT"  # an SPDX name
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License\n")
    assert f" {DEVELOPERS}\n" in text
    assert PROJECT["license-files"] == ["LICENSE"]


def test_the_citation_has_the_required_keys_and_names_no_people_as_the_softwares_authors() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    assert all(CITATION[key] for key in ("message", "title", "authors"))
    assert CITATION["authors"] == PROJECT["authors"] == [{"name": DEVELOPERS}]


def test_the_citation_refers_to_the_paper_that_the_readme_links() -> None:
    (paper,) = CITATION["references"]
    assert paper["type"] == "conference-paper"
    assert paper["doi"] == DOI  # the name, not the resolver's address
    assert [author["family-names"] for author in paper["authors"]] == ["Pochelu", "Petiton", "Conche"]
    assert f"[*{paper['title']}*](https://doi.org/{DOI})" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_catalogue_finds_the_workflow_and_its_configuration() -> None:
    usage = loaded(".snakemake-workflow-catalog.yml")["usage"]
    assert {*usage} == {"mandatory-flags", "software-stack-deployment", "report"}
    assert {*usage["mandatory-flags"]} == {"desc", "flags"}
    assert all(type(value) is bool for value in usage["software-stack-deployment"].values())
    for path in ("workflow/Snakefile", "config/README.md", "config/config.yaml"):
        assert (REPOSITORY / path).is_file()
    # Its search is for these two words.
    assert {"snakemake", "workflow"} <= {*(REPOSITORY / "README.md").read_text(encoding="utf-8").lower().split()}


def test_the_forge_runs_the_projects_own_checks() -> None:
    (job,) = loaded(".github/workflows/ci.yml")["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert os.access(REPOSITORY / ".ci/run", os.X_OK)


def test_reports_of_faults_ask_for_the_provenance() -> None:
    folder = REPOSITORY / ".github/ISSUE_TEMPLATE"
    forms = {path.name: loaded(f".github/ISSUE_TEMPLATE/{path.name}") for path in folder.glob("*.yml")}
    del forms["config.yml"]
    for name, form in forms.items():
        assert {"name", "description", "body"} <= form.keys()
        fields = {field["id"]: field for field in form["body"] if field["type"] != "markdown"}
        assert "provenance.json" in fields["provenance"]["attributes"]["label"]
        assert fields["provenance"].get("validations", {}).get("required", False) is (name != "idea.yml")
