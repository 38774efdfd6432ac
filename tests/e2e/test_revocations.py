"""Revoking tokens at a real server: by id, digest, subject and time, from the next request on, and after `kill -9`."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest

from bench import directory, stage, tokens
from signalwarden.admin_client import AdminClient
from signalwarden.config import Address
from signalwarden.errors import ServerError
from signalwarden.server import CHECK_METHOD

TIMEOUT_S = 20.0


class Running:
    """A server, asked as Envoy asks, with a token beside the peer's certificate."""

    def __init__(self, server: stage.Server, channel: grpc.Channel, admin: AdminClient) -> None:
        self.pid = server.pid
        self.admin = admin
        self._ask = channel.unary_unary(CHECK_METHOD, bytes, bytes)

    def decide(self, token: str) -> str:
        """`allowed`, or the reason of the denial."""
        request = tokens.Template.of(token).filled(token)
        answer = bytes(self._ask(request, timeout=TIMEOUT_S))
        return next(reason for reason in ("allowed", "token_invalid") if reason.encode() in answer)

    def revoke(self, **what: str) -> dict[str, Any]:
        revoked: dict[str, Any] = self.admin.revoke({"reason": "INC-7", **what})["revoked"]
        return revoked


@contextmanager
def serving(made: directory.Made) -> Iterator[Running]:
    with (
        stage.served(made, None) as server,
        AdminClient(Address("127.0.0.1", server.admin_port), made.publisher_token) as admin,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        admin.publish(directory.signals_body())
        yield Running(server, channel, admin)


def test_a_client_of_the_admin_api_can_revoke_its_own_token_and_is_out(tmp_path: Path) -> None:
    made, _ = tokens.make(tmp_path)
    with serving(made) as running:
        running.revoke(subject=directory.PUBLISHER)
        assert running.admin.revocations(10)["count"] == 1, "without a time of issue its digest alone counts"
        running.revoke(digest=hashlib.sha256(made.publisher_token.encode()).hexdigest())
        with pytest.raises(ServerError, match="token_refused"):
            running.admin.revocations(10)


def claim(token: str, name: str) -> str:
    return str(jwt.decode(token, options={"verify_signature": False})[name])


@pytest.mark.parametrize("how", ["jti", "digest", "subject", "issued_before"])
def test_a_revoked_token_is_refused_from_the_next_request_on_and_after_a_kill(
    tmp_path: Path, how: str
) -> None:
    made, issuer = tokens.make(tmp_path)
    revoked, other = issuer.token(), issuer.token("RS256")
    what = {
        "jti": {"jti": claim(revoked, "jti"), "issuer": tokens.ISSUER},
        "digest": {"digest": hashlib.sha256(revoked.encode()).hexdigest()},
        "subject": {"subject": claim(revoked, "sub")},
        "issued_before": {"issued_before": datetime.now(UTC).isoformat(), "issuer": tokens.ISSUER},
    }[how]
    alone = how in ("jti", "digest")
    with serving(made) as running:
        assert [running.decide(token) for token in (revoked, other)] == ["allowed", "allowed"]
        in_force = running.revoke(**what)
        assert running.decide(revoked) == "token_invalid"
        assert running.decide(other) == ("allowed" if alone else "token_invalid")
        os.kill(running.pid, signal.SIGKILL)
    with serving(made) as running:
        assert running.decide(revoked) == "token_invalid"
        assert running.decide(other) == ("allowed" if alone else "token_invalid")
        assert running.admin.revocations(10) == {"revocations": [in_force], "count": 1, "truncated": False}
    lines = [json.loads(line) for line in (made.directory / "var/decisions.jsonl").read_bytes().splitlines()]
    details = {line["detail"] for line in lines if line.get("reason") == "token_invalid"}
    assert details == {"the token has been revoked"}
    text = (made.directory / "var/decisions.jsonl").read_text()
    assert revoked not in text
    assert revoked.rpartition(".")[2] not in text
