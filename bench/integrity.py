"""What the tree over the decision log costs the writer, a record, and how fast `log verify` reads: both in one process,
round by round with and without the tree, in processor time of the thread that does it.

    .venv/bin/python bench/integrity.py --records 200000 --json
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # run as a script, `bench` is not found otherwise

import orjson

from bench import figures
from bench.stage import BenchError
from signalwarden.decision_log import FileSink, Recorder, now_us, uuid7
from signalwarden.decision_log.integrity.log_keys import LogKeys, log_name
from signalwarden.decision_log.integrity.merkle import leaf_hash
from signalwarden.decision_log.integrity.places import tree_directory
from signalwarden.decision_log.integrity.tree import Tree
from signalwarden.decision_log.integrity.verify import verify

BATCH: Final = 1_000
RECORD_BYTES: Final = 1_100
"""As a record with twelve signals has."""


class _Deaf:
    """Takes change records, and forgets them."""

    def note(self, line: bytes) -> bool:
        return bool(line)


def _batch(number: int) -> bytes:
    at = now_us()
    lines = []
    for n in range(BATCH):
        record = {"v": 1, "kind": "decision", "decision_id": uuid7(at), "n": number * BATCH + n, "pad": ""}
        record["pad"] = "x" * (RECORD_BYTES - len(orjson.dumps(record)))
        lines.append(orjson.dumps(record) + b"\n")
    return b"".join(lines)


def _written(folder: Path, batches: list[tuple[bytes, bytes]], *, sealed: bool) -> tuple[float, float, int]:
    """Processor time a record of the writer's thread, and of the whole process, with its disk; and checkpoints."""
    path = folder / "decisions.jsonl"
    sink = FileSink(path, rotate_bytes=100_000_000, keep_files=1_000)
    tree = None
    if sealed:
        name = log_name("prod.example", path)
        keys = LogKeys(folder / "keys", name, tree=tree_directory(path), clock=now_us)
        tree = Tree(
            path, keys, Recorder(_Deaf(), now_us), name=name, every_s=1.0, place=sink.place, clock=now_us
        )
    mine, all_of_it = time.thread_time(), time.process_time()
    for batch, hashes in batches:
        sink.write(batch)
        if tree is not None:
            tree.took(len(batch), hashes)
        sink.sync()
        if tree is not None:
            tree.synced()
    spent = time.thread_time() - mine
    sink.close()
    while tree is not None and tree.numbers()["log_tree_sealed"] < len(batches) * BATCH:
        tree.synced()
        time.sleep(0.01)
    if tree is not None:
        tree.stop()
    records = len(batches) * BATCH
    whole = time.process_time() - all_of_it
    kept = folder / "decisions.tree/1/checkpoints.jsonl"
    return spent / records * 1e6, whole / records * 1e6, len(kept.read_bytes().splitlines()) if sealed else 0


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    _, said = figures.opened()
    # Hashes come with the lines, from the core: `log_way.py` has what they cost.
    made = [_batch(n) for n in range(max(1, arguments.records // BATCH))]
    batches = [(batch, b"".join(map(leaf_hash, batch.splitlines()))) for batch in made]
    with_tree, without, whole_with, whole_without, rates, mega = [], [], [], [], [], []
    with tempfile.TemporaryDirectory(prefix="signalwarden-bench-") as folder:
        for turn in range(arguments.rounds):
            bare, sealed = Path(folder) / f"bare{turn}", Path(folder) / f"sealed{turn}"
            spent, whole, _ = _written(bare, batches, sealed=False)
            without.append(spent)
            whole_without.append(whole)
            spent, whole, said["checkpoints"] = _written(sealed, batches, sealed=True)
            with_tree.append(spent)
            whole_with.append(whole)
            path = sealed / "decisions.jsonl"
            name = log_name("prod.example", path)
            keys = LogKeys(sealed / "keys", name, tree=tree_directory(path), clock=now_us).verifiers
            began = time.process_time()
            report = verify(path, name=name, given=keys)
            spent = time.process_time() - began
            if not report.good or report.trees[0].agreed != len(batches) * BATCH:
                said["wrong"].append(
                    f"round {turn}: {report.trees[0].agreed} records agree, {report.findings}"
                )
            rates.append(report.lines / spent)
            mega.append(sum(map(len, made)) / spent / 1e6)
            tree_bytes = sum(f.stat().st_size for f in tree_directory(path).rglob("*") if f.is_file())
    if not rates:
        raise BenchError("no round was run")
    middle = statistics.median
    return said | {
        "records": len(batches) * BATCH,
        "rounds": arguments.rounds,
        "record_bytes": RECORD_BYTES,
        "writer_us": {"without": middle(without), "with": middle(with_tree)},
        "writer_extra_us": middle([a - b for a, b in zip(with_tree, without, strict=True)]),
        "process_extra_us": middle([a - b for a, b in zip(whole_with, whole_without, strict=True)]),
        "tree_bytes_a_record": tree_bytes / (len(batches) * BATCH),
        "verify_lines_a_cpu_second": round(middle(rates)),
        "verify_megabytes_a_cpu_second": round(middle(mega)),
    }


def _said(found: dict[str, Any]) -> list[str]:
    writer = found["writer_us"]
    lines, mega = found["verify_lines_a_cpu_second"], found["verify_megabytes_a_cpu_second"]
    cost = f"writer: {writer['without']:.2f} µs a record without the tree, {writer['with']:.2f} with it"
    return [
        figures.headline(found),
        f"{found['records']:,} records of {found['record_bytes']} bytes, {found['rounds']} rounds, medians",
        f"{cost}: {found['writer_extra_us']:.2f} more; with tiles and checkpoints {found['process_extra_us']:.2f}",
        f"tree on disk: {found['tree_bytes_a_record']:.1f} bytes a record",
        f"verify: {lines:,} lines a CPU second ({mega} MB)",
        *found["wrong"],
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    sys.exit(figures.run(parser.parse_args(), _measure, _said))
