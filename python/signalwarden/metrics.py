"""Prometheus metrics, read from the core's counters when asked: nothing is counted twice, or on the answer's path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from signalwarden.families import labelled
from signalwarden.tallies import Tallies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["Metrics"]

# The prefix of a counter of the core or the app, and the label that the rest of its name becomes.
FAMILIES: Final = (
    ("decisions_", "decisions", "reason", "decisions by reason; `allowed` is the only allow"),
    ("signals_rejected_", "signals_rejected", "reason", "published signals that were refused, by reason"),
    ("transport_", "transport_refused", "event", "calls that never reached a decision; behind under load"),
    (
        "authzen_",
        "authzen_evaluations",
        "result",
        "questions of other enforcement points; `refused`: about a workload that the client may not ask about",
    ),
    ("reloads_", "reloads", "result", "reloads of the directory by result"),
    ("tokens_refused_", "tokens_refused", "reason", "tokens refused on first sight; `unseen` without a look"),
    ("feed_batches_", "feed_batches", "feed", "batches that a feed has carried to the core"),
    ("feed_failures_", "feed_failures", "feed", "times that a feed could not be read or kept"),
    ("ssf_accepted_", "ssf_accepted", "feed", "security events that were taken"),
    ("ssf_ignored_", "ssf_ignored", "feed", "security events that say nothing new about a signal"),
    ("ssf_duplicate_", "ssf_duplicates", "feed", "security events that came again"),
    ("ssf_unprocessed_", "ssf_unprocessed", "feed", "security events that no value could be made of"),
    (
        "ssf_refused_",
        "ssf_refused",
        "code",
        "security event tokens that were refused, by the code of RFC 8935",
    ),
    ("sink_taken_", "sink_taken", "sink", "records that a further sink of the log has taken"),
    ("sink_failures_", "sink_failures", "sink", "batches that a sink did not take"),
    ("sink_refused_", "sink_refused", "sink", "records that a sink has refused for good"),
    ("sink_lost_", "sink_lost", "sink", "records that were pruned before a sink took them"),
)
# As FAMILIES, for numbers that also fall.
GAUGE_FAMILIES: Final = (
    (
        "feed_last_success_timestamp_seconds_",
        "feed_last_success_timestamp_seconds",
        "feed",
        "when a feed last did all that it is there for, in seconds since 1970; 0 before the first time",
    ),
    ("sink_healthy_", "sink_healthy", "sink", "1 while a sink takes records"),
    ("sink_lag_records_", "sink_lag_records", "sink", "records of the log that a sink has not taken"),
    ("sink_lag_seconds_", "sink_lag_seconds", "sink", "age of the oldest record that a sink is being sent"),
)
COUNTERS: Final = {
    "log_refused": "decisions whose record the log refused, answered with log_unavailable",
    "unenforced": "decisions that deny and were let pass, since the route says `enforce: false`",
    "panics": "panics in the core, each answered with engine_error",
    "signals_accepted": "published signals that were taken",
    "log_folded": "denials that another one's line in the decision log stands for",
    "log_written": "lines written to the decision log",
    "log_written_bytes": "bytes written to the decision log",
    "log_rotations": "files of the decision log that were full and rotated",
    "log_failures": "failed writes and syncs of the decision log",
    "log_tree_failures": "failed writes of the tree over the log and its checkpoints",
    "log_notes_refused": "change and transport records that the log refused at first",
    "log_notes_lost": "change and transport records that were lost",
    "clients_refused": "refused calls of the admin API and refused publishers of the signals address",
    "state_failures": "failed writes of the state",
    "intake_groups": "groups of batches that were judged and written together",
    "intake_batches": "batches of publishers and feeds in those groups",
    "tokens_first_sights": "tokens that the core did not know yet",
    "tokens_accepted": "of these, tokens that count",
    "tokens_remembered": "of these, tokens that were refused just before",
    "bundle_updates": "trust bundles that came, or came anew",
    "bundle_withdrawals": "trust bundles that were withdrawn: nobody of their trust domain is known any more",
    "bundle_failures": "times that a trust bundle could not be had or read",
    "decision_streams_slow": "streams of decisions that were ended since their client did not keep up",
    "spans_sent": "spans that the collector of traces took",
    "spans_refused": "spans that it refused for good",
    "spans_failures": "failed calls of the collector of traces",
    "spans_skipped_bytes": "bytes of the decision log that no spans were made of: the collector was away for too long",
    "rate_limited": "batches refused because their publisher sends too much at once",
}
GAUGES: Final = {
    "log_ring_used_bytes": "bytes of the ring that hold records which the decision log does not have for sure",
    "live_signals": "signal values held",
    "tasks": "tasks held, ended ones that are remembered included",
    "approvals": "questions held, answered ones that are remembered included",
    "proofs": "tokens whose evidence is held",
    "tokens_waiting": "calls whose tokens are validated at the moment",
    "live_bundles": "trust domains with a live bundle",
    "overrides": "signals of a subject that two people have overridden",
    "override_proposals": "overrides that wait for a second client",
    "publish_streams": "open streams of publishers on the signals address",
    "decision_streams": "open streams of decisions on the admin address",
    "intake_waiting": "batches that wait to be judged and written",
    "log_queued": "records that wait to be written",
    "log_healthy": "1 while the decision log can be written",
    "log_lag_seconds": "age of the oldest record taken for writing and not yet synced",
    "log_tree_size": "records in the tree over the decision log",
    "log_tree_sealed": "of these, records that its last checkpoint signs",
    "log_tree_broken": "1 if since the start the log was found not to be what was signed",
    "log_checkpoint_age_seconds": "age of the last checkpoint while there are records that it does not sign",
    "log_files": "files of the decision log, the current one included",
    "log_disk_bytes": "bytes that they take",
    "log_disk_free_bytes": "bytes that are left on their disk",
    "spans_healthy": "1 while traces are sent",
    "directory_refused": "1 while the directory holds what was refused, and the last good one goes on",
    "ready": "1 while the directory is loaded and the doors are open",
}
PREFIX: Final = "signalwarden_"


class Metrics(Collector):
    """Turns flat names and numbers into metric families."""

    def __init__(
        self,
        read: Callable[[], Mapping[str, float]],
        revision: Callable[[], str | None],
        tallied: Callable[[], Tallies] = Tallies,
    ) -> None:
        self._read = read
        self._revision = revision
        self._tallied = tallied
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> tuple[bytes, str]:
        """The exposition, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def describe(self) -> Iterable[Metric]:
        """Nothing: families are made when read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every number that the app has; an unknown one is a gauge, so that none is hidden."""
        values = dict(self._read())
        for families, kind in ((FAMILIES, CounterMetricFamily), (GAUGE_FAMILIES, GaugeMetricFamily)):
            for prefix, name, label, text in families:
                family = kind(PREFIX + name, text, labels=[label])
                for key in sorted(key for key in values if key.startswith(prefix)):
                    family.add_metric([key.removeprefix(prefix)], values.pop(key))
                yield family
        for key, value in sorted(values.items()):
            if key in COUNTERS:
                yield CounterMetricFamily(PREFIX + key, COUNTERS[key], value=value)
            else:
                yield GaugeMetricFamily(PREFIX + key, GAUGES.get(key, key.replace("_", " ")), value=value)
        info = GaugeMetricFamily(PREFIX + "configuration", "1; the revision in force", labels=["revision"])
        if (revision := self._revision()) is not None:
            info.add_metric([revision], 1)
        yield info
        yield from labelled(self._tallied())
