"""A gRPC server and a client of it, in one file: `grpc_calls.py serve PORT` and `grpc_calls.py call ADDRESS`."""

import sys
import time
from concurrent import futures

import grpc

NAME = "test.Echo"


class Echo(grpc.GenericRpcHandler):
    """Methods over bytes: no code has to be made from a description first."""

    def service(self, details):
        def check(request, context):
            # HealthCheckRequest and HealthCheckResponse of grpc.health.v1: the service in one, SERVING in the other.
            if request != b"\x0a" + bytes([len(NAME)]) + NAME.encode():
                context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
            return b"\x08\x01"

        if details.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(check)

        def unary(request, context):
            told = dict(context.invocation_metadata())
            context.set_trailing_metadata((("x-told", told.get("x-say", "")),))
            return request

        def fails(request, context):
            context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: %")

        def slow(request, context):
            time.sleep(5)
            return request

        def many(request, context):
            for n in range(int(request)):
                yield b"%d" % n

        def total(requests, context):
            return b"%d" % sum(len(request) for request in requests)

        def talk(requests, context):
            for request in requests:
                yield b"echo " + request

        methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Fails": grpc.unary_unary_rpc_method_handler(fails),
            "Slow": grpc.unary_unary_rpc_method_handler(slow),
            "Many": grpc.unary_stream_rpc_method_handler(many),
            "Total": grpc.stream_unary_rpc_method_handler(total),
            "Talk": grpc.stream_stream_rpc_method_handler(talk),
        }
        service, method = details.method.strip("/").split("/")
        return methods.get(method) if service == NAME else None


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), handlers=[Echo()])
    server.add_insecure_port("127.0.0.1:" + port)
    server.start()
    server.wait_for_termination()


def status(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("it did not fail")


def call(address, authority=None):
    if authority:
        with open(authority, "rb") as file:
            trust = grpc.ssl_channel_credentials(file.read())
        options = [("grpc.ssl_target_name_override", "app.example")]
        channel = grpc.secure_channel(address, trust, options)
    else:
        channel = grpc.insecure_channel(address)
    path = "/" + NAME + "/"

    unary = channel.unary_unary(path + "Unary")
    for size in (0, 1, 100_000, 3_000_000):
        assert unary(b"x" * size, timeout=20) == b"x" * size, size
    answer, made = unary.with_call(b"x", metadata=(("x-say", "hello"),), timeout=20)
    assert ("x-told", "hello") in tuple(made.trailing_metadata()), made.trailing_metadata()

    code, details = status(lambda: channel.unary_unary(path + "Fails")(b"x", timeout=20))
    assert (code, details) == (grpc.StatusCode.NOT_FOUND, "no such thing: %"), (code, details)
    code, _ = status(lambda: channel.unary_unary(path + "None")(b"x", timeout=20))
    assert code == grpc.StatusCode.UNIMPLEMENTED, code
    # What the gateway answers by itself.
    code, details = status(lambda: channel.unary_unary(path + "Denied")(b"x", timeout=20))
    assert (code, details) == (grpc.StatusCode.PERMISSION_DENIED, "403 Forbidden"), (code, details)
    started = time.monotonic()
    code, _ = status(lambda: channel.unary_unary(path + "Slow")(b"x", timeout=0.5))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() - started < 4, code

    many = channel.unary_stream(path + "Many")(b"5000", timeout=20)
    assert [int(one) for one in many] == list(range(5000))
    total = channel.stream_unary(path + "Total")
    assert total((b"x" * 1000 for _ in range(3000)), timeout=20) == b"3000000"

    # Each message is sent when the answer to the one before has come.

    def say():
        yield b"0"
        for n in range(1, 200):
            while len(answers) < n:
                time.sleep(0.001)
            yield b"%d" % n

    answers = []
    for answer in channel.stream_stream(path + "Talk")(say(), timeout=20):
        answers.append(answer)
    assert answers == [b"echo %d" % n for n in range(200)], answers[:5]

    # A stream that the client gives up.
    endless = channel.unary_stream(path + "Many")(b"100000000", timeout=20)
    next(endless)
    endless.cancel()
    assert unary(b"after", timeout=20) == b"after"

    # Many at once on one connection.
    calls = [unary.future(b"%d" % n, timeout=20) for n in range(500)]
    assert [call.result() for call in calls] == [b"%d" % n for n in range(500)]
    print("ok")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        call(*sys.argv[2:])
