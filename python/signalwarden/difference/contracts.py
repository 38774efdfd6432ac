"""What a change of a contract widens or narrows. To add a key of a contract: a row in `RULES`.

Judged is the contract alone. Policies that read the signal had to change with it, and have sentences of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from signalwarden.difference.words import Direction, Entry, Said, named, quoted, span, was_is

__all__ = ["PLACE", "RULES", "added", "changed", "removed"]

WIDENS, MAY_WIDEN, NARROWS, NEUTRAL = Direction

PLACE: Final = frozenset({"name", "line", "read_by", "digest"})
"""Keys of a description that say nothing of their own."""
INFLUENCE: Final = ("observe", "restrict", "grant")
"""From the least to the most that a signal may do."""
ASSURANCE: Final = ("self_asserted", "derived", "sourced", "authoritative")
SENSITIVITY: Final = ("secret", "internal", "public")
"""From the most guarded to the least."""


def added(new: Entry) -> Said:
    """A contract that was not there."""
    name, who = new["name"], _speakers(new)
    match new["influence"]:
        case "grant":
            yield MAY_WIDEN, f"`{name}` is new and may help to allow: {who} say it"
        case "restrict":
            yield NARROWS, f"`{name}` is new and may only deny: {who} say it"
        case _:
            yield NEUTRAL, f"`{name}` is new and is only observed: {who} say it"
    if new.get("when_unavailable") == "absent":
        said = "its when_unavailable is `absent`"
        yield (
            MAY_WIDEN,
            f"while `{name}` is missing or stale, requests are judged as if it said nothing: {said}",
        )
    if approvers := new.get("approvers"):
        yield NARROWS, f"a change of `{name}` needs the approval of {named(a['id'] for a in approvers)}"


def removed(old: Entry) -> Said:
    """A contract that is gone."""
    name, readers = old["name"], old.get("read_by") or []
    read = f", {named(readers)} read it" if readers else ""
    match old["influence"]:
        case "grant":
            yield MAY_WIDEN, f"`{name}` is gone, which could allow and deny{read}"
        case "restrict":
            yield WIDENS, f"`{name}` is gone and denies nobody any more{read}"
        case _:
            yield NEUTRAL, f"`{name}` is gone, which was only observed"
    if approvers := old.get("approvers"):
        yield WIDENS, f"nobody approves `{name}` any more, {named(a['id'] for a in approvers)} did"


def changed(old: Entry, new: Entry) -> Said:
    """What is said of a contract that was there and is another one."""
    for key in sorted(old.keys() | new.keys(), key=_order):
        if key in PLACE or old.get(key) == new.get(key):
            continue
        rule = RULES.get(key, _unknown(key))
        for direction, sentence in rule(new["name"], old, new):
            yield _weighed(direction, key, old, new), sentence


def _order(key: str) -> tuple[int, str]:
    keys = list(RULES)
    return (keys.index(key) if key in keys else len(keys), key)


def _weighed(direction: Direction, key: str, old: Entry, new: Entry) -> Direction:
    """What a signal that is only observed says matters to nobody's access."""
    observed = old["influence"] == new["influence"] == "observe"
    return NEUTRAL if observed and key not in ("sensitivity", "approvers") else direction


def _speakers(contract: Entry) -> str:
    return named({_speaker(source) for source in contract["sources"]})


# ---- influence, age, absence ------------------------------------------------------------------------------

_MOVES: Final[dict[tuple[str, str], tuple[Direction, str]]] = {
    ("observe", "restrict"): (NARROWS, "may now deny"),
    ("observe", "grant"): (WIDENS, "may now help to allow"),
    ("restrict", "grant"): (WIDENS, "may now help to allow"),
    ("restrict", "observe"): (WIDENS, "may no longer deny"),
    ("grant", "restrict"): (NARROWS, "may no longer help to allow"),
    ("grant", "observe"): (MAY_WIDEN, "may no longer allow or deny"),
}


