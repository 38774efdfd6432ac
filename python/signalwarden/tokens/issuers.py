"""From the settings to whoever validates: key sets and status lists that are kept fresh, and a validator with them.

What is kept here tells the core its state by `Engine.set_authority`, so that a key that is gone counts at the next
request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from signalwarden.identity_settings import IdentitySettings, IssuerSettings, KeySource
from signalwarden.keysets import Fetch, KeySet, file_reader, url_reader
from signalwarden.tokens.jwt_svid import Bundles
from signalwarden.tokens.status import StatusLists, Tell
from signalwarden.tokens.terms import SVID_ALGORITHMS, Limits, PrincipalTemplate, Terms, TokenClass, Way
from signalwarden.tokens.validate import NO_BUNDLES, Entry, Validator

__all__ = ["Issuers", "svid_terms"]


class Issuers:
    """The issuers of one configuration, and what is known of their keys and lists."""

    def __init__(
        self,
        identity: IdentitySettings,
        *,
        root: Path,
        fetch: Fetch,
        tell: Tell,
        bundles: Bundles | None = None,
    ) -> None:
        """`root`: the directory that paths of the settings start from. Nothing is fetched before `start`."""
        self.identity = identity
        """The settings that it follows."""
        self._root = root
        self._fetch = fetch
        self._tell = tell
        self._bundles = bundles
        self._key_sets: dict[str, tuple[KeySource, KeySet]] = {}
        self._lists: list[StatusLists] = []
        self._entries: dict[tuple[str, TokenClass], Entry] = {}
        for settings in identity.oauth if "oauth" in identity.sources else ():
            entry = self._entry(settings)
            self._entries[settings.issuer, entry.terms.token_class] = entry

    def validator(self, ways: Mapping[str, Sequence[Way]], accepted: frozenset[str]) -> Validator:
        """`ways`: the claims that contracts ask for, by issuer or trust domain. `accepted`: the trust domains that are
        ours or federated."""
        svids = None
        if self.identity.jwt_svid is not None and "jwt_svid" in self.identity.sources:
            svids = svid_terms(self.identity)
        return Validator(svids, self._entries, self._bundles or NO_BUNDLES, ways, accepted)

    def start(self) -> None:
        """Fetches all sets, and keeps them fresh."""
        for authority, (_, keys) in self._key_sets.items():
            keys.keep(self._teller(authority), name=authority)
        for lists in self._lists:
            lists.start()

    def authorities(self) -> frozenset[str]:
        """The names of what its tokens rest on; status lists have names of their own."""
        return frozenset(self._key_sets)

    def stop(self, *, but: frozenset[str] = frozenset()) -> None:
        """Ends what `start` began, and withdraws lists and keys, `but` for those keys that others keep fresh from now
        on: they start after this, so that the last word is theirs."""
        for lists in self._lists:
            lists.stop()
        for authority, (_, keys) in self._key_sets.items():
            keys.stop()
            if authority not in but:
                self._tell(authority, ())

    def faults(self) -> dict[str, str]:
        """Why key sets and status lists can't be had, by authority."""
        found = {name: keys.last_error for name, (_, keys) in self._key_sets.items() if keys.last_error}
        for lists in self._lists:
            found |= {f"status:{uri}": why for uri, why in lists.faults().items()}
        return found

    def _teller(self, authority: str) -> Callable[[Sequence[str]], None]:
        def tell(members: Sequence[str]) -> None:
            self._tell(authority, members)

        return tell

    def _entry(self, settings: IssuerSettings) -> Entry:
        token_class = TokenClass(settings.token_class)
        authority, keys = self._key_set(settings.keys, f"keys:{settings.issuer}", settings.token_class)
        statuses = self._statuses(settings)
        template = settings.principal
        terms = Terms(
            token_class=token_class,
            issuer=settings.issuer,
            audiences=frozenset(settings.audience),
            algorithms=frozenset(settings.algorithms),
            digest=settings.terms(),
            principal=None if template is None else PrincipalTemplate.parse(template, settings.within),
            must_be_bound=settings.binding == "required",
            limits=Limits(*getattr(self.identity.limits, settings.token_class).micros()),
            authority=authority,
            has_status=statuses is not None,
        )
        return Entry(terms, keys, statuses, settings.header_name)

    def _statuses(self, settings: IssuerSettings) -> StatusLists | None:
        listed = settings.status_list
        if listed is None:
            return None
        authority, keys = self._key_set(listed.keys, f"status-keys:{settings.issuer}", settings.token_class)
        lists = StatusLists(
            uris=listed.uris,
            keys=keys,
            keys_authority=authority,
            algorithms=frozenset(settings.algorithms),
            fetch=self._fetch,
            tell=self._tell,
            ca_file=self._path(listed.ca_file),
        )
        self._lists.append(lists)
        return lists

    def _key_set(self, source: KeySource, authority: str, token_class: str) -> tuple[str, KeySet]:
        """One set for one source. Two classes of an issuer whose keys come from two places have two authorities."""
        known = self._key_sets.get(authority)
        if known is not None and known[0] != source:
            authority = f"{authority} ({token_class})"
            known = self._key_sets.get(authority)
        if known is None:
            file, ca_file = self._path(source.file), self._path(source.ca_file)
            fetched = url_reader(source.url or "", self._fetch, ca_file=ca_file)
            read = fetched if file is None else file_reader(file)
            known = self._key_sets[authority] = (source, KeySet(read, refresh_s=source.refresh))
        return authority, known[1]

    def _path(self, name: str | None) -> Path | None:
        return None if name is None else self._root / name


def svid_terms(identity: IdentitySettings, audiences: Sequence[str] | None = None) -> Terms:
    """What JWT-SVIDs are held against; for another door, those made for other audiences."""
    settings = identity.jwt_svid
    names = audiences or (settings.audience if settings is not None else ())
    return Terms(
        token_class=TokenClass.JWT_SVID,
        issuer=None,
        audiences=frozenset(names),
        algorithms=SVID_ALGORITHMS,
        digest=settings.terms() if settings is not None else "",
        limits=Limits(*identity.limits.jwt_svid.micros()),
    )
