"""A server in a thread of this process, on a port of its own, and requests to it as clients write them."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field

from mgs.scoring.reward import mix_for
from mgs.serve.limits import Limits
from mgs.serve.run import Address, make_server
from mgs.serve.service import Service


@dataclass
class Reply:
    """An answer."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Running:
    """A server that runs."""

    service: Service
    port: int
    headers: dict = field(default_factory=dict)

    def ask(self, method, path, body=None, headers=()):
        """An answer, over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, {**self.headers, **dict(headers)})
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())

    def post_json(self, path, content):
        return self.ask("POST", path, json.dumps(content), {"content-type": "application/json"})

    def post_form(self, path, images=(), fields=()):
        """A form of (name, content) images and (name, text) fields."""
        body, kind = write_form(images, fields)
        return self.ask("POST", path, body, {"content-type": kind})

    def connect(self):
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


def write_form(images, fields=()):
    """A form's body and content type."""
    mark = uuid.uuid4().hex
    parts = [(f'name="images"; filename="{name}"', data) for name, data in images]
    parts += [(f'name="{name}"', text.encode()) for name, text in fields]
    heads = [f"--{mark}\r\ncontent-disposition: form-data; {head}\r\n\r\n".encode() for head, _ in parts]
    body = b"".join(head + data + b"\r\n" for head, (_, data) in zip(heads, parts, strict=True))
    return body + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


@contextlib.contextmanager
def serving(scorers, limits=None, *, token=None, weights=None, **options):
    """A server of scorers by name, which ends with the context."""
    service = Service(scorers, limits or Limits(), **options)
    address = Address("127.0.0.1", 0, token)
    server = make_server(service, mix_for(next(iter(scorers.values())), weights), address)
    with address.listen() as listening:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server has not started"
            time.sleep(0.01)
        yield Running(service, listening.getsockname()[1])
        server.should_exit = True
        thread.join()
        service.threads.close()


def wait_until(condition, seconds=30):
    """Wait for a condition; an assertion where it never comes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