def _influence(name: str, old: Entry, new: Entry) -> Said:
    move = (old["influence"], new["influence"])
    direction, what = _MOVES.get(move, (MAY_WIDEN, "may do something else"))
    yield direction, f"`{name}` {what}: its influence {was_is(*move)}"


def _max_age(name: str, old: Entry, new: Entry) -> Said:
    before, after = old["max_age_ms"], new["max_age_ms"]
    said = was_is(span(before), span(after))
    if before is None or after is None:
        yield MAY_WIDEN, f"`{name}` counts for another time: its max_age {said}"
    elif after > before:
        yield WIDENS, f"older values of `{name}` count: its max_age {said}"
    else:
        yield NARROWS, f"values of `{name}` grow stale sooner: its max_age {said}"


def _when_unavailable(name: str, old: Entry, new: Entry) -> Said:
    before, after = old["when_unavailable"], new["when_unavailable"]
    said = f"its when_unavailable {was_is(before, after)}"
    if after == "deny":
        yield NARROWS, f"without `{name}` whatever depends on it is denied: {said}"
    elif after == "absent":
        yield WIDENS, f"while `{name}` is missing or stale, requests are judged as if it said nothing: {said}"
    else:
        yield MAY_WIDEN, f"the absence of `{name}` is the caller's choice: {said}"


def _used_by(name: str, old: Entry, new: Entry) -> Said:
    before, after = set(old["used_by"]), set(new["used_by"])
    grants = "grant" in (old["influence"], new["influence"])
    if more := after - before:
        yield (
            MAY_WIDEN if grants else NARROWS,
            f"policies of {named(more)} may read `{name}`, and be moved by it",
        )
    if less := before - after:
        yield MAY_WIDEN, f"policies of {named(less)} may no longer read `{name}`, nor deny for it"


# ---- sources ----------------------------------------------------------------------------------------------

_IDENTITY: Final = (
    "publisher",
    "feed",
    "header",
    "namespace",
    "key",
    "fact",
    "zone",
    "zones",
    "measure",
    "window",
    "issuer",
    "claim",
)
"""Settings that say who speaks, for the kinds that have them."""


def _speaker(source: Entry) -> str:
    said = [str(source[key]) for key in _IDENTITY if isinstance(source.get(key), str)]
    return ":".join([source["kind"], *said])


def _by_speaker(sources: list[Entry]) -> dict[str, Entry]:
    """One speaker may stand there twice."""
    found: dict[str, Entry] = {}
    for source in sources:
        speaker, times = _speaker(source), 1
        while (key := speaker if times == 1 else f"{speaker} ({times})") in found:
            times += 1
        found[key] = source
    return found


def _sources(name: str, old: Entry, new: Entry) -> Said:
    before, after = _by_speaker(old["sources"]), _by_speaker(new["sources"])
    more, less = after.keys() - before.keys(), before.keys() - after.keys()
    if more and less:
        yield MAY_WIDEN, f"`{name}` is said by others: {named(less)} no longer, {named(more)} instead"
    elif more:
        yield _company(old, new, grows=True), f"{named(more)} may say `{name}`, too"
    elif less:
        yield _company(old, new, grows=False), f"{named(less)} may no longer say `{name}`"
    elif [*before] != [*after]:
        ranked = "first" in (old.get("merge"), new.get("merge"))
        yield MAY_WIDEN if ranked else NEUTRAL, f"the sources of `{name}` stand in another order"
    for speaker in [speaker for speaker in after if speaker in before]:
        yield from _source(name, speaker, before[speaker], after[speaker])
    yield from _rests_on(name, before, after)


def _company(old: Entry, new: Entry, *, grows: bool) -> Direction:
    """With `agree` and `any_adverse` each further source must bear the others out; with `first` the first decides."""
    if "first" in (old.get("merge"), new.get("merge")):
        first = _speaker(old["sources"][0]) == _speaker(new["sources"][0])
        return NEUTRAL if first else MAY_WIDEN
    return NARROWS if grows else WIDENS


