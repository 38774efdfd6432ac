"""`keys`: a key is made once, whole and private, and anything else is refused."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from signalwarden.errors import KeysError
from signalwarden.keys import DIGEST_KEY, KEY_BYTES, digest_key


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = digest_key(tmp_path / "keys")
    assert len(key) == KEY_BYTES
    assert digest_key(tmp_path / "keys") == key
    assert digest_key(tmp_path / "others") != key
    assert [entry.name for entry in (tmp_path / "keys").iterdir()] == [DIGEST_KEY]
    assert stat.S_IMODE((tmp_path / "keys" / DIGEST_KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    digest_key(tmp_path)
    (tmp_path / DIGEST_KEY).chmod(0o640)
    with pytest.raises(KeysError, match="other users"):
        digest_key(tmp_path)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * (KEY_BYTES + 1)])
def test_a_key_of_the_wrong_length_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / DIGEST_KEY
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeysError, match="32 bytes"):
        digest_key(tmp_path)


def test_a_key_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(KeysError) as caught:
        digest_key(tmp_path / "keys")
    assert len(str(caught.value).splitlines()) == 1
