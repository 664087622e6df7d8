"""What the site needs beside the pages: files that they link to, the commands' help, and what the package exports.

A page's link to a file above docs/, such as `../config/config.yaml`, works where the repository is browsed. In the
site that file lies in `repository/`, and the link is turned to it.
"""

from __future__ import annotations

import argparse
import ast
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from ensembleflow.cli import make_parser

REPOSITORY = Path(__file__).resolve().parents[1]
_ALWAYS = ("CHANGELOG.md", "CONTRIBUTING.md", "config/README.md")
_LINK = re.compile(r"(?<=\]\()(?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?(?=\))")
_CODE_BLOCK = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_FOUND_FIRST = "troubleshooting.md"  # by who types a message into the site's search
_COMMANDS = "<!-- commands -->"
_EXPORTS = re.compile(r"<!-- exports (ensembleflow\.\w+) -->")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository that pages link to; one that is not there is left to the check of links."""
    waiting = [REPOSITORY / name for name in _ALWAYS]
    waiting += [target for page in files.documentation_pages() for target in _linked(Path(page.abs_src_path or ""))]
    while waiting:
        path = waiting.pop()
        if path.is_file() and files.get_file_from_path(_uri(path)) is None:
            files.append(File.generated(config, _uri(path), abs_src_path=str(path)))
            waiting += _linked(path) if path.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository to their copies, and fill in the commands' help and the exports."""
    folder = Path(page.file.abs_src_path or "").parent
    if page.file.src_uri == _FOUND_FIRST:
        page.meta["search"] = {"boost": 10}

    def turn(link: re.Match[str]) -> str:
        uri = _uri((folder / link["path"]).resolve())
        if files.get_file_from_path(uri) is None:
            return link[0]
        return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri)) + (link["anchor"] or "")

    parts = _CODE_BLOCK.split(markdown)
    prose = [part if part.startswith("```") else _LINK.sub(turn, part) for part in parts]
    text = "".join(prose).replace(_COMMANDS, "\n".join(_command_sections()))
    return _EXPORTS.sub(lambda module: "\n\n".join(_export_sections(module[1])), text)


def _linked(page: Path) -> list[Path]:
    """The repository's files to which a page's prose links."""
    prose = _CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    targets = [(page.parent / link["path"]).resolve() for link in _LINK.finditer(prose)]
    return [target for target in targets if target.is_relative_to(REPOSITORY)]


def _uri(path: Path) -> str:
    """Where a file of the repository lies in the site."""
    if path.is_relative_to(REPOSITORY / "docs"):
        return path.relative_to(REPOSITORY / "docs").as_posix()
    return posixpath.join("repository", os.path.relpath(path, REPOSITORY))


def _command_sections() -> Iterator[str]:
    """A section for each command, as its `--help` says it."""
    os.environ["COLUMNS"] = "100"
    parser = make_parser()
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for name, command in commands.choices.items():
        yield f"## ensembleflow {name}\n\n```text\n{command.format_help()}```\n"


def _export_sections(module: str) -> Iterator[str]:
    """A module's docstring, then a section for each name that it exports."""
    base = REPOSITORY / "workflow" / module.replace(".", "/")
    source = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    nodes = list(ast.walk(ast.parse(source.read_text(encoding="utf-8"))))
    # By the module that defines it: a function may share its name with its module.
    defined = {
        alias.name: f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (exported,) = [
        node.value for node in nodes if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    yield f"::: {module}\n    options: {{members: false, show_root_heading: false, show_root_toc_entry: false}}"
    for name in ast.literal_eval(exported):
        yield f"::: {defined.get(name, f'{module}.{name}')}"
