"""signalwarden: an Envoy ext_authz decision point that governs which signals may influence access.

The rooms, each depending only on those before it: `errors`, `config`, then `state`, `decision_log`,
`signals`, then `server` and `admin` (which knows the app by `services`), then `app`, which wires them, then `cli`.
"""

__version__ = "0.1.0"