def _source(name: str, speaker: str, old: Entry, new: Entry) -> Said:
    if old["assurance"] != new["assurance"]:
        said = f"its assurance {was_is(old['assurance'], new['assurance'])}"
        if _rank(new) > _rank(old):
            yield WIDENS, f"the word of `{speaker}` on `{name}` counts for more: {said}"
        else:
            yield NARROWS, f"the word of `{speaker}` on `{name}` counts for less: {said}"
    before, after = old.get("while_live"), new.get("while_live")
    if before != after:
        said = f"its while_live {was_is(before, after)}"
        if before is None:
            yield WIDENS, f"`{name}` has a value for subjects that `{speaker}` has said nothing of: {said}"
        elif after is None:
            yield NARROWS, f"`{name}` is missing for subjects that `{speaker}` has said nothing of: {said}"
        else:
            yield (
                MAY_WIDEN,
                f"`{name}` is another value for subjects that `{speaker}` has said nothing of: {said}",
            )
    others = old.keys() | new.keys()
    for key in sorted(others - {"assurance", "while_live", *_IDENTITY}):
        if old.get(key) != new.get(key):
            said = was_is(old.get(key), new.get(key))
            yield MAY_WIDEN, f"`{speaker}` is read in another way for `{name}`: its `{key}` {said}"
    for key in _IDENTITY:
        if key in others and not isinstance(new.get(key), str) and old.get(key) != new.get(key):
            said = was_is(old.get(key), new.get(key))
            yield MAY_WIDEN, f"`{speaker}` means something else for `{name}`: its `{key}` {said}"


def _rank(source: Entry) -> int:
    word = source["assurance"]
    return ASSURANCE.index(word) if word in ASSURANCE else -1


def _rests_on(name: str, before: dict[str, Entry], after: dict[str, Entry]) -> Said:
    """A weaker word than any before it."""
    weakest_before, weakest_after = (min(map(_rank, sources.values())) for sources in (before, after))
    if weakest_after < weakest_before and after.keys() - before.keys():
        word = ASSURANCE[weakest_after] if weakest_after >= 0 else "unknown"
        yield MAY_WIDEN, f"`{name}` rests on a weaker word than before, one that is `{word}`"


# ---- several sources, several signals ---------------------------------------------------------------------


def _merge(name: str, old: Entry, new: Entry) -> Said:
    before, after = old.get("merge"), new.get("merge")
    said = f"its merge {was_is(before, after)}"
    if before is None or after is None:
        yield NEUTRAL, f"`{name}` has {'several sources' if after else 'one source'} now: {said}"
    elif after == "first":
        yield WIDENS, f"the first source of `{name}` decides alone: {said}"
    elif before == "first":
        yield NARROWS, f"all sources of `{name}` have a say: {said}"
    else:
        yield MAY_WIDEN, f"the sources of `{name}` become one value in another way: {said}"


def _adverse(name: str, old: Entry, new: Entry) -> Said:
    before, after = old.get("adverse") or {}, new.get("adverse") or {}
    said = f"its adverse {was_is(before, after)}"
    grows = _adverse_grows(before, after)
    alone = not (old.get("corroborate") or new.get("corroborate"))
    if grows is None or not alone:
        yield MAY_WIDEN, f"other values of `{name}` are adverse: {said}"
    elif grows:
        yield NARROWS, f"more values of `{name}` are adverse: {said}"
    else:
        yield WIDENS, f"fewer values of `{name}` are adverse: {said}"


def _adverse_grows(before: Entry, after: Entry) -> bool | None:
    """None: neither holds the other."""
    if not before or not after:
        return bool(after)
    if before.keys() != after.keys():
        return None
    (key,) = before.keys()
    old, new = before[key], after[key]
    if key == "one_of":
        if {*map(repr, old)} == {*map(repr, new)}:
            return None
        return True if all(v in new for v in old) else False if all(v in old for v in new) else None
    try:
        return bool(float(new) < float(old)) == (key == "at_least")
    except (TypeError, ValueError):  # an address or a date, written as text
        return None


