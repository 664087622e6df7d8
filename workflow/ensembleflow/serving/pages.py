"""The server's pages: each one self-contained, and forbidden to load anything else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["operations_page", "page_headers", "voting_page"]

_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h2 { margin: 2.5rem 0 .5rem; } h3 { margin: 1rem 0 .25rem; font-size: 1rem; }
section { border: 1px solid color-mix(in srgb, currentColor 20%, transparent); border-radius: .5rem;
  padding: .5rem 1rem 1rem; margin: 1rem 0; overflow-wrap: anywhere; }
code, pre { font-family: ui-monospace, monospace; font-size: .875rem; }
pre { overflow-x: auto; padding: .75rem; border-radius: .375rem; background: color-mix(in srgb, currentColor 7%,
  transparent); }
dt { font-weight: 600; } dd { margin: 0 0 .25rem 1.5rem; } summary { cursor: pointer; }
"""


@cache
def voting_page() -> str:
    """The page on which to drop an image and see the members vote."""
    return Path(__file__).with_name("voting_page.html").read_text(encoding="utf-8")


@cache
def page_headers(page: str) -> dict[str, str]:
    """Headers with which a browser runs only the styles and scripts in the page, and loads nothing from elsewhere."""
    sources: dict[str, list[str]] = {"style": [], "script": []}
    for kind, content in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        sources[kind].append(f"'sha256-{digest}'")
    policy = {
        "default-src": ["'none'"],
        "style-src": sources["style"] or ["'none'"],
        "script-src": sources["script"] or ["'none'"],
        "img-src": ["blob:", "data:"],
        "connect-src": ["'self'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
    return {
        "content-security-policy": "; ".join(f"{name} {' '.join(values)}" for name, values in policy.items()),
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }


def operations_page(document: dict[str, Any]) -> str:
    """An OpenAPI document for people: each operation with its parameters, bodies and answers."""
    info = document["info"]
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])} {info["version"]}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>"
        "<p>For programs: <a href='/openapi.json'>/openapi.json</a>. To try it with an image: "
        "<a href='/'>the voting page</a>.</p>"
    ]
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    for tag, sections in by_tag.items():
        parts += [f"<h2>{escape(tag.capitalize())}</h2>", *sections]
    parts.append("<h2>Bodies</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        text = escape(json.dumps(schema, indent=1))
        parts.append(f"<details id='{escape(name)}'><summary><code>{escape(name)}</code></summary><pre>{text}</pre>")
        parts.append("</details>")
    return "".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"<section><h3><code>{method.upper()} {escape(path)}</code></h3><p>{escape(operation['description'])}</p>"]
    parameters = [
        (f"{each['name']} (in {each['in']})", each.get("description") or each["schema"].get("description", ""))
        for each in operation.get("parameters", [])
    ]
    bodies = [_body(kind, content) for kind, content in operation.get("requestBody", {}).get("content", {}).items()]
    answers = [
        (code, f"{answer['description']}: " + ", ".join(_body(*each) for each in answer.get("content", {}).items()))
        for code, answer in operation["responses"].items()
    ]
    if parameters:
        rows = [(escape(name), escape(description)) for name, description in parameters]
        parts.append(f"<h3>Parameters</h3>{_definitions(rows)}")
    if bodies:
        parts.append(f"<h3>Body</h3><p>{', or '.join(bodies)}</p>")
    parts.append(f"<h3>Answers</h3>{_definitions(answers)}</section>")
    return "".join(parts)


def _body(kind: str, content: dict[str, Any]) -> str:
    reference = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    link = f" <a href='#{escape(reference)}'>{escape(reference)}</a>" if reference else ""
    return f"<code>{escape(kind)}</code>{link}"


def _definitions(rows: list[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in rows) + "</dl>"
