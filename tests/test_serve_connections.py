"""Connections of clients that pipeline, wish for HTTP/2, stop in the middle, or never stop."""

import contextlib
import time

import pytest
from serving import serving, wait_until, write_form
from test_serve_limits import busy, head_of, read_all, scored

from mgs.scoring.scorer import Scorer
from mgs.serve import middleware
from mgs.serve.limits import Limits
from mgs.serve.run import Address, make_server, stopped_by_signals

GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"


@pytest.fixture(scope="module")
def scorer(own_set):
    return Scorer.zero_shot(str(own_set / "clip.safetensors"), device="cpu")


@pytest.fixture(scope="module")
def image(own_set):
    path = sorted(own_set.glob("**/*.png"))[0]
    return path.name, path.read_bytes()


def test_pipelined_requests_are_answered_in_order_however_their_bytes_come(scorer, image):
    body, kind = write_form([image])
    requests = (
        head_of(len(body), more=f"content-type: {kind}\r\n") + body + GET + b"\r\n" + GET + b"connection: close\r\n\r\n"
    )
    with serving({"x": scorer}) as server:
        for size in (len(requests), 7):
            with server.connect() as connection:
                for i in range(0, len(requests), size):
                    connection.sendall(requests[i : i + size])
                told = read_all(connection)
            assert [told.count(it) for it in (b"HTTP/1.1 200 OK", b'"scores"', b'"status":"ok","rewards"')] == [3, 1, 2]
            assert told.index(b'"scores"') < told.index(b'"rewards"')


def test_a_head_is_whole_wherever_its_last_bytes_are_cut(scorer):
    request = GET + b"connection: close\r\n\r\n"
    with serving({"x": scorer}) as server:
        for cut in (1, 2, 3, 4):
            with server.connect() as connection:
                connection.sendall(request[:-cut])
                time.sleep(0.1)
                connection.sendall(request[-cut:])
                connection.settimeout(5)
                assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_one_who_leaves_behind_pipelined_requests_frees_the_places(scorer, image, caplog):
    body, kind = write_form([image])
    with serving({"x": scorer}) as server, busy(scorer):
        with server.connect() as connection:
            connection.sendall(head_of(len(body), more=f"content-type: {kind}\r\n") + body + GET + b"\r\n")
            wait_until(lambda: server.service.inside == 1)
        wait_until(lambda: server.service.inside == 0)
        wait_until(lambda: not server.service.held)
    assert not caplog.records


@pytest.mark.parametrize("cut", [0, 30, None])
def test_a_wish_for_http2_costs_no_body(scorer, image, cut, caplog):
    """As `curl --http2` and Java's HttpClient send it."""
    body, kind = write_form([image])
    wish = "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n"
    request = head_of(len(body), more=f"{wish}content-type: {kind}\r\n") + body
    with serving({"x": scorer}) as server, server.connect() as connection:
        connection.sendall(request[:cut])
        time.sleep(0.05)
        connection.sendall(request[len(request[:cut]) :])
        told = read_all(connection)
    assert (told[:12], b'"scores"' in told) == (b"HTTP/1.1 200", True)
    assert not caplog.records


def test_what_follows_a_body_has_an_end(scorer):
    chunks = head_of(0).replace(b"content-length: 0", b"transfer-encoding: chunked")
    with serving({"x": scorer}) as server, server.connect() as connection:
        connection.sendall(chunks + b"2\r\nxx\r\n0\r\ntrailer: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(b"y" * (1 << 14))
                time.sleep(0.001)
        assert b"HTTP/1.1 431 " in read_all(connection)
        with server.connect() as tiny:  # a byte a chunk is a body as well
            tiny.sendall(chunks + b"1\r\nx\r\n" * 30_000 + b"0\r\n\r\n")
            assert b"HTTP/1.1 415 " in tiny.recv(1 << 16)


def test_bodies_that_stop_coming_are_given_up_and_slow_ones_hear_why_they_are_refused(scorer, image, monkeypatch):
    monkeypatch.setattr(middleware, "SILENT_SECONDS", 0.3)
    with serving({"x": scorer}, Limits(bytes=1 << 20)) as server:
        with server.connect() as silent:
            silent.sendall(head_of(1000) + b"x" * 999)
            assert b"HTTP/1.1 408 " in read_all(silent)
        with server.connect() as slow:  # too large, and sent in a longer time than the server is patient with silence
            slow.sendall(head_of(5 << 20))
            for _ in range(5):
                slow.sendall(b"x" * (1 << 20))
                time.sleep(0.15)
            assert b"HTTP/1.1 413 " in slow.recv(1 << 16)


def test_a_form_without_its_end_is_refused(scorer, image):
    body, kind = write_form([image, image])
    with serving({"x": scorer}) as server:
        for cut in (body[:-4], body[: len(body) // 2], body[:-3]):
            reply = server.ask("POST", "/score", cut, {"content-type": kind})
            assert (reply.status, reply.json["detail"]) == (400, "the form: its end is missing; send all of it")
        assert len(scored(server.ask("POST", "/score", body, {"content-type": kind}))) == 2


def test_a_signal_before_the_server_runs_ends_it(scorer, capsys):
    import signal

    from mgs.scoring.reward import mix_for
    from mgs.serve.service import Service

    address = Address("127.0.0.1", 0)
    server = make_server(Service({"x": scorer}, Limits()), mix_for(scorer, None), address)
    with address.listen() as listening, stopped_by_signals(server):
        signal.raise_signal(signal.SIGTERM)
        server.run([listening])
    assert capsys.readouterr().out == ""
