"""The composition root: the only module that wires. Starts everything in order, stops it in reverse.

Whatever changes live state goes one way, through `intake`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from signalwarden import __version__, _core, admin, register, tallies
from signalwarden.answering import Answering
from signalwarden.bundles import Bundles
from signalwarden.clients import Clients
from signalwarden.config import Loaded, Right, Settings
from signalwarden.decision_log import Recorder, now_us, rfc3339, ring_at
from signalwarden.decision_log.service import DecisionLog, Seal
from signalwarden.decisions import Decisions
from signalwarden.desks import Desks
from signalwarden.door_tls import DoorTls
from signalwarden.doors import HttpDoor
from signalwarden.errors import SignalwardenError, sentence
from signalwarden.foreground import Foreground
from signalwarden.front import Unreached
from signalwarden.fronts import front_door
from signalwarden.identity import AdminTokens, Identity, await_svid
from signalwarden.in_force import InForce
from signalwarden.intake import Intake, read_back
from signalwarden.keys import digest_key
from signalwarden.rates import Sampled
from signalwarden.reloads import Reloads, load_still
from signalwarden.services import Client, Readiness
from signalwarden.signals import Seams
from signalwarden.signals.feeds import Feeds
from signalwarden.signals.ssf import Desk
from signalwarden.state import SqliteStore, Store
from signalwarden.timekeeping import TimeKeeper
from signalwarden.tokens.grants import Signer
from signalwarden.traces import traces_of
from signalwarden.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from signalwarden.approvals import Approvals
    from signalwarden.authzen import Authzen
    from signalwarden.declared import View
    from signalwarden.front import Front
    from signalwarden.metrics import Metrics
    from signalwarden.overrides import Overrides
    from signalwarden.publish_door import PublishDoor
    from signalwarden.tasks import Tasks
    from signalwarden.traces.sender import Traces

__all__ = ["App"]

_log = logging.getLogger("signalwarden")

TICK_S: Final = 1.0
"""How often the time mark is kept and transport counts are read: time may run back by this much after a crash."""
SETTLE_TICKS: Final = 5
"""A call whose message has not come in this many ticks never comes: far above Envoy's timeout."""
GRACE_S: Final = 3.0
"""For checks in flight at a stop; a check takes microseconds, so this is for slow networks."""
ADMIN_GRACE_S: Final = 5.0
REFUSALS_A_SECOND: Final = 10
"""Change records of refused clients: more would let a stranger fill the log and deny everyone's requests. The rest
are counted in the next one."""


@dataclass(slots=True)
class _Running:
    """What a started app holds, in the order in which it was opened."""

    reloads: Reloads
    store: Store
    engine: _core.Engine
    intake: Intake
    recorder: Recorder
    log: DecisionLog
    feeds: Feeds
    admin: HttpDoor
    front: Front
    signals: PublishDoor | None
    clients: Clients
    identity: Identity
    desks: Desks
    decisions: Decisions
    traces: Traces | None
    time: TimeKeeper

    @property
    def loaded(self) -> Loaded:
        """The directory in force."""
        return self.reloads.loaded


def _engine(settings: Settings, root: Path, key: bytes) -> _core.Engine:
    log = settings.decision_log
    return _core.Engine(
        influence=log.influence,
        digest_key=key,
        max_live=settings.signals.max_live,
        ring=ring_at(settings.ring_path(root)),
        ring_bytes=log.ring_bytes,
        ack=log.ack,
        patience_ms=log.patience_ms,
        fold_denials=log.fold_denials,
    )


