"""The register as a document for auditors, in Markdown or HTML.

What it says depends on the directory alone: no clock, no server, so two runs over one directory give the same bytes
and a difference between two documents is a change of the directory. Texts of the register are text in both.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from signalwarden.decision_log.tail import clean
from signalwarden.register import exceptions_of, json_text, reach_of, source_details, source_text, span_text

__all__ = ["as_html", "as_markdown"]

_READING: Final = (
    ("grant", "a fresh value may widen or restrict what policies decide"),
    ("restrict", "it may only restrict"),
    ("observe", "it is recorded with decisions and influences none"),
    ("authoritative", "the source is the owner of the fact"),
    ("sourced", "the source got it from the owner"),
    ("derived", "it was computed from other facts"),
    ("self_asserted", "the caller says so of itself; it can only restrict"),
)
_STYLE: Final = (
    "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#1a1a1a}"
    "table{border-collapse:collapse;margin:.6em 0 1.4em;width:100%}"
    "th,td{border:1px solid #bbb;padding:.3em .6em;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
    "th{background:#f2f2f2}h2{margin-top:2em;border-bottom:1px solid #bbb}"
    "@media print{h2{break-after:avoid}table{break-inside:avoid}}"
)
# No script, no image, no font, nothing from anywhere; kept in the file, since it is opened from disk.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True)
class _Part:
    """A heading, what is said below it, and a table. What has no rows is said to have none."""

    level: int
    title: str
    text: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: Sequence[Sequence[str]] = field(default_factory=tuple)


def as_markdown(register: Mapping[str, Any], *, trust_domain: str) -> str:
    """The document as Markdown (GitHub's)."""
    lines: list[str] = []
    for part in _parts(register, trust_domain):
        lines += ["#" * part.level + " " + _md(part.title), ""]
        for text in part.text:
            lines += [_md_paragraph(text), ""]
        if part.columns and part.rows:
            lines.append("| " + " | ".join(map(_md, part.columns)) + " |")
            lines.append("|" + "---|" * len(part.columns))
            lines += ["| " + " | ".join(map(_md, row)) + " |" for row in part.rows]
            lines.append("")
        elif part.columns:
            lines += ["None.", ""]
    return "\n".join(lines)


def as_html(register: Mapping[str, Any], *, trust_domain: str) -> str:
    """The document as one HTML file that needs no other and runs nothing."""
    body: list[str] = []
    title = ""
    for part in _parts(register, trust_domain):
        title = title or part.title
        body.append(f"<h{part.level}>{_text(part.title)}</h{part.level}>")
        body += [f"<p>{_text(text)}</p>" for text in part.text]
        if part.columns and part.rows:
            body.append("<table>" + _row("th", part.columns))
            body += [_row("td", row) for row in part.rows]
            body.append("</table>")
        elif part.columns:
            body.append("<p>None.</p>")
    return "\n".join([
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(_POLICY)}">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>", *body, "</body></html>", "",
    ])  # fmt: skip


def _row(cell: str, texts: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{_text(text)}</{cell}>" for text in texts) + "</tr>"


def _text(text: str) -> str:
    return html.escape(clean(text))


def _md(text: str) -> str:
    """Nothing in a text of the register is markup, and no cell ends early."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", clean(text).strip())


def _md_paragraph(text: str) -> str:
    """Also no list or rule, where a text begins like one."""
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", _md(text))


# ---- what the document says -----------------------------------------------------------------------------


def _parts(register: Mapping[str, Any], trust_domain: str) -> Iterator[_Part]:
    signals = sorted(register["signals"], key=lambda contract: contract["name"])
    yield _Part(
        1, f"Signal register of {trust_domain}",
        (
            f"Revision {register['revision']}.",
            _size(register),
            "Policies can read nothing about the circumstances of a request but these signals.",
        ),
    )  # fmt: skip
    yield _Part(2, "How to read it", (), ("word", "means"), _READING)
    overview = ("signal", "influence", "owner", "purpose", "sources", "read by", "review by")
    yield _Part(2, "Signals", (), overview, [_overview(contract) for contract in signals])
    for contract in signals:
        yield from _contract(register, contract)
    yield _Part(2, "Declared exceptions", (), ("place", "exception"), [*map(_placed, register["exceptions"])])
    reviews = sorted((c["review_by"], c["name"], c["owner"]) for c in signals)
    text = (
        "Past reviews stop a load."
        if register.get("strict_reviews")
        else "Past reviews are warnings of every check."
    )
    yield _Part(2, "Reviews, soonest first", (text,), ("review by", "signal", "owner"), reviews)
    yield _Part(
        2, "Feeds", (), ("feed", "kind", "place", "settings"), [*map(_feed, register.get("feeds", ()))]
    )
    files = sorted(register["files"].items())
    yield _Part(2, "Files", ("SHA-256 of each file of this revision.",), ("file", "digest"), files)


def _size(register: Mapping[str, Any]) -> str:
    counted = [f"{len(register.get(part, ()))} {part}" for part in ("signals", "feeds", "policies", "routes")]
    return ", ".join(counted) + "."


def _overview(contract: Mapping[str, Any]) -> list[str]:
    sources = ", ".join(f"{source_text(source)} ({source['assurance']})" for source in contract["sources"])
    keys = ("name", "influence", "owner", "purpose")
    return [
        *(contract[key] for key in keys),
        sources,
        ", ".join(contract["read_by"]) or "nobody",
        contract["review_by"],
    ]


def _contract(register: Mapping[str, Any], contract: Mapping[str, Any]) -> Iterator[_Part]:
    name = contract["name"]
    yield _Part(2, f"Signal {name}", (contract["description"],), ("key", "value"), [*_fields(contract)])
    sources = [(source_text(s), s["assurance"], source_details(s)) for s in contract["sources"]]
    yield _Part(3, f"Sources of {name}", (), ("source", "assurance", "settings"), sources)
    policies = [
        (p["id"], f"{p['file']}:{p['line']}", p.get("effect") or "-", p.get("mode") or "-")
        for p in register["policies"]
        if name in p["signals"]
    ]
    yield _Part(3, f"Who reads {name}", (), ("policy", "place", "effect", "mode"), policies)
    reach = [
        (action["action"], action["tier"] or "-", route["match"], route["route"],
         "yes" if route.get("enforce", True) else "no")
        for action in reach_of(register, contract)
        for route in action["routes"]
    ]  # fmt: skip
    yield _Part(3, f"What {name} may influence", (), ("action", "tier", "route", "place", "enforced"), reach)
    exceptions = [_placed(text) for text in exceptions_of(register, name)]
    yield _Part(3, f"Exceptions of {name}", (), ("place", "exception"), exceptions)


def _fields(contract: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every key of a contract, whatever it is called: what has no words of its own here is shown as JSON."""
    apart = {"name", "description", "sources", "read_by", "line", "live", "max_age_ms"}
    yield "place", f"signals.yaml:{contract['line']}"
    if contract.get("max_age_ms") is not None:
        yield "max_age", span_text(contract["max_age_ms"])
    for key, value in contract.items():
        if key in apart or value is None or value == []:
            continue
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            yield key, ", ".join(value)
        else:
            yield key, value if isinstance(value, str) else json_text(value)


def _placed(text: str) -> tuple[str, str]:
    place, _, rest = text.partition(": ")
    return place, rest


def _feed(feed: Mapping[str, Any]) -> tuple[str, str, str, str]:
    settings = {key: value for key, value in feed.items() if key not in ("feed", "kind", "line")}
    return feed["feed"], feed["kind"], f"signals.yaml:{feed['line']}", json_text(settings)
