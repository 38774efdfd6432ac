"""What a change of feeds, routes, policies, clients, settings and entities widens or narrows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from signalwarden.difference.words import Direction, Entry, Said, named, quoted, span, was_is
from signalwarden.directory import DESCRIPTORS
from signalwarden.values import span_s

__all__ = ["clients", "entities", "feeds", "languages", "policies", "register", "routes", "settings"]

WIDENS, MAY_WIDEN, NARROWS, NEUTRAL = Direction

Told = Iterator[tuple[str, Direction, str]]
"""Name of the entry, direction, sentence."""


def _of(name: str, said: Said) -> Told:
    for direction, sentence in said:
        yield name, direction, sentence


# ---- feeds ------------------------------------------------------------------------------------------------

PACE: Final = frozenset({"interval_ms", "timeout_ms", "jitter_ms", "backoff_ms"})
"""How often a feed is asked. What its values are worth is said by `max_age` of the contracts."""


def feeds(old: list[Entry], new: list[Entry]) -> Told:
    """Where values come from that nobody pushes. What a feed may say, contracts say."""
    before, after = ({feed["feed"]: feed for feed in entries} for entries in (old, new))
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            yield name, NEUTRAL, f"the feed `{name}` is new: {_feed(after[name])}"
        elif name not in after:
            yield name, NEUTRAL, f"the feed `{name}` is gone: {_feed(before[name])}"
        else:
            yield from _of(name, _feed_changed(name, before[name], after[name]))


def _feed(feed: Entry) -> str:
    where = feed.get("url") or feed.get("file") or feed.get("issuer")
    return f"{feed['kind']} from {quoted(where)}"


def _feed_changed(name: str, old: Entry, new: Entry) -> Said:
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if key == "line" or before == after:
            continue
        said = f"its {key.removesuffix('_ms')} {was_is(_shown(key, before), _shown(key, after))}"
        if key in PACE:
            yield NEUTRAL, f"the feed `{name}` is asked at another pace: {said}"
        elif key == "retention_ms" and isinstance(before, int) and isinstance(after, int):
            longer = after > before
            what = "a longer silence" if longer else "a shorter silence"
            yield WIDENS if longer else NARROWS, f"{what} of the feed `{name}` is no gap: {said}"
        elif key == "members" and isinstance(before, dict) and isinstance(after, dict):
            fewer = before.items() >= after.items()
            more = after.items() >= before.items()
            direction = WIDENS if fewer else NARROWS if more else MAY_WIDEN
            yield direction, f"the feed `{name}` is heard on {'more' if fewer else 'other'} subjects: {said}"
        else:
            yield MAY_WIDEN, f"the feed `{name}` comes from elsewhere or is trusted otherwise: {said}"


def _shown(key: str, value: Any) -> Any:
    return span(value) if key.endswith("_ms") and isinstance(value, int) else value


def register(old: dict[str, Any], new: dict[str, Any]) -> Told:
    """What stands at the top of the register."""
    before, after = old.get("strict_reviews"), new.get("strict_reviews")
    if before and not after:
        yield "strict_reviews", MAY_WIDEN, "a contract whose review is past loads, with a warning"
    elif after and not before:
        yield "strict_reviews", NARROWS, "a contract whose review is past is an error"


# ---- routes -----------------------------------------------------------------------------------------------

TIERS: Final = ("coarse", "runtime", "jit", "approval")
"""From the weakest guard to the strongest."""
LEVELS: Final = ("low", "medium", "high")
OVERLAPS: Final = 200_000
"""Pairs of routes that are compared for overlap: above it a removed route is said to widen, perhaps."""
_ROUTE_PLACE: Final = ("route", "line")


def routes(old: list[Entry], new: list[Entry]) -> Told:
    """From requests to actions."""
    before, after = _by(old, "match"), _by(new, "match")
    gone: list[Entry] = []
    for match in sorted(before.keys() | after.keys()):
        olds, news = _without_common(before.get(match, []), after.get(match, []))
        while olds and news:
            was = olds.pop()
            same = next((at for at, now in enumerate(news) if now["action"] == was["action"]), 0)
            yield from _of(match, _route_changed(was, news.pop(same)))
        for route in news:
            yield (
                match,
                WIDENS,
                f"requests `{match}` are decided, as `{route['action']}` of tier `{route['tier']}`",
            )
            if route.get("enforce") is False:
                yield (
                    match,
                    WIDENS,
                    f"what would be denied at `{match}` is only recorded, and let pass: its enforce is `false`",
                )
        gone += olds
    for route in gone:
        match = route["match"]
        if len(gone) * len(new) > OVERLAPS or any(_may_overlap(match, other["match"]) for other in new):
            yield (
                match,
                MAY_WIDEN,
                f"requests `{match}` are no longer `{route['action']}`: another route may take them",
            )
        else:
            yield match, NARROWS, f"requests `{match}` are denied: the route to `{route['action']}` is gone"


def _without_common(olds: list[Entry], news: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    def said(route: Entry) -> Entry:
        return {key: value for key, value in route.items() if key not in _ROUTE_PLACE}

    left = [*news]
    kept = []
    for old in olds:
        at = next((at for at, new in enumerate(left) if said(new) == said(old)), None)
        if at is None:
            kept.append(old)
        else:
            left.pop(at)
    return kept, left


def _route_changed(old: Entry, new: Entry) -> Said:
    match, told = new["match"], False
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if key in (*_ROUTE_PLACE, "match", "definition_sha256") or before == after:
            continue
        told = True
        said = f"its {key} {was_is(before, after)}"
        if key == "tier":
            weaker = _rank(TIERS, after) < _rank(TIERS, before)
            yield (
                WIDENS if weaker else NARROWS,
                f"`{match}` is guarded {'less' if weaker else 'more'} closely: {said}",
            )
        elif key == "enforce":
            what = "is denied again" if after else "is only recorded, and let pass,"
            yield NARROWS if after else WIDENS, f"what would be denied at `{match}` {what}: {said}"
        elif key == "grant_required":
            what = "needs" if after else "no longer needs"
            yield NARROWS if after else WIDENS, f"`{match}` {what} a grant of a task: {said}"
        elif key == "sensitivity":
            lower = _rank(LEVELS, after) < _rank(LEVELS, before)
            what = "less" if lower else "more"
            yield MAY_WIDEN, f"`{match}` is held to be {what} sensitive: {said}"
        elif key == "action":
            yield MAY_WIDEN, f"requests `{match}` are decided by policies of another action: {said}"
        elif key == "environment":
            if before is None:
                yield NARROWS, f"`{match}` denies principals of other environments: {said}"
            elif after is None:
                yield WIDENS, f"`{match}` takes principals of every environment: {said}"
            else:
                yield MAY_WIDEN, f"`{match}` takes principals of another environment: {said}"
        elif key == "facts":
            yield MAY_WIDEN, f"`{match}` tells policies other facts: {said}"
        else:
            yield MAY_WIDEN, f"requests `{match}` mean something else: {said}"
    if not told:
        yield (
            MAY_WIDEN,
            f"requests `{match}` are matched or read in another way: its match, resource or args changed",
        )


def _rank(words: tuple[str, ...], word: str | None) -> int:
    return words.index(word) if word in words else len(words)


_PARAMETER: Final = re.compile(r"\{[^}]*\}")


def _may_overlap(one: str, other: str) -> bool:
    """Whether a request could match both. True in doubt: `METHODS HOST/PATH`, as `describe` writes it."""
    try:
        methods, hosts, paths = zip(*(_pieces(match) for match in (one, other)), strict=True)
    except ValueError:
        return True
    if methods[0] and methods[1] and not methods[0] & methods[1]:
        return False
    if not any("*" in host for host in hosts) and hosts[0] != hosts[1]:
        return False
    return _paths_overlap(*paths)


def _pieces(match: str) -> tuple[set[str], str, list[str]]:
    # Which message of MCP is left aside: in doubt, two routes of one path overlap.
    methods, _, rest = match.partition(" (")[0].rpartition(" ")
    host, _, path = rest.partition("/")
    named_methods = set() if methods == "any method" else set(methods.split(", "))
    return named_methods, host, path.split("/")


def _paths_overlap(one: list[str], other: list[str]) -> bool:
    for a, b in zip(one, other, strict=False):
        if a.startswith("{*") or b.startswith("{*"):
            return True
        if a != b and not _PARAMETER.search(a) and not _PARAMETER.search(b):
            return False
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    return len(one) == len(other) or longer[len(shorter)].startswith("{*")


# ---- policies ---------------------------------------------------------------------------------------------


def policies(old: list[Entry], new: list[Entry]) -> Told:
    """By name; one that only stands elsewhere is none that changed."""
    before, after = _by(old, "id"), _by(new, "id")
    gone = {name: entries for name, entries in before.items() if name not in after}
    come = {name: entries for name, entries in after.items() if name not in before}
    _forget_moved(gone, come)
    for name, entries in sorted(come.items()):
        for policy in entries:
            yield from _of(name, _policy(policy, added=True))
    for name, entries in sorted(gone.items()):
        for policy in entries:
            yield from _of(name, _policy(policy, added=False))
    for name in sorted(before.keys() & after.keys()):
        yield from _of(name, _policy_changed(before[name], after[name]))


LANGUAGES: Final = {"Cedar": ".cedar", "Rego": ".rego"}
"""Of policies, by the ending of their files: whoever has files is asked, and all who are asked must permit."""


def languages(old: dict[str, str], new: dict[str, str]) -> Told:
    """A language that is asked no more leaves to the others alone what it denied. `old`, `new`: the files."""
    before, after = _asked(old), _asked(new)
    for language in sorted(before - after) if after else ():
        said = f"policies in {language} are no longer asked: what others permit is allowed"
        yield language, MAY_WIDEN, said


def _asked(files: Iterable[str]) -> set[str]:
    """Languages of which there is a file, if only one without a policy: that denies all."""
    return {
        language for language, ending in LANGUAGES.items() if any(file.endswith(ending) for file in files)
    }


def _says(policy: Entry) -> tuple[Any, ...]:
    return policy["text_sha256"], policy.get("effect"), policy.get("mode")


def _forget_moved(gone: dict[str, list[Entry]], come: dict[str, list[Entry]]) -> None:
    """A policy without `@id` is named by its place: the same text at another place is the same policy."""
    texts: dict[tuple[Any, ...], list[str]] = {}
    for name, entries in come.items():
        for policy in entries:
            texts.setdefault(_says(policy), []).append(name)
    for name, entries in [*gone.items()]:
        for policy in [*entries]:
            if names := texts.get(_says(policy)):
                other = names.pop()
                come[other] = [p for p in come[other] if _says(p) != _says(policy)]
                entries.remove(policy)
        if not entries:
            del gone[name]


def _watches(policy: Entry) -> bool:
    return policy.get("mode") == "observe"


def _policy(policy: Entry, *, added: bool) -> Said:
    name, effect = policy["id"], policy.get("effect")
    reads = f", it reads {named(policy['signals'])}" if policy.get("signals") else ""
    what = "is new" if added else "is gone"
    if _watches(policy):
        yield NEUTRAL, f"`{name}` {what}, which is only observed{reads}"
    elif not added and policy.get("engine", "cedar") != "cedar":
        # Not a permit among others: beside another language it denied whatever it did not permit.
        yield MAY_WIDEN, f"`{name}` {what}: it permits no longer, nor denies what others permit{reads}"
    elif effect == "permit":
        says = "allows what it permits" if added else "no longer allows what it permitted"
        yield WIDENS if added else NARROWS, f"`{name}` {what} and {says}{reads}"
    elif effect == "forbid":
        says = "denies what it forbids" if added else "no longer denies what it forbade"
        yield NARROWS if added else WIDENS, f"`{name}` {what} and {says}{reads}"
    else:
        yield MAY_WIDEN, f"`{name}` {what}{reads}"


def _policy_changed(olds: list[Entry], news: list[Entry]) -> Said:
    if [_says(p) for p in olds] == [_says(p) for p in news]:
        return
    if len(olds) != 1 or len(news) != 1:
        yield MAY_WIDEN, f"the policies named `{news[0]['id']}` changed"
        return
    (old,), (new,) = olds, news
    name, effects = new["id"], (old.get("effect"), new.get("effect"))
    if _watches(old) and _watches(new):
        yield NEUTRAL, f"`{name}` has another text and is only observed, as before"
    elif _watches(old) or _watches(new):
        counts = _watches(old)
        permit = effects[counts] == "permit"
        what = "counts from now on" if counts else "no longer counts and is only observed"
        yield WIDENS if permit == counts else NARROWS, f"`{name}` {what}, a {effects[counts]}"
    elif effects[0] != effects[1]:
        yield WIDENS if effects[1] == "permit" else NARROWS, f"`{name}` {was_is(*effects)}"
    else:
        more, less = set(new["signals"]) - set(old["signals"]), set(old["signals"]) - set(new["signals"])
        reads = f", it now reads {named(more)}" if more else ""
        reads += f", it no longer reads {named(less)}" if less else ""
        yield MAY_WIDEN, f"the {effects[1] or 'policy'} `{name}` has another text{reads}"


def entities(old: dict[str, str], new: dict[str, str]) -> Told:
    """Files of which only the content is known to have changed, by their digests."""
    for file in ("entities.json", "entities.cedarschema"):
        if old.get(file) != new.get(file):
            yield file, MAY_WIDEN, f"`{file}` changed: who and what there is, and of which groups they are"
    for file in sorted(name for name in old.keys() | new.keys() if name.endswith(DESCRIPTORS)):
        if old.get(file) != new.get(file):
            yield file, MAY_WIDEN, f"`{file}` changed: what policies see of bodies of gRPC"


# ---- settings ---------------------------------------------------------------------------------------------


def clients(old: list[Entry], new: list[Entry]) -> Told:
    """Who may call the admin API. One id may have two entries while its token is rotated."""
    before, after = _by(old, "id"), _by(new, "id")
    for name in sorted(before.keys() | after.keys()):
        yield from _of(name, _client(name, before.get(name, []), after.get(name, [])))


def _client(name: str, olds: list[Entry], news: list[Entry]) -> Said:
    before, after = _rights(olds), _rights(news)
    more, less = after - before, before - after
    if more:
        yield WIDENS, f"`{name}` may {named(more)}"
    if less:
        yield NARROWS, f"`{name}` may no longer {named(less)}"
    if not olds or not news:
        return
    tokens = [{entry.get("token_sha256"): entry for entry in entries} for entries in (olds, news)]
    if tokens[1].keys() - tokens[0].keys():
        yield MAY_WIDEN, f"`{name}` has another token"
    if tokens[0].keys() - tokens[1].keys():
        yield NARROWS, f"a token of `{name}` is no longer good"
    for token in tokens[0].keys() & tokens[1].keys():
        yield from _token(name, tokens[0][token], tokens[1][token], told=more | less)


def _token(name: str, old: Entry, new: Entry, told: set[str]) -> Said:
    """One entry of a client. `told`: rights that the client as a whole has got or lost."""
    before, after = _rights([old]), _rights([new])
    if more := after - before - told:
        yield WIDENS, f"another token of `{name}` may {named(more)}"
    if less := before - after - told:
        yield NARROWS, f"a token of `{name}` may no longer {named(less)}"
    subjects = [set(entry.get("subjects") or ()) for entry in (old, new)]
    if asks := subjects[1] - subjects[0]:
        yield WIDENS, f"`{name}` may ask about {named(asks)}"
    if asks := subjects[0] - subjects[1]:
        yield NARROWS, f"`{name}` may no longer ask about {named(asks)}"
    was, now = old.get("expires"), new.get("expires")
    if was != now:
        # None at all: for ever.
        later = now is None or (was is not None and str(now) > str(was))
        when = "later" if later else "sooner"
        yield WIDENS if later else NARROWS, f"a token of `{name}` ends {when}: {was_is(was, now)}"


def _rights(entries: Iterable[Entry]) -> set[str]:
    return {right for entry in entries for right in entry["may"]}


HARMLESS: Final = frozenset(
    {
        *("watch", "state", "keys", "listen.front", "listen.threads", "decision_log.path"),
        "authzen.policy_decision_point",
        *("signals.max_rate", "signals.max_live", "decision_log.influence"),
        *("decision_log.rotate_bytes", "decision_log.keep_files"),
    }
)
"""Settings that change nobody's access."""


