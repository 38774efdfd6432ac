"""Reading values of a file of cases, strictly: each mistake becomes a finding at its place, and reading goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticCustomError

from signalwarden.errors import Problem
from signalwarden.policy_tests.model import Place
from signalwarden.values import instant, kind_of, one_of, span_s, spiffe_trust_domain, suggestion

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

__all__ = ["Node"]


FIRST_YEAR: Final = 2000
LAST_YEAR: Final = 2100
"""Far from where a clock begins or ends, so that every age and expiry beside it is a time as well."""


class Node:
    """A value and where it stands. What is asked of it is there, or a finding says why not."""

    __slots__ = ("_file", "_findings", "_loc", "_places", "value")

    def __init__(
        self,
        value: Any,
        file: str,
        places: Mapping[str, tuple[int, int]],
        findings: list[Problem],
        loc: tuple[str | int, ...] = (),
    ) -> None:
        self.value = value
        self._file = file
        self._places = places
        self._findings = findings
        self._loc = loc

    # ------------------------------------------------------------ where

    def below(self, step: str | int, value: Any) -> Node:
        """A value within this one."""
        return Node(value, self._file, self._places, self._findings, (*self._loc, step))

    @property
    def place(self) -> Place:
        """Of the value, or of the nearest one around it that the file has."""
        loc = self._loc
        while loc and _pointer(loc) not in self._places:
            loc = loc[:-1]
        line, column = self._places.get(_pointer(loc), (1, 1))
        return Place(self._file, line, column)

    def wrong(self, code: str, message: str) -> None:
        """Notes a mistake of this value."""
        place, name = self.place, _dotted(self._loc)
        said = f"`{name}`: {message}" if name else message
        self._findings.append(Problem("error", self._file, place.line, place.column, code, said))

    def expected(self, what: str) -> None:
        """Notes that it is of another type."""
        self.wrong("wrong_type", f"expected {what}, found {kind_of(self.value)}")

    # ------------------------------------------------------------ maps and lists

    def map(self, known: Collection[str], *, needed: Collection[str] = ()) -> dict[str, Node] | None:
        """Its entries by key. A key that is not known, and one that is needed and not there, are mistakes."""
        if not isinstance(self.value, dict):
            self.expected("a map")
            return None
        for key in self.value:
            if key not in known:
                words = [*known]
                hint = suggestion(key, words) or f", expected {one_of(words)}"
                self.below(key, self.value[key]).wrong("unknown_key", f"unknown key{hint}")
        for key in needed:
            if key not in self.value:
                self.below(key, None).wrong("missing_key", "missing, the key is required")
        return {key: self.below(key, value) for key, value in self.value.items() if key in known}

    def entries(self) -> Iterator[tuple[str, Node]]:
        """Its entries, whatever their keys are."""
        if not isinstance(self.value, dict):
            self.expected("a map")
            return
        for key, value in self.value.items():
            yield key, self.below(key, value)

    def items(self, *, least: int = 0) -> list[Node]:
        """Its members, if it is a list."""
        if not isinstance(self.value, list):
            self.expected("a list")
            return []
        if len(self.value) < least:
            self.wrong("empty_list", "expected at least one entry, found none")
        return [self.below(at, value) for at, value in enumerate(self.value)]

    # ------------------------------------------------------------ single values

    def text(self) -> str | None:
        """Text that says something."""
        if not isinstance(self.value, str):
            self.expected("text")
        elif not self.value.strip():
            self.wrong("empty_text", "expected text, found none")
        else:
            return self.value
        return None

    def texts(self, *, least: int = 0) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(text for item in self.items(least=least) if (text := item.text()) is not None)

    def whole(self, least: int, most: int) -> int | None:
        """A whole number within bounds."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            self.expected("a whole number")
        elif not least <= self.value <= most:
            self.wrong("bad_value", f"expected {least} to {most}, found {self.value}")
        else:
            return self.value
        return None

    def truth(self) -> bool | None:
        """`true` or `false`."""
        if isinstance(self.value, bool):
            return self.value
        self.expected("true or false")
        return None

    def word(self, known: Sequence[str], what: str = "") -> str | None:
        """One of a list. `what`: of what, where the list is too long to be told."""
        text = self.text()
        if text is None or text in known:
            return text
        near = suggestion(text, known)
        of = what or one_of(known) if known else f"{what}, of which there is none"
        self.wrong("unknown_value", f"expected {of}, found `{text}`{near}")
        return None

    def span_us(self) -> int | None:
        """A span such as `30s`, in microseconds; `0s` is one here."""
        if self.value in ("0s", "0ms", "0m"):
            return 0
        try:
            return round(span_s(self.value) * 1_000_000)
        except PydanticCustomError as error:
            self.wrong("bad_span", error.message())
        return None

    def moment_us(self) -> int | None:
        """An RFC 3339 time, in microseconds."""
        try:
            moment = instant(self.value)
        except PydanticCustomError as error:
            self.wrong("bad_value", error.message())
            return None
        if not FIRST_YEAR <= moment.year <= LAST_YEAR:
            self.wrong("bad_value", f"expected a time of {FIRST_YEAR} to {LAST_YEAR}, found `{self.value}`")
            return None
        return round(moment.timestamp() * 1_000_000)

    def spiffe_id(self) -> str | None:
        """A SPIFFE ID."""
        text = self.text()
        if text is None or spiffe_trust_domain(text) is not None:
            return text
        self.wrong(
            "bad_spiffe_id", f"expected a SPIFFE ID such as `spiffe://prod.example/ns/a/sa/b`, found `{text}`"
        )
        return None


def _pointer(loc: Sequence[str | int]) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in loc)


def _dotted(loc: Sequence[str | int]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    return text.removeprefix(".")
