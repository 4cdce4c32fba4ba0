"""The Container Storage Interface for Python: its messages, servers for its services, calls to them.

CSI is a gRPC interface. A file, csi.proto, says which services there are, which methods each has, and what goes in and comes out. The
usual way is to generate Python code from it, and that code then fits one generation of the protobuf library. Here is instead
what the protobuf compiler understood of the file, csi.binpb, and classes are made of it when the program starts. That needs no
generated code, and works with the library of any year. It was made so, from CSI v1.13.0 and k8s.io/kubelet v0.36.3:

    protoc --descriptor_set_out=csi.binpb csi.proto pluginregistration.proto

In use:

    class Node:
        @needs("volume_id")
        def NodeUnstageVolume(self, request):        # a protobuf message comes in
            ...
            return {}                                # what goes out is written as a dictionary

    serve(Path("/csi/csi.sock"), Node())
    call(Path("/csi/csi.sock"), "Node/NodeGetInfo")
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf import timestamp_pb2 as _timestamp  # noqa: F401  (csi.proto builds on this one
from google.protobuf import wrappers_pb2 as _wrappers  # noqa: F401  and on this one)
from google.protobuf.json_format import MessageToDict, ParseDict

Message = Any
Method = Callable[[Any, Message], dict[str, Any] | None]

PACKAGES = {"Identity": "csi.v1", "Controller": "csi.v1", "Node": "csi.v1", "Registration": "pluginregistration"}
POOL = descriptor_pool.Default()
for _file in descriptor_pb2.FileDescriptorSet.FromString(Path(__file__).with_name("csi.binpb").read_bytes()).file:
    POOL.AddSerializedFile(_file.SerializeToString())


class Refused(Exception):
    """An answer that is no: one of gRPC's codes, and why."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code, self.why = code, why


def needs(*fields: str) -> Callable[[Method], Method]:
    """A method that cannot do without these fields. An empty one is the caller's mistake, and is told so."""

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def checked(self: Any, request: Message) -> dict[str, Any] | None:
            filled = {field.name for field, _ in request.ListFields()}
            if missing := [field for field in fields if field not in filled]:
                raise Refused("INVALID_ARGUMENT", f"{', '.join(missing)} must not be empty")
            return method(self, request)

        return checked

    return decorate


class Busy:
    """One call at a time for each volume. A second one is not kept waiting: it gets ABORTED, and its caller comes again."""

    def __init__(self) -> None:
        self.guard, self.names = threading.Lock(), set[str]()

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        with self.guard:
            if name in self.names:
                raise Refused("ABORTED", f"another call is at work on {name}")
            self.names.add(name)
        try:
            yield
        finally:
            with self.guard:
                self.names.discard(name)


BUSY = Busy()
CONCERNS = ("name", "volume_id", "source_volume_id", "snapshot_id")  # the fields that name what a call works on


def serve(path: Path, *services: object, door: str = "") -> grpc.Server:
    """Answer at a Unix socket. Methods that an object does not have are answered UNIMPLEMENTED, by gRPC itself."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    for service in services:
        described = _service(type(service).__name__)
        methods = {each.name: _handler(service, each, door) for each in described.methods if hasattr(service, each.name)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(described.full_name, methods)])
    path.unlink(missing_ok=True)  # a process that was killed leaves its socket behind
    server.add_insecure_port(f"unix:{path}")
    server.start()
    return server


def call(path: Path, method: str, request: dict[str, Any] | None = None, timeout: float = 60) -> dict[str, Any]:
    """Call "Service/Method" at a socket. Raises `Refused` when the answer is no."""
    service, _, name = method.partition("/")
    described = _service(service)
    goes_in, comes_out = _message(described.methods_by_name[name].input_type), _message(described.methods_by_name[name].output_type)
    with grpc.insecure_channel(f"unix:{path}") as channel:
        ask = channel.unary_unary(
            f"/{described.full_name}/{name}", request_serializer=goes_in.SerializeToString, response_deserializer=comes_out.FromString
        )
        try:
            answer = ask(ParseDict(request or {}, goes_in()), timeout=timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            raise Refused(error.code().name, error.details()) from None
    return as_dict(answer)


def as_dict(message: Message) -> dict[str, Any]:
    return dict(MessageToDict(message, preserving_proto_field_name=True))


def word(message: Message, field: str) -> str:
    """The name of an enum's value."""
    return str(message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number[getattr(message, field)].name)


def _handler(service: object, method: Any, door: str) -> Any:
    goes_in, comes_out = _message(method.input_type), _message(method.output_type)

    def answer(request: Message, context: grpc.ServicerContext) -> Message:
        concerns = sorted({getattr(request, field) for field in CONCERNS if hasattr(request, field)} - {""})
        told = {
            "at": datetime.now(UTC).isoformat(),
            "door": door,
            "method": f"{type(service).__name__}/{method.name}",
            "concerns": concerns,
        }
        begin, code, why = time.monotonic(), "OK", ""
        _die_if_told(method.name)
        try:
            with ExitStack() as stack:
                for name in concerns:
                    stack.enter_context(BUSY.alone(name))
                return ParseDict(getattr(service, method.name)(request) or {}, comes_out())
        except Refused as refused:
            code, why = refused.code, refused.why
        except Exception as error:
            code, why = "INTERNAL", f"{type(error).__name__}: {error}"
        finally:
            seconds = round(time.monotonic() - begin, 4)
            print(json.dumps({**told, "seconds": seconds, "code": code, "why": why}), flush=True)
        return context.abort(grpc.StatusCode[code], why)

    return grpc.unary_unary_rpc_method_handler(answer, goes_in.FromString, comes_out.SerializeToString)


def _die_if_told(method: str) -> None:
    """For experiments: the process is gone at once when it is called, if a file names the method; one time. No hand is as fast."""
    told = Path("/run/die-at")
    if told.exists() and told.read_text().strip() == method:
        told.unlink()
        os._exit(137)  # nothing is cleaned up, as with kill -9, from which a container's first process is safe inside of it


def _service(name: str) -> Any:
    return POOL.FindServiceByName(f"{PACKAGES[name]}.{name}")


def _message(described: Any) -> Any:
    """The class of a message. protobuf 4 has a function for it, and protobuf 3 had another one."""
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(described)
    return message_factory.MessageFactory(POOL).GetPrototype(described)


def main() -> None:
    """At a terminal: python3 -m csi.protocol SOCKET Service/Method ['{"field": …}']"""
    path, method, *rest = sys.argv[1:]
    try:
        print(json.dumps(call(Path(path), method, json.loads(rest[0]) if rest else {}), indent=2))
    except Refused as refused:
        sys.exit(str(refused))


if __name__ == "__main__":
    main()