def _corroborate(name: str, old: Entry, new: Entry) -> Said:
    before, after = old.get("corroborate"), new.get("corroborate")
    said = f"its corroborate {was_is(before, after)}"
    if not before:
        yield WIDENS, f"an adverse value of `{name}` alone no longer counts: {said}"
    elif not after:
        yield NARROWS, f"an adverse value of `{name}` counts alone: {said}"
    else:
        easier = after["need"] <= before["need"] and set(after["with"]) >= set(before["with"])
        harder = after["need"] >= before["need"] and set(after["with"]) <= set(before["with"])
        what = "less" if easier else "more" if harder else "other"
        direction = NARROWS if easier else WIDENS if harder else MAY_WIDEN
        yield direction, f"an adverse value of `{name}` needs {what} company: {said}"


# ---- people -----------------------------------------------------------------------------------------------


def _sensitivity(name: str, old: Entry, new: Entry) -> Said:
    before, after = old["sensitivity"], new["sensitivity"]
    if SENSITIVITY.index(after) > SENSITIVITY.index(before):
        yield WIDENS, f"more people may see values of `{name}`: its sensitivity {was_is(before, after)}"
    else:
        yield NARROWS, f"fewer people may see values of `{name}`: its sensitivity {was_is(before, after)}"


def _approvers(name: str, old: Entry, new: Entry) -> Said:
    before = {a["id"]: a["ed25519"] for a in old.get("approvers") or []}
    after = {a["id"]: a["ed25519"] for a in new.get("approvers") or []}
    if more := after.keys() - before.keys():
        yield NARROWS, f"a change of `{name}` needs the approval of {named(more)}, too"
    if less := before.keys() - after.keys():
        yield WIDENS, f"a change of `{name}` no longer needs the approval of {named(less)}"
    if other := [id_ for id_ in before if id_ in after and before[id_] != after[id_]]:
        yield MAY_WIDEN, f"{named(other)} approve `{name}` with another key"


def _review_by(name: str, old: Entry, new: Entry) -> Said:
    later = "later" if new["review_by"] > old["review_by"] else "sooner"
    yield (
        NEUTRAL,
        f"`{name}` is looked at again {later}: its review_by {was_is(old['review_by'], new['review_by'])}",
    )


Rule = Callable[[str, Entry, Entry], Said]


def _meaning(key: str) -> Rule:
    def rule(name: str, old: Entry, new: Entry) -> Said:
        yield MAY_WIDEN, f"`{name}` means something else: its {key} {was_is(old[key], new[key])}"

    return rule


def _prose(key: str) -> Rule:
    def rule(name: str, _old: Entry, new: Entry) -> Said:
        yield NEUTRAL, f"`{name}` is described otherwise: its {key} is {quoted(new[key])}"

    return rule


def _unknown(key: str) -> Rule:
    """A key that this file does not know is told, and never taken for harmless."""

    def rule(name: str, old: Entry, new: Entry) -> Said:
        yield MAY_WIDEN, f"`{name}` is another: its `{key}` {was_is(old.get(key), new.get(key))}"

    return rule


RULES: Final[dict[str, Rule]] = {
    "influence": _influence,
    "type": _meaning("type"),
    "subject": _meaning("subject"),
    "max_age_ms": _max_age,
    "when_unavailable": _when_unavailable,
    "used_by": _used_by,
    "sources": _sources,
    "merge": _merge,
    "adverse": _adverse,
    "corroborate": _corroborate,
    "approvers": _approvers,
    "sensitivity": _sensitivity,
    "review_by": _review_by,
    "owner": _prose("owner"),
    "purpose": _prose("purpose"),
    "description": _prose("description"),
    "justification": _prose("justification"),
}