MEMBERS: Final = ("tls.check_clients",)
"""Lists of those who may do something."""
STRICTER_ON: Final = ("principals.require_record", "identity.require_certificate")
"""Switches that deny more when they are on."""
LIMITS: Final = "identity.limits."
WAITS: Final = ("tasks.", "approvals.", "overrides.")
"""What is granted for a time, or by other people."""


def _longer(was: Any, now: Any) -> bool:
    """Whether a limit lets more through; none at all lets everything."""
    return now is None or (was is not None and span_s(now) > span_s(was))


def _of_waits(word: str, was: Any, now: Any) -> Direction:
    """How long what is granted lasts, how far it is handed on, and how many must say yes. One that was not there, or is
    gone, stands beside a default that is not looked up here."""
    if word in ("max_open", "retention"):
        return NEUTRAL
    if was is None or now is None:
        return MAY_WIDEN
    if word == "need":
        return NARROWS if now > was else WIDENS
    if word == "max_depth":
        return WIDENS if now > was else NARROWS
    if word in ("ttl", "max_ttl", "idle"):
        return WIDENS if _longer(was, now) else NARROWS
    return MAY_WIDEN


def settings(old: dict[str, Any], new: dict[str, Any]) -> Told:
    """The rest of `signalwarden.yaml`. A setting that is not known here is never taken for harmless."""
    before, after = dict(_flat(old)), dict(_flat(new))
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if key == "clients" or was == now:
            continue
        if key == "federates_with":
            domains = [set(value or ()) for value in (was, now)]
            if more := domains[1] - domains[0]:
                yield key, WIDENS, f"principals of {named(more)} are accepted"
            if less := domains[0] - domains[1]:
                yield key, NARROWS, f"principals of {named(less)} are no longer accepted"
        elif key in MEMBERS:
            members = [set(value or ()) for value in (was, now)]
            if more := members[1] - members[0]:
                yield key, WIDENS, f"`{key}` names {named(more)} as well"
            if less := members[0] - members[1]:
                yield key, NARROWS, f"`{key}` no longer names {named(less)}"
        elif key in STRICTER_ON:
            yield key, NARROWS if now else WIDENS, f"the setting `{key}` {was_is(was, now)}"
        elif key.startswith(LIMITS):
            yield key, WIDENS if _longer(was, now) else NARROWS, f"the limit `{key}` {was_is(was, now)}"
        elif key.startswith(WAITS):
            yield key, _of_waits(key.rpartition(".")[2], was, now), f"the setting `{key}` {was_is(was, now)}"
        elif key == "trust_domain":
            yield key, MAY_WIDEN, f"principals of another trust domain are accepted: it {was_is(was, now)}"
        else:
            yield key, NEUTRAL if key in HARMLESS else MAY_WIDEN, f"the setting `{key}` {was_is(was, now)}"


def _flat(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield path + key, value


def _by(entries: Iterable[Entry], key: str) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry[key], []).append(entry)
    return found
