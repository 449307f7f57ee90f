"""The server under odd and hostile clients: it refuses in a line, gives back what it held, and serves the others."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import Running, serving, wait_until, write_form

from mgs.scoring.scorer import Scorer
from mgs.serve import connections
from mgs.serve.limits import Limits
from mgs.serve.threads import Threads

REPOSITORY = Path(__file__).parents[1]
SIDE = 64


@pytest.fixture(scope="module")
def scorer(own_set):
    return Scorer.zero_shot(str(own_set / "clip.safetensors"), device="cpu")


@pytest.fixture(scope="module")
def image():
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream := io.BytesIO(), "PNG")
    return "a.png", stream.getvalue()


@contextlib.contextmanager
def busy(scorer):
    """The scorer's thread does nothing meanwhile."""
    done = threading.Event()
    scorer.batcher.begin_on_thread(done.wait)
    try:
        yield
    finally:
        done.set()


def head_of(length, path="/score", more=""):
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{more}\r\n".encode()


def read_all(connection):
    """What a server says until it closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def scored(reply):
    return [entry["status"] for entry in reply.json["results"] if entry["scores"]]


def test_beyond_the_queue_requests_are_told_to_come_again(scorer, image):
    with serving({"x": scorer}, Limits(images=4, queue=4)) as server, ThreadPoolExecutor() as clients:
        with busy(scorer):
            first = clients.submit(server.post_form, "/score", [image] * 3)
            wait_until(lambda: server.service.inside == 3)
            refused = server.post_form("/score", [image] * 2)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert "3 of 4 places are taken" in refused.json["detail"]
            second = clients.submit(server.post_form, "/score", [image])
            wait_until(lambda: server.service.inside == 4)
            assert server.ask("GET", "/ready").status == 503
            assert server.ask("GET", "/health").status == 200
        assert [len(scored(request.result())) for request in (first, second)] == [3, 1]
        wait_until(lambda: server.service.inside == 0)
        assert server.ask("GET", "/ready").status == 200


def test_a_client_that_leaves_frees_its_places_and_its_images_are_not_scored(scorer, image):
    body, kind = write_form([image] * 3)
    with serving({"x": scorer}, Limits(images=4, queue=4)) as server:
        batches = server.service.metrics.batches.labels("x")
        before = batches._sum.get()
        with busy(scorer):
            with server.connect() as connection:
                connection.sendall(head_of(len(body), more=f"content-type: {kind}\r\n") + body)
                wait_until(lambda: server.service.inside == 3)
            wait_until(lambda: server.service.inside == 0)
        assert len(scored(server.post_form("/score", [image]))) == 1
        assert batches._sum.get() == before + 1
        assert not scorer.batcher.waiting
        assert server.service.budget.left == server.service.limits.decoded


def test_slow_and_half_sent_bodies_are_given_up(scorer, image):
    with serving({"x": scorer}, Limits(seconds=0.5)) as server:
        with server.connect() as half, server.connect() as slow:
            half.sendall(head_of(1000) + b"x" * 10)
            slow.sendall(head_of(1000))
            half.shutdown(1)
            assert len(scored(server.post_form("/score", [image]))) == 1  # meanwhile
            told = slow.recv(1 << 16) + slow.recv(1 << 16)
            assert told.startswith(b"HTTP/1.1 408 "), told
            assert b"the body: not here within 0.5 s" in told
            assert not slow.recv(1)
        with busy(scorer):
            late = server.post_form("/score", [image])
        assert (late.status, late.headers["retry-after"]) == (503, "1")
        assert "not scored within 0.5 s" in late.json["detail"]
        assert server.service.inside == 0


def test_bodies_beyond_the_limit_are_refused_however_they_are_sent(scorer, image):
    with serving({"x": scorer}, Limits(bytes=1 << 20)) as server:
        for told, status in ((2 << 20, 413), (1 << 40, 413), ("0" * 5000 + "2", 415)):
            with server.connect() as connection:
                connection.sendall(head_of(told) + b"xx")
                assert connection.recv(1 << 16).startswith(f"HTTP/1.1 {status} ".encode())
        whole = server.ask("POST", "/score", b"x" * (2 << 20))
        assert (whole.status, "more than 1,048,576 bytes" in whole.json["detail"]) == (413, True)
        chunks = server.ask("POST", "/score", iter([b"x" * (1 << 19)] * 3))
        assert chunks.status == 413
        with contextlib.ExitStack() as stack:  # eight bodies fill the memory that all may have
            holders = [stack.enter_context(server.connect()) for _ in range(8)]
            for holder in holders:
                holder.sendall(head_of(1 << 20) + b"x" * ((1 << 20) - 1))
            wait_until(lambda: server.service.held == server.service.limits.bodies - 8)
            assert server.post_form("/score", [image]).status == 503
        wait_until(lambda: server.service.held == 0)
        assert len(scored(server.post_form("/score", [image]))) == 1


def test_decoded_images_wait_for_room(scorer, image):
    limits = Limits(pixels=512 * 512)  # to which the small image is enlarged
    with serving({"x": scorer}, limits) as server, ThreadPoolExecutor() as clients:
        budget = server.service.budget
        with busy(scorer):
            request = clients.submit(server.post_form, "/score", [image] * 12)
            wait_until(lambda: budget.left == 0)
            assert len(scorer.batcher.waiting) <= 4
        assert len(scored(request.result())) == 12
        wait_until(lambda: budget.left == limits.decoded)


def test_images_that_take_long_to_decode_are_errors(scorer, image):
    picture = Image.new("RGB", (800, 800))
    files = []
    for kind in ("QOI", "PNG"):
        picture.save(stream := io.BytesIO(), kind)
        files.append((kind, stream.getvalue()))
    files.append(("PPM", b"P5 800 800 254\n" + bytes(800 * 800)))
    with serving({"x": scorer}, Limits(pixels=1 << 20)) as server:
        reply = server.post_form("/score", files)
        statuses = [entry["status"] for entry in reply.json["results"]]
        assert [status.partition(" it,")[0] for status in statuses] == [
            "error: QOI: 640,000 pixels as the model sees",
            "ok: no prompt, so nothing to correspond to; zero-shot, never trained on MOS",
            "error: PPM: 640,000 pixels as the model sees",
        ]
        assert "this server takes 131,072 of this format" in statuses[0]


def test_a_thread_that_still_decodes_does_not_delay_the_end():
    threads, done = Threads(), threading.Event()
    threads.decode.submit(done.wait)
    begun = time.monotonic()
    assert not threads.close(0.2)
    assert time.monotonic() - begun < 5
    done.set()
    assert threads.close(5)


def test_a_batch_that_fails_for_one_image_is_scored_one_by_one(scorer, image, monkeypatch, caplog):
    launch = scorer.batcher.launch

    def fail_on(prompt, least):
        def launched(pictures, prompts):
            if len(pictures) >= least and any(one.text == prompt for one in prompts):
                raise RuntimeError("CUDA error: an illegal memory access")
            return launch(pictures, prompts)

        monkeypatch.setattr(scorer.batcher, "launch", launched)

    fields = [("prompts", prompt) for prompt in ("a", "b", "bad", "c")]
    with serving({"x": scorer}) as server:
        fail_on("bad", 2)
        with busy(scorer):
            request = ThreadPoolExecutor().submit(server.post_form, "/score", [image] * 4, fields)
            wait_until(lambda: len(scorer.batcher.waiting) == 4)
        assert len(scored(request.result())) == 4
        fail_on("bad", 1)
        reply = server.post_form("/score", [image] * 4, fields)
        assert len(scored(reply)) == 3
        assert "the GPU failed (CUDA error" in reply.json["results"][2]["status"]
        assert server.ask("GET", "/ready").status == 200  # tried again, on a grey picture
        server.post_form("/score", [image], fields[2:3])
        fail_on("a grey picture", 1)
        broken = server.ask("GET", "/health")
        assert (broken.status, "the GPU failed" in broken.json["detail"]) == (503, True)
        monkeypatch.undo()
        assert server.ask("GET", "/health").status == 200


def test_a_token_and_the_servers_names_decide_who_may_ask(scorer, image):
    with serving({"x": scorer}, token="sésame") as server:
        for headers in ({}, {"authorization": "Bearer x"}, {"authorization": "sésame".encode()}):
            reply = server.ask("GET", "/info", headers=headers)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert server.post_form("/score", [image]).status == 401
        assert server.ask("POST", "/", b"x").status == 401
        for path in ("/health", "/ready", "/docs", "/openapi.json"):
            assert server.ask("GET", path).status == 200
        assert server.ask("GET", "/info", headers={"authorization": "bearer  sésame ".encode()}).status == 200
        server.headers["authorization"] = "Bearer sésame".encode()
        assert len(scored(server.post_form("/score", [image]))) == 1
        assert server.ask("GET", "/info", headers={"host": "mgs.example"}).status == 200
    with serving({"x": scorer}) as server:
        for host in ("localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000"):
            assert server.ask("GET", "/info", headers={"host": host}).status == 200
        for host in ("rebound.example", "[", "", "localhost.example:80"):
            reply = server.ask("GET", "/info", headers={"host": host})
            assert (reply.status, f"host {host}: this server" in reply.json["detail"]) == (400, True)
        assert server.ask("POST", "/score", b"x", {"sec-fetch-site": "cross-site"}).status == 403
        assert server.ask("GET", "/", headers={"sec-fetch-site": "cross-site"}).status == 200
        for origin, status in (("http://localhost:8000", 415), ("http://localhost:3000", 403), ("null", 403)):
            headers = {"host": "localhost:8000", "origin": origin}  # of browsers that say no more
            assert server.ask("POST", "/score", b"x", headers).status == status


def test_connections_without_requests_hold_nothing_for_ever(scorer, image, monkeypatch):
    monkeypatch.setattr(connections.Connection, "most", 5)
    with serving({"x": scorer}) as server, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(server.connect()) for _ in range(12)]
        assert len(scored(server.post_form("/score", [image]))) == 1
        assert read_all(idle[0]) == b""
        with server.connect() as endless, contextlib.suppress(ConnectionError):
            endless.sendall(b"GET / HTTP/1.1\r\n")
            for _ in range(64):
                endless.sendall(b"x: " + b"y" * (1 << 14) + b"\r\n")
            told = endless.recv(1 << 16)
            assert told.startswith(b"HTTP/1.1 431 ")
        assert server.ask("GET", "/health").status == 200
        monkeypatch.setattr(connections, "IDLE_SECONDS", 0.2)
        with server.connect() as late:
            late.sendall(b"GET / HT")
            assert read_all(late) == b""


@pytest.mark.slow
def test_a_server_that_is_told_to_stop_finishes_what_it_has(own_set, tmp_path):
    command = [sys.executable, "-m", "mgs", "serve", "--port", "0", "--clip", str(own_set / "clip.safetensors")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes) as process:
        port = int(process.stdout.readline().split("/")[2].rpartition(":")[2])
        server = Running(None, port)
        wait_until(lambda: answers(server))
        Image.new("RGB", (2000, 2000)).save(stream := io.BytesIO(), "PNG")
        with ThreadPoolExecutor() as clients:
            request = clients.submit(server.post_form, "/score", [("a.png", stream.getvalue())] * 12)
            wait_until(lambda: b"\nmgs_images_inside 0.0" not in server.ask("GET", "/metrics").body)
            process.send_signal(signal.SIGTERM)
            assert len(scored(request.result())) == 12
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert err.splitlines()[1:] == [f"scored by zero-shot {own_set / 'clip.safetensors'}"]  # after one on activations


def answers(server):
    with contextlib.suppress(OSError):
        return server.ask("GET", "/ready").status == 200
