"""The receiver of OpenID Shared Signals: security events of a transmitter, pushed or polled, become signals.

`set` reads and verifies one token, `subjects` and `events` say whom and what it is about, `stream` does what a SET
asks for, `push` and `poll` are the two ways in which SETs come, `source` makes a feed of it, `desk` knows them all.
"""

from __future__ import annotations

from signalwarden.signals.ssf.desk import Desk
from signalwarden.signals.ssf.source import SSF, SsfSource

__all__ = ["SSF", "Desk", "SsfSource"]
