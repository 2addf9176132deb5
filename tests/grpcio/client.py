"""Calls tonic_thumbnailer with grpcio and checks the spans that it exports. See run."""

import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import threading

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp

METHOD = "thumbs.v1.Thumbnailer/"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
SERVER = 2  # SPAN_KIND_SERVER
UNSET = 0  # STATUS_CODE_UNSET


class Collector:
    """Keeps the spans that it receives over OTLP/gRPC."""

    def __init__(self):
        self.spans = []
        self.changed = threading.Condition()
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        handler = grpc.unary_unary_rpc_method_handler(
            self.export,
            otlp.ExportTraceServiceRequest.FromString,
            otlp.ExportTraceServiceResponse.SerializeToString,
        )
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, {"Export": handler})]
        )
        self.port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.server = server

    def export(self, request, _):
        with self.changed:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self.spans.extend(scope.spans)
            self.changed.notify_all()
        return otlp.ExportTraceServiceResponse()

    def roots(self):
        return [span for span in self.spans if span.kind == SERVER]

    def wait_for_roots(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.roots()) >= count, 60), self.spans
            return sorted(self.roots(), key=lambda span: span.start_time_unix_nano)


def varint(number):
    encoded = b""
    while number > 127:
        encoded += bytes([number & 127 | 128])
        number >>= 7
    return encoded + bytes([number])


def request(source, *widths):
    """ResizeRequest, or ResizeManyRequest for several widths: both have these two fields."""
    packed = b"".join(map(varint, widths))
    width = b"\x12" + varint(len(packed)) + packed if len(widths) > 1 else b"\x10" + packed
    return b"\x0a" + varint(len(source)) + source + width


def attributes(span):
    return {
        pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes
    }


def refused(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    raise AssertionError("the call must fail")


def main(example):
    collector = Collector()
    environment = {key: value for key, value in os.environ.items() if "OTEL" not in key}
    environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    server = subprocess.Popen(
        [example, "--port", "0"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        address = re.search(r"http://(\S+)", server.stdout.readline()).group(1)
        check(address, collector)
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
    print("grpcio: all calls and spans as they should be")


def check(address, collector):
    with open("examples/image_proxy/images/chelsea.png", "rb") as file:
        source = file.read()
    channel = grpc.insecure_channel(address)
    unary = channel.unary_unary(f"/{METHOD}Resize")
    stream = channel.unary_stream(f"/{METHOD}ResizeMany")
    unknown = channel.unary_unary(f"/{METHOD}Invented")

    parent = (("traceparent", f"00-{TRACE}-{SPAN}-01"),)
    assert b"\xff\xd8\xff" in unary(request(source, 100), metadata=parent)
    assert len(list(stream(request(source, 10, 20, 30)))) == 3

    leaves = stream(request(source, *[10] * 100_000))
    next(leaves)
    leaves.cancel()
    late = stream(request(source, *[10] * 100_000), timeout=2)
    assert refused(lambda: list(late)) == grpc.StatusCode.DEADLINE_EXCEEDED
    assert refused(lambda: unary(request(source, 0))) == grpc.StatusCode.INVALID_ARGUMENT
    assert refused(lambda: unknown(b"")) == grpc.StatusCode.UNIMPLEMENTED

    # In the order in which they began.
    expected = [
        ("Resize", "OK", False),
        ("ResizeMany", "OK", False),
        ("ResizeMany", "CANCELLED", True),
        ("ResizeMany", "CANCELLED", True),
        ("Resize", "INVALID_ARGUMENT", False),
    ]
    *known, invented = collector.wait_for_roots(len(expected) + 1)
    for span, (method, code, cancelled) in zip(known, expected, strict=True):
        found = attributes(span)
        assert span.name == found["rpc.method"] == METHOD + method, span
        assert found["rpc.system.name"] == "grpc", span
        assert found["rpc.response.status_code"] == code, span
        assert ("image.request.cancelled" in found) == cancelled, span
        assert span.status.code == UNSET and "error.type" not in found, span
        assert found["network.peer.address"] == "127.0.0.1", span
        assert "client.address" not in found, span
    assert (known[0].trace_id.hex(), known[0].parent_span_id.hex()) == (TRACE, SPAN)

    found = attributes(invented)
    assert invented.name == "grpc" and found["rpc.method"] == "_OTHER", invented
    assert found["rpc.method_original"] == METHOD + "Invented", invented
    assert found["error.type"] == "UNIMPLEMENTED", invented


main(sys.argv[1])
