"""The OTLP protocol around the requests: signals, JSON, compression, and what an answer means to whoever asked."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Final, Literal, NamedTuple

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

Signal = Literal["traces", "metrics", "logs"]


class Kind(NamedTuple):
    """How requests of a signal are sent and what they are."""

    service: str
    """The full name of its gRPC service, whose one method is `Export`."""
    request: type[Any]
    response: type[Any]


SIGNALS: Final[dict[Signal, Kind]] = {
    "traces": Kind(
        "opentelemetry.proto.collector.trace.v1.TraceService",
        trace_service_pb2.ExportTraceServiceRequest,
        trace_service_pb2.ExportTraceServiceResponse,
    ),
    "metrics": Kind(
        "opentelemetry.proto.collector.metrics.v1.MetricsService",
        metrics_service_pb2.ExportMetricsServiceRequest,
        metrics_service_pb2.ExportMetricsServiceResponse,
    ),
    "logs": Kind(
        "opentelemetry.proto.collector.logs.v1.LogsService",
        logs_service_pb2.ExportLogsServiceRequest,
        logs_service_pb2.ExportLogsServiceResponse,
    ),
}

_MESSAGE_AT_MOST: Final = 300

Outcome = Literal["accepted", "later", "rejected"]

_HTTP: Final = {
    StatusCode.OK: 200,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.RESOURCE_EXHAUSTED: 413,
    StatusCode.UNIMPLEMENTED: 415,
    StatusCode.UNAVAILABLE: 503,
}


class Answer(NamedTuple):
    """What becomes of a request, in terms that both protocols can say.

    A request is `accepted` with the bytes of the service's response, to be sent again `later`, after so many seconds,
    or `rejected` for good.
    """

    code: StatusCode
    message: str = ""
    response: bytes = b""
    after: float | None = None

    @property
    def outcome(self) -> Outcome:
        """In one word."""
        if self.code is StatusCode.OK:
            return "accepted"
        return "rejected" if self.after is None else "later"

    @property
    def http(self) -> int:
        """The HTTP status: 503 tells a client of OTLP to send again."""
        return 503 if self.after is not None else _HTTP.get(self.code, 500)

    @property
    def delay(self) -> int:
        """Whole seconds until the same request may come again."""
        return max(1, round(self.after or 0))

    def status(self) -> Status:
        """As a message, which is the body of a failure on HTTP and its details on gRPC."""
        status = Status(code=self.code.value[0], message=self.message)
        if self.after is not None:
            status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=self.delay)))
        return status


def later(message: str, after: float = 1.0) -> Answer:
    """Nothing is lost if the same request comes again after so many seconds."""
    return Answer(StatusCode.UNAVAILABLE, message, after=after)


class BadRequest(ValueError):  # noqa: N818  as HTTP calls it
    """A body that is not what its headers promise. The message says why."""


class TooLarge(BadRequest):
    """A body that is larger than is taken."""


def decompressed(body: bytes, at_most: int) -> bytes:
    """What was compressed with gzip or zlib, without ever holding more than `at_most` bytes of it.

    Raises BadRequest, or TooLarge.
    """
    whole = bytearray()
    while body:
        # 32: whichever of the two its header says.
        part = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            whole += part.decompress(body, at_most + 1 - len(whole))
        except zlib.error as error:
            raise BadRequest(f"the body cannot be decompressed: {error}") from None
        if len(whole) > at_most:
            raise TooLarge(f"the body has more than {at_most} bytes when it is decompressed")
        if not part.eof:
            raise BadRequest("the body ends in the middle of what is compressed")
        body = part.unused_data
    return bytes(whole)


_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})


def from_json(signal: Signal, body: bytes) -> bytes:
    """A request in OTLP's JSON as one in protobuf. Raises BadRequest."""
    message = SIGNALS[signal].request()
    try:
        document = json.loads(body)
        ids_as_base64(document)
        json_format.ParseDict(document, message, ignore_unknown_fields=True)
        made: bytes = message.SerializeToString()
    except RecursionError:
        raise BadRequest("the JSON is nested too deeply") from None
    except Exception as error:  # noqa: BLE001  the library raises whatever a wrong type happens to lead to
        raise BadRequest(f"the body is no {message.DESCRIPTOR.name} in JSON: {short(error)}") from None
    return made


def ids_as_base64(document: Any) -> None:
    """OTLP writes ids in hexadecimal where protobuf's JSON has base64."""
    waiting = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for key, value in node.items():
                if key in _IDS:
                    node[key] = base64.b64encode(bytes.fromhex(value)).decode()
                elif isinstance(value, (dict, list)):
                    waiting.append(value)
        elif isinstance(node, list):
            waiting.extend(node)


def as_json(message: Any) -> bytes:
    """A response or status in JSON."""
    return json_format.MessageToJson(message, indent=None).encode()


def short(said: object) -> str:
    """What somebody said, on one line and no longer than a message should be."""
    text = " ".join(str(said).split())
    return text if len(text) <= _MESSAGE_AT_MOST else f"{text[:_MESSAGE_AT_MOST]}..."
