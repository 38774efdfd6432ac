"""A decision log with its tree, written without a server: what tests tamper with."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from signalwarden.decision_log import FileSink, Recorder, log_files, uuid7
from signalwarden.decision_log.integrity.log_keys import LogKeys, log_name, public_keys
from signalwarden.decision_log.integrity.merkle import leaf_hash
from signalwarden.decision_log.integrity.places import tree_directory
from signalwarden.decision_log.integrity.tree import Tree
from signalwarden.decision_log.integrity.verify import Report, claims_of, verify

AT = 1_795_000_000_123_456
DOMAIN = "prod.example"


class Noted:
    """Takes change records, as the engine does, and keeps them."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def note(self, line: bytes) -> bool:
        self.records.append(orjson.loads(line))
        return True

    def of(self, change: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["change"] == change]


def lines(numbers: Iterable[int]) -> list[bytes]:
    """Records as far as this part of the house looks into them."""
    return [
        orjson.dumps({"v": 1, "kind": "decision", "decision_id": uuid7(AT, n.to_bytes(8, "big")), "n": n})
        for n in numbers
    ]


def leaves_of(batch: bytes) -> bytes:
    """What the core gives with these lines."""
    return b"".join(leaf_hash(line) for line in batch.splitlines())


class SealedLog:
    """Writer's side of a log: the file, then its tree."""

    def __init__(
        self,
        folder: Path,
        *,
        rotate_bytes: int = 1 << 30,
        keep_files: int = 100,
        every_s: float = 0.0,
        first: int = 0,
        clock: Callable[[], int] = lambda: AT,
    ) -> None:
        self.path = folder / "decisions.jsonl"
        self.keys = folder / "keys" / "log"
        self.name = log_name(DOMAIN, self.path)
        self._options: dict[str, Any] = {"rotate_bytes": rotate_bytes, "keep_files": keep_files}
        self._every_s = every_s
        self._clock = clock
        self._count = itertools.count(first)
        self.noted = Noted()
        self.start()

    def start(self) -> None:
        """As the server does."""
        self.sink = FileSink(self.path, **self._options)
        keys = LogKeys(self.keys, self.name, tree=tree_directory(self.path), clock=self._clock)
        self.tree = Tree(
            self.path,
            keys,
            Recorder(self.noted, self._clock),
            name=self.name,
            every_s=self._every_s,
            place=self.sink.place,
            clock=self._clock,
        )

    def write(self, count: int) -> None:
        """A batch, synced."""
        batch = b"".join(line + b"\n" for line in lines(itertools.islice(self._count, count)))
        self.sink.write(batch)
        self.tree.took(len(batch), leaves_of(batch))
        self.sink.sync()
        self.tree.synced()

    def settle(self) -> None:
        """Waits until all that was taken is signed, without a stop."""
        end = time.monotonic() + 10
        while self.tree.numbers()["log_tree_sealed"] < self.tree.numbers()["log_tree_size"]:
            assert time.monotonic() < end
            self.tree.synced()
            time.sleep(0.005)

    def stop(self) -> None:
        """An orderly one: all is signed."""
        self.sink.close()
        self.tree.stop()

    def crash(self) -> None:
        """What was not signed yet is not; the thread goes on with nothing to do."""
        self.sink.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def verify(self, **options: Any) -> Report:
        """As `signalwarden log verify` does on the machine of the log."""
        given = {
            "given": public_keys(self.keys, self.name),
            "older": claims_of(self.keys, self.name),
            **options,
        }
        return verify(self.path, name=self.name, **given)

    def checkpoint(self, epoch: int = 1) -> bytes:
        return (tree_directory(self.path) / str(epoch) / "checkpoint").read_bytes()

    @property
    def files(self) -> list[Path]:
        return log_files(self.path)


def copied(source: Path, target: Path) -> Path:
    """A folder as it is now."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    return target


def rewrite(file: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Changes lines of a file, and nothing else of it."""
    status = file.stat()
    kept = file.read_bytes().split(b"\n")
    assert kept.pop() == b""
    file.write_bytes(b"".join(line + b"\n" for line in change(kept)))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
