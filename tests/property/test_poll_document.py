"""The reader of poll documents against the core: what either takes, both take, and no bytes get more than that."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from signalwarden.errors import BadInputError, FeedError
from signalwarden.signals import document
from signalwarden.signals.document import read_document
from tests import asking

STAMP = "2027-01-15T08:00:00.000000Z"
CONTRACTS = "".join(
    f"  {name}: {{type: {kind}, subject: global, max_age: 5m, influence: observe, used_by: [page.read],"
    f' sources: [{{kind: push, publisher: "{asking.PUBLISHER}", assurance: sourced}}],'
    " description: d, owner: o@x, purpose: p, review_by: 2099-01-01}\n"
    for name, kind in [("flag", "bool"), ("count", "long"), ("word", "string"), ("tags", "set")]
)
ROUTES = """\
routes:
  - match: {host: "pages.example", method: GET, path: "/home"}
    action: page.read
    resource: {type: Page, id: "home"}
    system: pages
    tier: runtime
    sensitivity: low
"""
ENGINE = asking.running(
    asking.load(
        {
            "routes.yaml": ROUTES,
            "signals.yaml": f"signals:\n{CONTRACTS}",
            "entities.cedarschema": "entity Workload;\nentity Page;\n",
        }
    )
)

generated = settings(max_examples=300, deadline=None, database=None)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
entries = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["flag", "count", "word", "tags", "nobody"]),
        "subject": st.sampled_from(["*", "*", "*", "a"]),
        "value": values,
        "observed_at": st.sampled_from(["2027-01-15T08:00:00Z", "2027-01-15T07:59:59.5+00:00", "then", 3]),
    }
)
documents = st.lists(entries | values, max_size=12)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """A document in one of the many ways to write it."""
    indent = draw(st.sampled_from([None, 0, 3, "\t"]))
    separators = draw(st.sampled_from([(",", ":"), (" , ", " :\n"), ("\r\n,", ":\t")]))
    text = json.dumps(
        {"signals": draw(documents)}, indent=indent, separators=separators, ensure_ascii=draw(st.booleans())
    )
    return draw(st.sampled_from(["", " \n", "\r\t"])).encode() + text.encode("utf-8", "replace") + b"\n"


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A document of which some bytes were cut out, exchanged or put in."""
    content = bytearray(draw(written()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        until = at + draw(st.integers(0, 6))
        content[at:until] = draw(
            st.sampled_from(
                [b"", b",", b"]", b"}", b'"', b"\\", b"NaN", b"1e999", b"\\ud800", b"\xff", b"\0", b"[["]
            )
        )
    return bytes(content)


def admitted(body: bytes) -> tuple[int, list[tuple[int, str]]] | None:
    """How many entries the core takes and which it refuses; None if it refuses the whole."""
    try:
        admission = ENGINE.admit(body, publisher=asking.PUBLISHER, now_us=asking.NOW)
    except BadInputError:
        return None
    return admission.accepted, [(index, reason) for index, reason, _ in admission.rejected]


def carried(content: bytes) -> tuple[int, list[tuple[int, str]]] | None:
    """The same by way of the reader."""
    try:
        read = read_document(content, STAMP)
    except FeedError:
        return None
    accepted, rejected = 0, []
    for batch in read.batches:
        found = admitted(batch.body)
        if found is None:
            return None
        accepted += found[0]
        rejected += [(batch.first + index, reason) for index, reason in found[1]]
    return accepted, rejected


def without_stamps(content: bytes) -> bool:
    return read_document(content, STAMP).stamped == 0


@generated
@given(written())
def test_a_document_means_to_the_feed_what_it_means_to_the_core(content: bytes) -> None:
    if without_stamps(content):
        assert carried(content) == admitted(content)


@generated
@given(damaged() | st.binary(max_size=200))
def test_a_damaged_document_gets_nothing_more_by_way_of_a_feed(content: bytes) -> None:
    direct, by_feed = admitted(content), carried(content)
    if by_feed is None:
        assert direct is None
    elif without_stamps(content):
        assert by_feed == direct


@generated
@given(documents, st.integers(1, 5), st.integers(60, 300))
def test_batches_hold_every_entry_once_in_order_within_their_bounds(
    given_entries: list[Any], signals: int, size: int
) -> None:
    before = document.BATCH_SIGNALS, document.BATCH_BYTES
    document.BATCH_SIGNALS, document.BATCH_BYTES = signals, size  # type: ignore[misc]
    try:
        batches = read_document(json.dumps({"signals": given_entries}).encode(), STAMP).batches
    finally:
        document.BATCH_SIGNALS, document.BATCH_BYTES = before  # type: ignore[misc]
    found = [json.loads(batch.body)["signals"] for batch in batches]
    assert [batch.entries for batch in batches] == [len(entries) for entries in found]
    assert all(0 < batch.entries <= signals for batch in batches)
    assert all(len(batch.body) <= size or batch.entries == 1 for batch in batches)
    firsts = [sum(batch.entries for batch in batches[:n]) for n in range(len(batches))]
    assert [batch.first for batch in batches] == firsts
    flat = [entry for entries in found for entry in entries]
    assert len(flat) == len(given_entries)
    for before_entry, after in zip(given_entries, flat, strict=True):
        if isinstance(before_entry, dict) and before_entry and "observed_at" not in before_entry:
            assert after == {**before_entry, "observed_at": STAMP}
        else:
            assert after == before_entry


def test_the_bounds_of_a_batch_are_those_of_the_core() -> None:
    full = json.dumps({"signals": [1] * document.BATCH_SIGNALS}).encode()
    assert admitted(full) is not None
    assert admitted(json.dumps({"signals": [1] * (document.BATCH_SIGNALS + 1)}).encode()) is None
    assert admitted(b'{"signals":[]}'.ljust(document.BATCH_BYTES)) == (0, [])
    assert admitted(b'{"signals":[]}'.ljust(document.BATCH_BYTES + 1)) is None
