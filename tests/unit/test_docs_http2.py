"""docs/http2.md shows what the tests hold the front doors to."""

from __future__ import annotations

from tests.http2_page import PAGE, written_into
from tests.pages import text_of


def test_the_tables_of_the_page_are_as_they_are_held() -> None:
    page = text_of(PAGE)
    assert written_into(page) == page, f"run `python -m tests.http2_page {PAGE}`"
