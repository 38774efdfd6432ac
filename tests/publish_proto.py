"""`signalwarden.v1` for tests: its messages, made from a description that a test holds against the published file."""

from __future__ import annotations

import importlib
import types
from typing import Any, Final

__all__ = ["FIELDS", "modules", "request", "response", "signal"]

PACKAGE: Final = "signalwarden.v1"

# The package has no types.
descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2 = (
    importlib.import_module(f"google.protobuf.{name}")
    for name in ("descriptor_pb2", "descriptor_pool", "message_factory", "timestamp_pb2")
)

# Message: (name, type or message, number, repeated, oneof)
FIELDS: Final[dict[str, list[tuple[str, str, int, bool, bool]]]] = {
    "PublishRequest": [("signals", "Signal", 1, True, False)],
    "Signal": [
        ("name", "string", 1, False, False),
        ("subject", "string", 2, False, False),
        ("bool_value", "bool", 3, False, True),
        ("long_value", "sint64", 4, False, True),
        ("text_value", "string", 5, False, True),
        ("set_value", "StringSet", 6, False, True),
        ("observed_at", "google.protobuf.Timestamp", 7, False, False),
    ],
    "StringSet": [("members", "string", 1, True, False)],
    "PublishResponse": [("accepted", "uint32", 1, False, False), ("rejected", "Rejection", 2, True, False)],
    "Rejection": [
        ("index", "uint32", 1, False, False),
        ("reason", "string", 2, False, False),
        ("detail", "string", 3, False, False),
    ],
}


def _file() -> Any:
    proto = descriptor_pb2.FileDescriptorProto(
        name="signalwarden/v1/signals.proto",
        package=PACKAGE,
        syntax="proto3",
        dependency=[timestamp_pb2.DESCRIPTOR.name],
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in FIELDS.items():
        message = proto.message_type.add(name=name)
        if any(field[4] for field in fields):
            message.oneof_decl.add(name="value")
        for field, kind, number, repeated, oneof in fields:
            added = message.field.add(name=field, number=number)
            added.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in FIELDS or "." in kind:
                added.type = kinds.TYPE_MESSAGE
                added.type_name = f".{kind}" if "." in kind else f".{PACKAGE}.{kind}"
            else:
                added.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
            if oneof:
                added.oneof_index = 0
    return proto


def _messages() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(_file().SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in FIELDS
    }


_MESSAGES: Final = _messages()


def signal(name: str, subject: str, value: object, observed_at_us: int) -> Any:
    """A signal; the member of the oneof is that of the value's type."""
    message = _MESSAGES["Signal"](name=name, subject=subject)
    match value:
        case bool():
            message.bool_value = value
        case int():
            message.long_value = value
        case str():
            message.text_value = value
        case list():
            message.set_value.members.extend(value)
    message.observed_at.seconds, micros = divmod(observed_at_us, 1_000_000)
    message.observed_at.nanos = micros * 1_000
    return message


def request(*signals: Any) -> bytes:
    """A PublishRequest, serialised."""
    return bytes(_MESSAGES["PublishRequest"](signals=signals).SerializeToString())


def response(content: bytes) -> dict[str, Any]:
    """A PublishResponse, as the JSON of POST /v1/signals has it."""
    message = _MESSAGES["PublishResponse"].FromString(content)
    rejected = [{"index": r.index, "reason": r.reason, "detail": r.detail} for r in message.rejected]
    return {"accepted": message.accepted, "rejected": rejected}


def modules() -> tuple[Any, Any]:
    """What protoc would make of the published file, as far as a publisher needs it: messages, and the stub."""

    class Stub:
        def __init__(self, channel: Any) -> None:
            self.Publish = channel.stream_stream(
                f"/{PACKAGE}.Signals/Publish",
                request_serializer=_MESSAGES["PublishRequest"].SerializeToString,
                response_deserializer=_MESSAGES["PublishResponse"].FromString,
            )

    messages, stubs = types.ModuleType("signals_pb2"), types.ModuleType("signals_pb2_grpc")
    vars(messages).update(_MESSAGES)
    vars(stubs).update(SignalsStub=Stub)
    return messages, stubs
