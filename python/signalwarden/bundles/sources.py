"""The source of a trust domain's own bundle, as the settings name it: a file, or an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from signalwarden.bundles.endpoints import EndpointSource, Profile, SpiffeProfile, WebProfile
from signalwarden.bundles.files import FileSource

if TYPE_CHECKING:
    from pathlib import Path

    from signalwarden.bundles.held import Tell
    from signalwarden.identity_settings import BundleSettings

__all__ = ["BundleSource", "Spec", "spec"]


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    refresh_s: float | None

    def source(self, domain: str, tell: Tell) -> FileSource:
        return FileSource(domain, self.path, tell, refresh_s=self.refresh_s)


@dataclass(frozen=True, slots=True)
class _Endpoint:
    url: str
    profile: Profile
    refresh_s: float | None

    def source(self, domain: str, tell: Tell) -> EndpointSource:
        return EndpointSource(domain, self.url, self.profile, tell, refresh_s=self.refresh_s)


Spec = _File | _Endpoint
"""What the settings say of a source: where they say the same again, it goes on undisturbed."""
BundleSource = FileSource | EndpointSource


def spec(directory: Path, entry: BundleSettings) -> Spec:
    """Of one entry of `bundles`."""
    if entry.file is not None:
        return _File(directory / entry.file, entry.refresh)
    if entry.endpoint is None:
        raise ValueError("a bundle without `file` and `endpoint`, which the settings refuse")
    if entry.spiffe_id is not None and entry.bootstrap is not None:
        profile: Profile = SpiffeProfile(entry.spiffe_id, directory / entry.bootstrap)
    else:
        profile = WebProfile(None if entry.ca_file is None else directory / entry.ca_file)
    return _Endpoint(entry.endpoint, profile, entry.refresh)
