"""Grants as tokens: who signs them, with which keys, for how long those are published, and what is never signed."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest

from signalwarden.errors import BadInputError, KeysError
from signalwarden.task_settings import LONGEST_TASK_S
from signalwarden.tokens.grants import MAX_GRANT_BYTES, MAX_KEYS, PUBLISHED_US, ROTATE_US, Signer

ISSUER = "spiffe://prod.example/signalwarden"
NOW_US = 1_795_500_000_000_000


class Clock:
    """A time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_us = NOW_US

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def clock() -> Clock:
    return Clock()


def signer(directory: Path, clock: Clock) -> Signer:
    return Signer(directory / "grants", issuer=ISSUER, clock=clock)


def part(grant: bytes, number: int) -> dict[str, Any]:
    text = grant.decode().split(".")[number]
    content: dict[str, Any] = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return content


def published(of: Signer) -> list[str]:
    return [key["kid"] for key in json.loads(of.jwks())["keys"]]


def files(directory: Path) -> list[Path]:
    return sorted((directory / "grants").iterdir())


def test_the_issuer_is_ours_whatever_the_claims_say(tmp_path: Path, clock: Clock) -> None:
    grant = signer(tmp_path, clock).sign(
        b'{"sub":"spiffe://prod.example/agent","iss":"https://evil.example","aud":"x"}'
    )
    assert part(grant, 1) == {"sub": "spiffe://prod.example/agent", "iss": ISSUER, "aud": ISSUER}


def test_a_key_is_private_and_outlives_a_restart(tmp_path: Path, clock: Clock) -> None:
    before = published(signer(tmp_path, clock))
    (file,) = files(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert published(signer(tmp_path, clock)) == before


def test_only_public_halves_are_published(tmp_path: Path, clock: Clock) -> None:
    (key,) = json.loads(signer(tmp_path, clock).jwks())["keys"]
    assert key.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}


def test_a_new_key_signs_after_a_week_and_the_old_one_stays_until_its_last_grant_has_ended(
    tmp_path: Path, clock: Clock
) -> None:
    of = signer(tmp_path, clock)
    (first,) = published(of)
    clock.now_us += ROTATE_US - 1
    assert part(of.sign(b"{}"), 0)["kid"] == first
    last_grant_us = clock.now_us
    clock.now_us += 1
    second = part(of.sign(b"{}"), 0)["kid"]
    assert published(of) == [second, first]
    clock.now_us = last_grant_us + round(LONGEST_TASK_S * 1_000_000)
    assert published(of) == [second, first]
    clock.now_us = NOW_US + PUBLISHED_US
    assert published(of) == [second]
    assert len(files(tmp_path)) == 1, "its private half is gone, too"
    assert published(signer(tmp_path, clock)) == [second]


def test_a_key_that_can_not_be_replaced_signs_on(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = signer(tmp_path, clock)
    (first,) = published(of)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("signalwarden.keys.sync_directory", full)
        broken.setattr("signalwarden.keys.open_private", full)
        clock.now_us += ROTATE_US
        assert part(of.sign(b"{}"), 0)["kid"] == first
        assert published(of) == [first]
        with pytest.raises(KeysError, match="no space left"):
            signer(tmp_path / "other", clock)
    assert published(of)[1:] == [first]


def test_a_grant_that_fits_no_header_is_not_signed(tmp_path: Path, clock: Clock) -> None:
    of = signer(tmp_path, clock)
    with pytest.raises(BadInputError, match="name fewer `actions` and `resources`"):
        of.sign(json.dumps({"resources": "a" * MAX_GRANT_BYTES}).encode())


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\n", b"a" * 5_000])
def test_a_file_that_is_no_key_stops_the_start_and_stands_in_no_message(
    tmp_path: Path, clock: Clock, content: bytes
) -> None:
    signer(tmp_path, clock)
    (file,) = files(tmp_path)
    file.write_bytes(content)
    with pytest.raises(KeysError, match="is no private key of P-256"):
        signer(tmp_path, clock)


def test_a_key_that_others_may_read_stops_the_start(tmp_path: Path, clock: Clock) -> None:
    signer(tmp_path, clock)
    (file,) = files(tmp_path)
    file.chmod(0o640)
    with pytest.raises(KeysError, match="can be read by other users"):
        signer(tmp_path, clock)


def test_a_directory_full_of_keys_is_not_read(tmp_path: Path, clock: Clock) -> None:
    signer(tmp_path, clock)
    (file,) = files(tmp_path)
    for number in range(MAX_KEYS):
        file.with_name(f"{number}.pem").write_bytes(file.read_bytes())
    with pytest.raises(KeysError, match=f"expected at most {MAX_KEYS}"):
        signer(tmp_path, clock)
