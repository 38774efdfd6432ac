"""The exception tree. Every error that a user can cause has a class here; the Rust core raises two of them.

The text of each is one clear lowercase sentence with input in backticks: the command line prints it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "BadInputError",
    "CallRefusedError",
    "ConfigurationError",
    "FeedError",
    "FindingLike",
    "KeySetError",
    "KeysError",
    "LogError",
    "OtlpError",
    "Problem",
    "RateLimitedError",
    "RevocationsFullError",
    "ServerError",
    "SignalwardenError",
    "StateError",
    "UnknownPublisherError",
    "UnreachableError",
    "is_error",
    "sentence",
    "sorted_findings",
]


class FindingLike(Protocol):
    """One mistake of a configuration directory, found in Rust (`_core.Finding`) or here (`Problem`)."""

    @property
    def severity(self) -> str:
        """`error` or `warning`."""

    @property
    def file(self) -> str:
        """Path relative to the directory."""

    @property
    def line(self) -> int:
        """From 1; 0 means the whole file."""

    @property
    def column(self) -> int:
        """From 1; 0 means the whole file."""

    @property
    def code(self) -> str:
        """Short stable code, such as `unknown_key`."""

    @property
    def message(self) -> str:
        """One sentence."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding made in Python: settings and the reading of files."""

    severity: Literal["error", "warning"]
    file: str
    line: int
    column: int
    code: str
    message: str

    def __str__(self) -> str:
        return sentence(self)


def sentence(finding: FindingLike) -> str:
    """A finding on one line: `file:line:column: severity: message`, or `file: severity: message`."""
    place = f"{finding.file}:{finding.line}:{finding.column}" if finding.line else finding.file
    return f"{place}: {finding.severity}: {finding.message}"


def is_error(finding: FindingLike) -> bool:
    """True for a finding that stops a load."""
    return finding.severity == "error"


def sorted_findings(findings: Iterable[FindingLike]) -> list[FindingLike]:
    """By file, then place, errors before warnings: the order in which a reader mends them."""
    return sorted(findings, key=lambda f: (f.file, f.line, f.column, f.severity, f.message))


class SignalwardenError(Exception):
    """Root of the tree."""


class ConfigurationError(SignalwardenError):
    """A configuration directory that can't be loaded, with every mistake found in one pass."""

    def __init__(self, findings: Iterable[FindingLike]) -> None:
        self.findings: list[FindingLike] = list(findings)
        super().__init__(self.findings)

    def __str__(self) -> str:
        return "\n".join(sentence(finding) for finding in self.findings)


class BadInputError(SignalwardenError):
    """A body or a stored change that is not what it claims to be; whoever sent it must mend it."""


class CallRefusedError(SignalwardenError):
    """A call about a task, an approval or an override that is well formed and refused. `code`: the reason that the
    admin API gives; `more`: what else the answer says of it."""

    def __init__(self, code: str, detail: str, more: Mapping[str, str] | None = None) -> None:
        super().__init__(code, detail, more)
        self.code = code
        self.detail = detail
        self.more: dict[str, str] = dict(more or {})

    def __str__(self) -> str:
        return self.detail


class FeedError(SignalwardenError):
    """What a feed reads can't be had or is not what it should be. Never with a token or what was read in it."""


class RateLimitedError(SignalwardenError):
    """More at once than is taken; nothing of the call was. `retry_after_s`: when it is worth another try."""

    def __init__(self, sentence: str, retry_after_s: int = 1) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class RevocationsFullError(SignalwardenError):
    """As many revocations as are held: nothing more is taken, and none of those is forgotten."""


class StateError(SignalwardenError):
    """The store of changes can't be opened, locked, read or written."""


class LogError(SignalwardenError):
    """The decision log can't be opened or written."""


class OtlpError(SignalwardenError):
    """A collector of OpenTelemetry can't be called: a file of certificates or headers that is not what it should be.
    Never with what it holds."""


class KeysError(SignalwardenError):
    """A key file can't be made or read, or is not private."""


class KeySetError(SignalwardenError):
    """A set of public keys can't be had or read, so nobody can say yet whether a signature is good."""


class ServerError(SignalwardenError):
    """A door can't be opened: a port in use, a socket path that is not ours."""


class UnreachableError(ServerError):
    """A server that does not answer now; it may later."""


class UnknownPublisherError(SignalwardenError):
    """A publisher or feed that no contract names."""
