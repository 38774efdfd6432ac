"""The report's document as Markdown, and as one HTML page that needs nothing else: no script, no font, no address."""

from __future__ import annotations

import re
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from signalwarden.decision_log.tail import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["html", "markdown"]

WORDS: Final = {
    "enforced": "it is made so here, and records or entries bear on it",
    "evidenced": "it can be shown here; its cause lies elsewhere",
    "no data": "something here does it, and nothing of the period says anything about it",
    "not covered": "nothing here implements it, or nothing in this directory switches it on",
}
"""What a standing means. None of them says that a control is met: that is for whoever reads the figures."""


def head_of(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands above all: of what, when, how much."""
    period, log = document["period"], document["log"]
    asked = [f"since {period['since']}"] if period["since"] else []
    asked += [f"until {period['until']}"] if period["until"] else []
    seen = f"{period['from']} to {period['to']}" if period["from"] else "no record"
    how_much = (
        f"{log['records']:,} records of {len(log['files'])} files, {log['decisions']:,} decisions, "
        f"{log['skipped']['count']:,} lines that were no record"
    )
    return [
        ("directory", f"{document['directory']} (trust domain {document['trust_domain']})"),
        ("revision", document["revision"]),
        ("made", document["made_at"]),
        ("period", f"{seen} ({', '.join(asked)})" if asked else seen),
        ("log", how_much),
    ]


def value(content: object) -> str:
    """A value for people."""
    if content is None:
        return "-"
    return (
        f"{content:,}"
        if isinstance(content, int | float) and not isinstance(content, bool)
        else clean(content)
    )


# ---- Markdown -------------------------------------------------------------------------------------------


def markdown(document: Mapping[str, Any]) -> str:
    """For reading, and for a repository of reports."""
    return "\n".join(_markdown(document)) + "\n"


def _markdown(document: Mapping[str, Any]) -> Iterator[str]:
    yield "# Evidence report"
    yield ""
    yield from (f"- {name}: {_md(text)}" for name, text in head_of(document))
    yield ""
    yield from (f"- **{word}**: {means}" for word, means in WORDS.items())
    yield ""
    if document["findings"]:
        yield "To know of every figure below:"
        yield ""
        yield from (_md_finding(finding) for finding in document["findings"])
        yield ""
    for framework in document["frameworks"]:
        yield f"## {framework['title']}"
        yield ""
        yield f"{framework['note']}"
        yield ""
        yield "| control | title | standing | |"
        yield "|---|---|---|---|"
        for control in framework["controls"]:
            cells = (control["id"], control["title"], f"**{control['standing']}**", control["why"])
            yield f"| {' | '.join(map(_cell, cells))} |"
        yield ""
        for control in framework["controls"]:
            if control["by"] or control["figures"]:
                yield from _md_control(control)


def _md_control(control: Mapping[str, Any]) -> Iterator[str]:
    part = ", in part" if control["in_part"] else ""
    yield f"### {control['id']}: {control['title']}"
    yield ""
    yield f"**{control['standing']}**{part}: {_md(control['why'])}. {control['control']}"
    yield ""
    if control["neighbours"]:
        yield f"Also: {', '.join(control['neighbours'])}."
        yield ""
    for entry in control["by"]:
        yield f"- by {_md_by(entry)}"
    for finding in control["findings"]:
        yield _md_finding(finding)
    yield from (f"- {figure['label']}: {_md(value(figure['value']))}" for figure in control["figures"])
    yield ""
    for table in control["tables"]:
        yield f"{table['label']}:"
        yield ""
        yield f"| {' | '.join(map(_cell, table['columns']))} |"
        yield "|" + "---|" * len(table["columns"])
        yield from (f"| {' | '.join(_cell(value(cell)) for cell in row)} |" for row in table["rows"])
        if table["left_out"]:
            yield ""
            yield f"and {table['left_out']:,} more"
        yield ""


def _md_by(entry: Mapping[str, Any]) -> str:
    if entry["kind"] == "invariant":
        return f"promise {entry['at']}: {entry['what']}"
    if entry["kind"] == "test":
        return f"test `{entry['what']}`"
    return _md(entry["what"]) + (f" (`{clean(entry['at'])}`)" if entry["at"] else "")


def _md_finding(finding: Mapping[str, Any]) -> str:
    return f"- weakened: {_md(finding['what'])}" + (f" (`{clean(finding['at'])}`)" if finding["at"] else "")


def _md(text: object) -> str:
    """Text of others, in which nothing is read as HTML."""
    return clean(text).replace("<", "&lt;")


def _cell(text: object) -> str:
    return _md(text).replace("|", "\\|")


# ---- HTML -----------------------------------------------------------------------------------------------

STYLE: Final = (resources.files("signalwarden.audit") / "report.css").read_text(encoding="utf-8")


def html(document: Mapping[str, Any]) -> str:
    """One page that opens offline, in light and in dark, and prints."""
    return "\n".join(_html(document)) + "\n"


def _html(document: Mapping[str, Any]) -> Iterator[str]:
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    # Nothing is loaded, whatever stands in a record.
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f"<title>Evidence report, {escape(str(document['trust_domain']))}</title><style>{STYLE}</style></head><body>"
    yield "<h1>Evidence report</h1>"
    yield "<dl>"
    yield from (f"<dt>{name}</dt><dd>{_text(text)}</dd>" for name, text in head_of(document))
    yield "</dl>"
    yield '<ul class="dim">'
    yield from (f'<li><b class="{_class(word)}">{word}</b>: {means}</li>' for word, means in WORDS.items())
    yield "</ul>"
    if document["findings"]:
        yield "<p>To know of every figure below:</p><ul>"
        yield from (_html_finding(finding) for finding in document["findings"])
        yield "</ul>"
    for framework in document["frameworks"]:
        yield from _html_framework(framework)
    yield "</body></html>"


def _html_framework(framework: Mapping[str, Any]) -> Iterator[str]:
    yield f"<section><h2>{_text(framework['title'])}</h2>"
    yield f'<p class="dim">{_text(framework["note"])}</p>'
    counts = [(word, number) for word, number in framework["summary"].items() if number]
    yield '<div class="strip" role="img" aria-label="standings">'
    yield from (f'<i class="{_class(word)}" style="flex:{number}"></i>' for word, number in counts)
    yield '</div><div class="counts">'
    yield from (f'<span class="{_class(word)}">{number} {word}</span>' for word, number in counts)
    yield "</div>"
    for control in framework["controls"]:
        yield from _html_control(control)
    yield "</section>"


def _html_control(control: Mapping[str, Any]) -> Iterator[str]:
    findings = len(control["findings"])
    weak = f'<span class="weak">{findings} weakening</span>' if findings else ""
    part = " in part" if control["in_part"] else ""
    standing = control["standing"]
    yield "<details><summary>"
    yield f'<h3>{_text(control["id"])} <span class="dim">{_text(control["title"])}</span></h3>{weak}'
    yield f'<span class="standing {_class(standing)}">{standing}{part}</span></summary><div class="body">'
    yield f'<p>{_text(control["control"])}</p><p class="dim">{_text(control["why"])}</p>'
    if control["neighbours"]:
        yield f'<p class="dim">Also: {_text(", ".join(control["neighbours"]))}</p>'
    if control["by"]:
        yield "<p>By</p><ul>"
        yield from (f"<li>{_html_by(entry)}</li>" for entry in control["by"])
        yield "</ul>"
    if findings:
        yield '<p class="weak">Weakened by</p><ul>'
        yield from (_html_finding(finding) for finding in control["findings"])
        yield "</ul>"
    if control["figures"]:
        yield "<dl>"
        yield from (
            f"<dt>{_text(figure['label'])}</dt><dd>{_text(value(figure['value']))}</dd>"
            for figure in control["figures"]
        )
        yield "</dl>"
    for table in control["tables"]:
        yield from _html_table(table)
    yield "</div></details>"


def _html_table(table: Mapping[str, Any]) -> Iterator[str]:
    rows: Sequence[Sequence[object]] = table["rows"]
    numbers = [all(isinstance(row[at], int) for row in rows) for at in range(len(table["columns"]))]
    most = max((row[-1] for row in rows if isinstance(row[-1], int)), default=0)
    more = f", and {table['left_out']:,} more" if table["left_out"] else ""
    yield f'<div class="wide"><table><caption>{_text(table["label"])}{more}</caption><thead><tr>'
    for column, is_number in zip(table["columns"], numbers, strict=True):
        yield f"<th{_number(is_number)}>{_text(column)}</th>"
    yield "</tr></thead><tbody>"
    for row in rows:
        cells = [
            f"<td{_number(is_number)}>{_text(value(cell))}</td>"
            for cell, is_number in zip(row[:-1], numbers, strict=False)
        ]
        yield f"<tr>{''.join(cells)}{_last(row[-1], most, is_number=numbers[-1])}</tr>"
    yield "</tbody></table></div>"


def _number(is_number: object) -> str:
    return ' class="number"' if is_number else ""


def _last(cell: object, most: int, *, is_number: bool) -> str:
    if is_number and isinstance(cell, int) and most > 0:
        return f'<td class="number bar" style="--part:{100 * cell / most:.0f}%">{value(cell)}</td>'
    return f"<td{_number(is_number)}>{_text(value(cell))}</td>"


def _html_by(entry: Mapping[str, Any]) -> str:
    if entry["kind"] == "invariant":
        return f"promise {_text(entry['at'])}: {_text(entry['what'])}"
    if entry["kind"] == "test":
        return f"test <code>{_text(entry['what'])}</code>"
    return _text(entry["what"]) + _at(entry["at"])


def _html_finding(finding: Mapping[str, Any]) -> str:
    return f"<li>{_text(finding['what'])}{_at(finding['at'])}</li>"


def _at(place: object) -> str:
    return f" <code>{escape(clean(place))}</code>" if place else ""


def _text(content: object) -> str:
    """Text, in which `words` between backticks are set as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(clean(content)))


def _class(standing: str) -> str:
    return standing.replace(" ", "-")
