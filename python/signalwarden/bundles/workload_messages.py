"""The messages of the SPIFFE Workload API that we exchange, described here and made when this is first imported.

They stand in a pool of their own: the published file has no package, so that in the process's pool its names would
collide with any other copy of it.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

__all__ = [
    "FETCH_JWT_BUNDLES",
    "FETCH_X509_BUNDLES",
    "FETCH_X509_SVID",
    "MESSAGES",
    "METADATA",
    "RESPONSES",
]

METADATA: Final = (("workload.spiffe.io", "true"),)
"""Without it the endpoint refuses a call (SPIFFE Workload Endpoint, section 3): a browser can't be made to send it."""
FETCH_X509_SVID: Final = "/SpiffeWorkloadAPI/FetchX509SVID"
FETCH_X509_BUNDLES: Final = "/SpiffeWorkloadAPI/FetchX509Bundles"
FETCH_JWT_BUNDLES: Final = "/SpiffeWorkloadAPI/FetchJWTBundles"

# Message: (field, kind, number). `map`: from text to bytes.
_FIELDS: Final[dict[str, tuple[tuple[str, str, int], ...]]] = {
    "X509SVIDResponse": (("svids", "X509SVID", 1), ("federated_bundles", "map", 3)),
    "X509SVID": (
        ("spiffe_id", "string", 1),
        ("x509_svid", "bytes", 2),
        ("x509_svid_key", "bytes", 3),
        ("bundle", "bytes", 4),
        ("hint", "string", 5),
    ),
    "X509BundlesResponse": (("bundles", "map", 2),),
    "JWTBundlesResponse": (("bundles", "map", 1),),
}


def _messages() -> dict[str, Any]:
    # The package has no types.
    descriptor_pb2, descriptor_pool, message_factory = (
        importlib.import_module(f"google.protobuf.{name}")
        for name in ("descriptor_pb2", "descriptor_pool", "message_factory")
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="workload.proto", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, kind, number in fields:
            added = message.field.add(name=field, number=number, label=kinds.LABEL_OPTIONAL)
            if kind == "map":
                entry = "".join(part.capitalize() for part in field.split("_")) + "Entry"
                pair = message.nested_type.add(name=entry)
                pair.options.map_entry = True
                pair.field.add(name="key", number=1, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_STRING)
                pair.field.add(name="value", number=2, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_BYTES)
                added.label, added.type, added.type_name = (
                    kinds.LABEL_REPEATED,
                    kinds.TYPE_MESSAGE,
                    f".{name}.{entry}",
                )
            elif kind in _FIELDS:
                added.label, added.type, added.type_name = (
                    kinds.LABEL_REPEATED,
                    kinds.TYPE_MESSAGE,
                    f".{kind}",
                )
            else:
                added.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in _FIELDS}


MESSAGES: Final = _messages()
"""Classes of protobuf by name."""
RESPONSES: Final = {
    FETCH_X509_SVID: MESSAGES["X509SVIDResponse"],
    FETCH_X509_BUNDLES: MESSAGES["X509BundlesResponse"],
    FETCH_JWT_BUNDLES: MESSAGES["JWTBundlesResponse"],
}
"""What each stream yields. All requests are empty."""