class App:
    """A server for one configuration directory. Implements `services.Services` for the admin API."""

    def __init__(self, directory: Path | str, clock: Callable[[], int] = now_us) -> None:
        self._directory = Path(directory)
        self._clock = clock
        self._tally = threading.Lock()
        self._counts = dict.fromkeys(
            ("clients_refused", "reloads_done", "reloads_refused", "state_failures"), 0
        )
        self._running: _Running | None = None
        self._stack = contextlib.ExitStack()
        self._refusals = Sampled(REFUSALS_A_SECOND)
        self._stop_ticks = threading.Event()
        self._ticker = threading.Thread(target=self._tick_forever, name="ticker", daemon=True)
        self._transport = Unreached()
        self._clients_turned_away = 0
        self._ticks = 0
        self._tallies = tallies.Reader()

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Loads, opens, answers. Raises a SignalwardenError of one or more sentences and leaves nothing open."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._forget)
            self._open(stack)
            self._stack = stack.pop_all()
        self._ticker.start()

    def _forget(self) -> None:
        self._running = None

    def _open(self, stack: contextlib.ExitStack) -> None:
        loaded, declared = load_still(self._directory, self._clock)
        settings, root = loaded.settings, loaded.root
        store = SqliteStore(settings.state_path(root))
        stack.callback(store.close)
        key = digest_key(settings.keys_path(root))
        engine = _engine(settings, root, key)
        stack.callback(engine.release)
        intake = self._intake(engine, store, settings)
        read_back(engine, store, self._clock)
        time = TimeKeeper(engine, intake, clock=self._clock)
        # Before anything is decided: a mark that was cut must not be kept without what it would revive.
        set_back = time.keep()
        stack.callback(time.try_to_keep)
        in_force = InForce(store)
        in_force.admit(loaded, declared)
        engine.swap(loaded.configuration)
        recorder = Recorder(engine, self._clock)
        traces = self._traces(stack, settings, root)  # ends after the log, whose last records have spans, too
        seal = Seal(settings.trust_domain, settings.keys_path(root) / "log", self._clock)
        log = DecisionLog(engine, recorder, settings.decision_log, settings.log_path(root), root, seal)
        stack.callback(log.stop)
        log.start()
        recorder.change("server_started", actor="server", version=__version__)
        if set_back:
            recorder.change("time_set_back", actor="server")
        bundles, identity = self._identity(stack, loaded, engine, recorder)
        feeds = self._feeds(loaded.root, store, engine, intake, recorder)
        stack.callback(feeds.stop)
        reloads = Reloads(
            self._directory,
            loaded,
            in_force=in_force,
            clock=self._clock,
            swap=functools.partial(self._swap, intake, engine, feeds),
            recorder=recorder,
            count=self._count,
            # After the swap: until then nothing counts that only the new settings take.
            on_swapped=[
                lambda loaded, _: bundles.adopt(loaded.settings),
                lambda loaded, _: identity.adopt(loaded),
                lambda _, now: feeds.adopt(now["described"]),
                lambda _, now: self._tallies.learn(now["described"]),
                lambda *_: self._judge_anew(),
            ],
        )
        reloads.record_start(declared)
        tls = DoorTls.of(
            lambda: reloads.loaded.settings, root, bundles=bundles, svids=bundles.svids, revoking=engine
        )
        clients = Clients(
            lambda: reloads.loaded.settings.clients,
            peers=tls.peers if tls else None,
            tokens=AdminTokens(identity, engine, clock=self._clock),
            refused=lambda who, why: self.refused(Client(who, frozenset()) if who else None, None, why),
            clock=self._clock,
            # It does not say when it was issued, and can't be issued anew: its digest alone revokes it.
            revoked=lambda who, digest: engine.is_certificate_revoked(
                subject=who, digest=digest, issued_at_us=self._clock()
            ),
        )
        admin_door = HttpDoor(
            admin.build(self), settings.listen.admin, tls.certificates("admin") if tls else None
        )
        stack.callback(admin_door.stop, ADMIN_GRACE_S)
        decisions = Decisions(lambda: settings.log_path(root))
        stack.callback(decisions.stop)  # before its door, which would wait for streams
        desks = Desks.build(
            *(engine, store, intake, recorder),
            signer=Signer(
                settings.keys_path(root) / "grants",
                issuer=f"spiffe://{settings.trust_domain}/signalwarden",
                clock=self._clock,
            ),
            settings=lambda: reloads.loaded.settings,
            refused=self.refused,
            description=lambda: reloads.loaded.configuration.describe(),  # noqa: PLW0108  # of what is in force then
            clock=self._clock,
        )
        answering = Answering(engine, identity.desk, intake, desks.approvals)
        front = front_door(settings, engine, answering, tls, self._may_ask)
        stack.callback(front.stop, GRACE_S)
        signals = self._signals_door(stack, settings, tls)
        self._running = _Running(
            *(reloads, store, engine, intake, recorder, log, feeds, admin_door, front, signals, clients),
            *(identity, desks, decisions, traces, time),
        )
        feeds.adopt(declared["described"])
        self._tallies.learn(declared["described"])
        admin_door.start()
        if signals is not None:
            signals.start()
        front.start()
        watch = Watch(
            self._directory,
            functools.partial(reloads.follow, "watch"),
            enabled=lambda: reloads.loaded.settings.watch,
        )
        stack.callback(watch.stop)
        watch.start()

    def _swap(self, intake: Intake, engine: _core.Engine, feeds: Feeds, loaded: Loaded, now: View) -> None:
        feeds.prepare(now["described"])
        intake.undisturbed(lambda: engine.swap(loaded.configuration))

    def _identity(
        self, stack: contextlib.ExitStack, loaded: Loaded, engine: _core.Engine, recorder: Recorder
    ) -> tuple[Bundles, Identity]:
        """Bundles and issuers, and our own SVID where doors need it."""
        bundles = Bundles(loaded.root, loaded.settings)
        identity = Identity(loaded.root, engine, bundles, recorder, self._clock)
        stack.callback(identity.stop)
        stack.callback(bundles.stop)
        bundles.start()
        identity.adopt(loaded)
        if loaded.settings.tls.spire:
            await_svid(bundles)
        return bundles, identity

    def _feeds(
        self, root: Path, store: Store, engine: _core.Engine, intake: Intake, recorder: Recorder
    ) -> Feeds:
        return Feeds(
            Seams(
                root,
                self.publish_as,
                lambda: self._clock() / 1e6,
                core=engine,
                keep=intake.keep,
                documents=store,
                change=recorder.change,
            )
        )

    def _traces(self, stack: contextlib.ExitStack, settings: Settings, root: Path) -> Traces | None:
        traces = traces_of(settings.telemetry, root, settings.log_path(root))
        if traces is not None:
            stack.callback(traces.stop)
            traces.start()
        return traces

    def _intake(self, engine: _core.Engine, store: Store, settings: Settings) -> Intake:
        return Intake(
            engine,
            store,
            clock=self._clock,
            max_rate=settings.signals.max_rate,
            on_failure=lambda: self._count("state_failures"),
        )

    def _signals_door(
        self, stack: contextlib.ExitStack, settings: Settings, tls: DoorTls | None
    ) -> PublishDoor | None:
        certificates = tls.certificates("signals") if tls else None
        if tls is None or certificates is None or settings.listen.signals is None:
            return None
        from signalwarden.publish_door import PublishDoor  # gRPC, in memory only where it serves

        door = PublishDoor(self, settings.listen.signals, certificates, tls.peers)
        stack.callback(door.stop, GRACE_S)
        return door

    def _judge_anew(self) -> None:
        if self._running is not None:
            self._running.front.judge_anew()

    def _may_ask(self, spiffe_id: str) -> bool:
        return spiffe_id in self._up().loaded.settings.tls.check_clients

    def stop(self) -> None:
        """Stops in reverse: no new checks, no new signals, the log drained, the state closed. May be called twice.
        Raises LogError if accepted records could not be written."""
        self._stop_ticks.set()
        if self._ticker.ident is not None:
            self._ticker.join(2 * TICK_S + GRACE_S)
        self._stack.close()

    def run_forever(self) -> None:
        """Serves until SIGTERM or SIGINT; SIGHUP reloads. For the main thread."""
        Foreground(self).run()

    def say_started(self) -> None:
        """To the server's own log: what the directory warns of, and where the doors are."""
        running = self._up()
        for warning in running.loaded.warnings:
            _log.warning("%s", sentence(warning))
        signals = f", signals on {running.signals.address}" if running.signals else ""
        _log.info(
            "check on %s, admin on %s%s, decision log %s, revision %.12s",
            running.front.address,
            running.admin.address,
            signals,
            self.decisions_path(),
            running.engine.revision,
        )

    def _up(self) -> _Running:
        if self._running is None:
            raise SignalwardenError("the server is not running")
        return self._running

    @property
    def check_address(self) -> str:
        """Where checks are answered, with the port that the system chose."""
        return str(self._up().front.address)

    @property
    def admin_address(self) -> str:
        """Where the admin API is answered."""
        return str(self._up().admin.address)

    @property
    def signals_address(self) -> str | None:
        """Where publishers are heard over mutual TLS; None if nowhere."""
        return str(signals.address) if (signals := self._up().signals) else None

    # ------------------------------------------------------------ every second

    def _tick_forever(self) -> None:
        while not self._stop_ticks.wait(TICK_S):
            running = self._running
            if running is None:
                continue
            if running.time.try_to_keep():
                running.recorder.change("time_set_back", actor="server")
            running.desks.tick()
            self._watch_transport(running)

    def _watch_transport(self, running: _Running) -> None:
        """One record for the calls that never reached `check` since the last look."""
        self._ticks += 1
        if self._ticks % SETTLE_TICKS:
            return
        now = running.front.counts.settle()
        for event, before, count in zip(now._fields, self._transport, now, strict=True):
            if count > before:
                running.recorder.transport(event, count=count - before)
        self._transport = now
        refusal = running.front.counts.refusals
        if refusal is not None and refusal.count > self._clients_turned_away:
            count = refusal.count - self._clients_turned_away
            self._clients_turned_away = refusal.count
            running.recorder.transport(
                "refused_client", count=count, client=refusal.client, detail=refusal.detail
            )

    # ------------------------------------------------------------ services: changes

    def publish(self, body: bytes, client: Client) -> bytes:
        """See Services."""
        return self._up().intake.publish(body, client.id)

    def publish_as(self, body: bytes, publisher: str) -> bytes:
        """See publish_door.Hosting: the connection says who publishes, the contracts whether that counts."""
        return self._up().intake.publish(body, publisher)

    def welcomes(self, trust_domain: str) -> bool:
        """See publish_door.Hosting."""
        settings = self._up().loaded.settings
        return trust_domain == settings.trust_domain or trust_domain in settings.federates_with

    def refused_peer(self, publisher: str | None, detail: str) -> None:
        """See publish_door.Hosting."""
        self.refused(Client(publisher, frozenset()) if publisher else None, Right.PUBLISH, detail)

    def switch_publisher(self, actor: str, publisher: str, signal: str | None, *, enabled: bool) -> bytes:
        """See Services."""
        return self._up().desks.publishers.switch(actor, publisher, signal, enabled=enabled)

    def publishers(self) -> bytes:
        """See Services."""
        return self._up().desks.publishers.listing()

    def revoke(self, actor: str, body: bytes) -> bytes:
        """See Services."""
        answer = self._up().desks.revocations.revoke(actor, body)
        self._judge_anew()
        return answer

    def revocations(self, limit: int) -> bytes:
        """See Services."""
        return self._up().desks.revocations.listing(limit)

    @property
    def tasks(self) -> Tasks:
        """See Services."""
        return self._up().desks.tasks

    @property
    def approvals(self) -> Approvals:
        """See Services."""
        return self._up().desks.approvals

    @property
    def overrides(self) -> Overrides:
        """See Services."""
        return self._up().desks.overrides

    @property
    def authzen(self) -> Authzen:
        """See Services."""
        return self._up().desks.authzen

    @property
    def decisions(self) -> Decisions:
        """See Services."""
        return self._up().decisions

    def ssf_push(
        self, feed: str, content_type: str | None, body: bytes
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """See Services."""
        answer = self._desk().push(feed, content_type, body)
        return answer.status, answer.body, answer.headers

    def ssf_streams(self) -> bytes:
        """See Services."""
        return self._desk().streams()

    def ssf_resynchronise(self, feed: str, actor: str) -> bool:
        """See Services."""
        known = self._desk().resynchronise(feed, actor)
        if known:
            self._up().recorder.change("stream_resynchronised", actor=actor, feed=feed)
        return known

    def _desk(self) -> Desk:
        running = self._up()
        return Desk(running.feeds, running.engine.feeds)

    def reload(self, actor: str) -> str:
        """See Services."""
        return self._up().reloads.reload(actor)

    # ------------------------------------------------------------ services: clients

    def authenticate(self, token: bytes, chain: bytes = b"") -> Client | None:
        """See Services."""
        return self._up().clients.by_token(token, chain)

    def authenticate_peer(self, chain: bytes) -> Client | None:
        """See Services."""
        return self._up().clients.by_certificate(chain)

    def refused(self, client: Client | None, right: Right | None, detail: str) -> None:
        """See Services."""
        self._count("clients_refused")
        suppressed = self._refusals.take()
        if suppressed is None:
            return
        self._up().recorder.change(
            "client_refused",
            client=client.id if client else None,
            right=right,
            detail=detail,
            suppressed=suppressed,
        )

    # ------------------------------------------------------------ services: reading

    def signals(self, subject: str | None, limit: int) -> bytes:
        """See Services."""
        return self._up().engine.signals(subject=subject, limit=limit, now_us=self._clock())

    def register(self) -> bytes:
        """See Services. Counting subjects walks the store, so this is for people, not for a scrape."""
        running = self._up()
        now = self._clock()
        described = orjson.loads(running.loaded.configuration.describe())
        stats = orjson.loads(running.engine.signal_stats(now_us=now, scan=True))
        return orjson.dumps(register.join(described, stats, time=rfc3339(now)))

    def decisions_path(self) -> str:
        """See Services."""
        loaded = self._up().loaded
        return str(loaded.settings.log_path(loaded.root))

    def readiness(self) -> Readiness:
        """See Services."""
        running = self._running
        if running is None:
            return Readiness(False, {"ready": False, "revision": None})
        doors = {"check": running.front.serving, "admin": running.admin.serving}
        if running.signals is not None:
            doors["signals"] = running.signals.serving
        revision = running.engine.revision
        ready = revision is not None and all(doors.values())
        detail = {
            "ready": ready,
            "revision": revision,
            "doors": doors,
            "log": running.log.detail(),
            "feeds": running.feeds.detail(),
            "identity": running.identity.detail(),
            "last_reload_refused": running.reloads.refused,
            "overrides": running.desks.overrides.detail(),
            "warnings": len(running.loaded.warnings),
            "unenforced": running.loaded.unenforced,
            "ungoverned": running.loaded.ungoverned,
        }
        return Readiness(ready, detail)

    def metrics_text(self) -> tuple[bytes, str]:
        """See Services."""
        return self._metrics.text()

    @functools.cached_property
    def _metrics(self) -> Metrics:
        from signalwarden.metrics import Metrics  # prometheus_client, in memory from the first scrape on

        return Metrics(self._numbers, lambda: self._up().engine.revision, self._tallied)

    def _numbers(self) -> Mapping[str, float]:
        running = self._up()
        with self._tally:
            counts = dict(self._counts)
        return {
            **running.engine.counters(),
            **running.intake.counters(),
            **running.identity.numbers(),
            **running.desks.numbers(),
            **counts,
            **running.feeds.numbers(),
            **self._desk().numbers(),
            **running.log.numbers(),
            **running.decisions.numbers(),
            **(running.traces.numbers() if running.traces else {}),
            **{f"transport_{event}": count for event, count in self._transport._asdict().items()},
            "transport_refused_client": self._clients_turned_away,
            "publish_streams": running.signals.open_streams() if running.signals else 0,
            "directory_refused": int(running.reloads.refused is not None),
            "ready": int(self.readiness().ready),
        }

    def _tallied(self) -> tallies.Tallies:
        running = self._up()
        configuration = running.loaded.configuration
        return self._tallies.read(running.engine, configuration, now_us=self._clock())

    def _count(self, name: str) -> None:
        with self._tally:
            self._counts[name] += 1
