"""A server that takes batches by HTTP: OPA's decision log service, or one that takes lines of JSON."""

from __future__ import annotations

import gzip
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from signalwarden.decision_log.shipping.destination import NotTakenError, Taken
from signalwarden.decision_log.shipping.formats import FORMATS
from signalwarden.errors import FeedError, OtlpError
from signalwarden.otlp import read_headers
from signalwarden.outbound import fetch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from signalwarden.decision_log.shipping.destination import Entry
    from signalwarden.sink_settings import SinkSettings

__all__ = ["Http"]

MAX_ANSWER_BYTES: Final = 1 << 20
"""What the other side says is not read for its words."""
TOO_LARGE, TOO_MANY, UNAVAILABLE = 413, 429, 503
FAST: Final = 3
"""zlib's level: half the time of the default for a tenth more bytes."""


class Http:
    """Posts each batch, compressed, on a connection of its own."""

    def __init__(self, settings: SinkSettings, root: Path) -> None:
        self._settings = settings
        self._root = root
        self._encode = FORMATS[settings.written_as]
        self._array = settings.written_as == "opa"

    def send(self, batch: Sequence[Entry]) -> Taken:
        """See Destination."""
        events = [event for entry in batch if (event := self._encode(entry)) is not None]
        if not events:
            return Taken()
        settings = self._settings
        body = b"[" + b",".join(events) + b"]" if self._array else b"".join(event + b"\n" for event in events)
        headers = {
            "content-type": "application/json" if self._array else "application/x-ndjson",
            "content-encoding": "gzip",
        }
        try:
            if settings.headers_file is not None:
                headers |= dict(read_headers(self._root / settings.headers_file))
            answer = fetch(
                str(settings.url),
                timeout_s=settings.timeout,
                max_bytes=MAX_ANSWER_BYTES,
                headers=headers,
                ca_file=self._root / settings.ca_file if settings.ca_file else None,
                method="POST",
                body=gzip.compress(body, FAST, mtime=0),
            )
        except (FeedError, OtlpError) as error:
            raise NotTakenError(str(error)) from error
        if 200 <= answer.status < 300:
            return Taken()
        raise NotTakenError(
            f"the sink answered with status {answer.status}",
            retry_after_s=_retry_after(answer.headers.get("retry-after")),
            too_large=answer.status == TOO_LARGE,
        )

    def close(self) -> None:
        """See Destination. What is under way ends by its own timeout."""


def _retry_after(text: str | None) -> float:
    """RFC 9110 section 10.2.3: seconds, or a date; what is neither counts for nothing."""
    if text is None:
        return 0.0
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
