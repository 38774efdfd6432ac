"""The service of gRPC that docs/opa-envoy.md shows: its policy, its descriptor set, its messages, a server that keeps what it is sent,
and a client. All is made of the page's own text, so that what the page shows is what is tested."""

from __future__ import annotations

import importlib
import re
import threading
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc

from signalwarden.demo_stage import LOOPBACK
from tests.pages import blocks, section, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "DESCRIPTORS",
    "METHOD",
    "POLICY",
    "STREAMED",
    "Answer",
    "Payments",
    "call",
    "frame",
    "serving",
    "stream",
    "transfer",
]

# The package has no types.
descriptor_pb2, descriptor_pool, message_factory = (
    importlib.import_module(f"google.protobuf.{name}")
    for name in ("descriptor_pb2", "descriptor_pool", "message_factory")
)
PAGE: Final = section(text_of("docs/opa-envoy.md"), "## Bodies of gRPC")
(PROTO,) = blocks(PAGE, "proto")
(POLICY,) = blocks(PAGE, "rego")


def _described(text: str) -> Any:
    """What `protoc --include_imports` makes of a file with messages of plain fields, and services."""
    (package,) = re.findall(r"^package ([\w.]+);$", text, re.MULTILINE)
    file = descriptor_pb2.FileDescriptorProto(name="payments.proto", package=package, syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, body in re.findall(r"^message (\w+) \{\n(.*?)^\}$", text, re.MULTILINE | re.DOTALL):
        message = file.message_type.add(name=name)
        for kind, field_name, number in re.findall(r"(\w+) (\w+) = (\d+);", body):
            first, *more = field_name.split("_")
            message.field.add(
                name=field_name,
                json_name=first + "".join(map(str.capitalize, more)),
                number=int(number),
                label=kinds.LABEL_OPTIONAL,
                type=kinds.Type.Value(f"TYPE_{kind.upper()}"),
            )
    for name, body in re.findall(r"^service (\w+) \{\n(.*?)^\}$", text, re.MULTILINE | re.DOTALL):
        service = file.service.add(name=name)
        for method, streams, asked, answered in re.findall(
            r"rpc (\w+)\((stream )?(\w+)\) returns \((\w+)\);", body
        ):
            service.method.add(
                name=method,
                client_streaming=bool(streams),
                input_type=f".{package}.{asked}",
                output_type=f".{package}.{answered}",
            )
    return descriptor_pb2.FileDescriptorSet(file=[file])


_SET: Final = _described(PROTO)
DESCRIPTORS: Final[bytes] = _SET.SerializeToString()
_POOL: Final = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_SET.file[0].SerializeToString())
_METHOD, _STREAMED = _POOL.FindServiceByName("payments.v1.Payments").methods
_TRANSFER: Final = message_factory.GetMessageClass(_METHOD.input_type)
_RECEIPT: Final = message_factory.GetMessageClass(_METHOD.output_type)


def _path(method: Any) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


METHOD: Final = _path(_METHOD)
STREAMED: Final = _path(_STREAMED)
"""Takes a stream, by the descriptor set."""


def transfer(**fields: object) -> bytes:
    """A message, serialised."""
    return bytes(_TRANSFER(**fields).SerializeToString())


def frame(message: bytes) -> bytes:
    """A message as it stands in the body of a call: not compressed, its length, itself."""
    return b"\0" + len(message).to_bytes(4, "big") + message


@dataclass
class Payments:
    """The server, and all that reached it: a message, with the metadata of its call."""

    port: int = 0
    sent: list[tuple[Any, dict[str, str]]] = field(default_factory=list)

    def send(self, message: Any, context: grpc.ServicerContext) -> Any:
        self.sent.append((message, {name: str(value) for name, value in context.invocation_metadata()}))
        return _RECEIPT(id=f"receipt of {message.cents}")

    def send_all(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
        """Answers the first, without a wait for others."""
        return self.send(next(messages), context)


@contextmanager
def serving() -> Iterator[Payments]:
    """The server, on a free port of the loopback, in plain text: HTTP/2 and nothing else."""
    payments = Payments()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    read, write = _TRANSFER.FromString, _RECEIPT.SerializeToString
    handlers = {
        _METHOD.name: grpc.unary_unary_rpc_method_handler(payments.send, read, write),
        _STREAMED.name: grpc.stream_unary_rpc_method_handler(payments.send_all, read, write),
    }
    service = _METHOD.containing_service.full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    payments.port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    try:
        yield payments
    finally:
        server.stop(1).wait(10)


def stream(
    channel: grpc.Channel, method: str, message: bytes, ended: threading.Event, caller: str = "auditor"
) -> Any:
    """Sends a serialised message and leaves the stream open until it is said to end. Returns what will be the receipt."""

    def messages() -> Iterator[bytes]:
        yield message
        ended.wait(30)

    send = channel.stream_unary(method, request_serializer=bytes, response_deserializer=_RECEIPT.FromString)
    return send.future(messages(), timeout=30, metadata=(("x-caller", caller),))


@dataclass(frozen=True)
class Answer:
    """How a call ended: the receipt's id, or the status with its message and metadata."""

    code: grpc.StatusCode
    text: str
    metadata: dict[str, str]


def call(
    channel: grpc.Channel,
    message: bytes,
    *,
    compression: grpc.Compression | None = None,
    metadata: tuple[tuple[str, str], ...] = (),
) -> Answer:
    """Sends a serialised message, whatever it is."""
    send = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=_RECEIPT.FromString)
    try:
        receipt, done = send.with_call(message, timeout=30, compression=compression, metadata=metadata)
    except grpc.RpcError as error:
        # What grpcio raises is the call, too.
        failed: Any = error
        told = [*(failed.initial_metadata() or ()), *(failed.trailing_metadata() or ())]
        return Answer(failed.code(), failed.details() or "", {name: str(value) for name, value in told})
    told = list(done.initial_metadata() or ())
    return Answer(grpc.StatusCode.OK, receipt.id, {name: str(value) for name, value in told})
