"""The server on Ray Serve: replicas that answer alike, of which one may die, and nothing that stays behind."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from mgs.cli.serve import parse_replicas, serve
from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError
from mgs.scoring.mix import Mix
from mgs.scoring.scorer import Scorer
from mgs.serve.limits import Limits
from mgs.serve.ray_serve import NAME, Recipe, Replicas, share_cores
from mgs.serve.run import Address
from tests.serving import Running, wait_until

IMAGES, EACH = 20, 5  # images, and how many of them a request has
CLIENTS, REQUESTS = 6, 48


@pytest.mark.parametrize(("text", "least", "most"), [("4", 4, 4), ("1-4", 1, 4), (" 2-2 ", 2, 2)])
def test_replicas_are_a_number_or_two(text, least, most):
    assert parse_replicas(text) == Replicas(least, most)


@pytest.mark.parametrize("text", ["0", "4-1", "two", "1-", "-2", "1.5", "99999"])
def test_replicas_that_are_none_are_refused(text):
    with pytest.raises(UserError, match="give a number such as 4"):
        parse_replicas(text)


@pytest.mark.parametrize(
    ("machines", "count", "share"), [([8], 2, 4), ([8], 3, 2), ([4, 4, 4], 2, 4), ([6, 2], 3, 2), ([2], 5, 1 / 3)]
)
def test_all_replicas_fit_on_the_machines(machines, count, share):
    nodes = [{"Alive": True, "Resources": {"CPU": cores}} for cores in machines]
    gone = {"Alive": False, "Resources": {}}
    assert share_cores(SimpleNamespace(nodes=lambda: [*nodes, gone]), count) == pytest.approx(share)
    assert sum(int(cores / share + 1e-9) for cores in machines) >= count


def test_what_is_missing_is_told(monkeypatch, tmp_path):
    recipe = Recipe({}, Mix({"quality": 1.0}), Limits(), Address("127.0.0.1", 0), None, None, str(tmp_path / "gone"))
    with pytest.raises(UserError, match="no such folder; all machines need the command's folder"):
        recipe.make("cpu")
    with pytest.raises(UserError, match="--replicas: are a Ray cluster's"):
        serve(replicas="2")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else found(name))
    with pytest.raises(UserError, match=r"needs ray; pip install 'mgs\[scale,web\]'"):
        serve(ray="local")


def children(parent):
    """The processes below a process, as {id: (when it began, its command)}."""
    below, found = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended meanwhile
            continue
        below.setdefault(int(fields[1]), {})[int(folder.name)] = (fields[19], command)
    waiting = [parent]
    while waiting:
        one = below.get(waiting.pop(), {})
        found |= one
        waiting += one
    return found


def replicas_of(process):
    return {pid for pid, (_, command) in children(process.pid).items() if f"ServeReplica:{NAME}" in command}


def ask_again(server, images, fields):
    """An answer; whoever asks tries again after lost connections and errors of the server."""
    until = time.monotonic() + 60
    while True:
        assert time.monotonic() < until, "no answer"
        try:
            reply = server.post_form("/score", images, fields)
        except (OSError, EOFError):
            reply = None
        if reply and reply.status < 500:
            return reply
        time.sleep(0.2)


@pytest.mark.slow
def test_replicas_answer_alike_and_one_may_die_under_load(own_set, tmp_path):
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed")
    clip = str(own_set / "clip.safetensors")
    files = [(f"{i}.png", (own_set / f"{i}.png").read_bytes()) for i in range(IMAGES)]
    prompts = [f"a grey wall, number {i}" for i in range(IMAGES)]
    table = Scorer.zero_shot(clip, device="cpu").score_many([own_set / name for name, _ in files], prompts)
    expected = table[[name for name in DIMENSIONS if table[name].notna().all()]].to_dict("records")

    command = [sys.executable, "-m", "mgs", "serve", "--ray", "local", "--replicas", "2", "--port", "0", "--clip", clip]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=stream, text=True
        )
    try:
        address = process.stdout.readline()
        assert address.startswith("http://127.0.0.1:"), log.read_text()
        server = Running(None, int(address.split("/")[2].rpartition(":")[2]))
        answered = []

        def ask(number):
            first = number % (IMAGES - EACH)
            chosen = range(first, first + EACH)
            reply = ask_again(server, [files[i] for i in chosen], [("prompts", prompts[i]) for i in chosen])
            answered.append(reply.status)
            scores = [entry["scores"] for entry in reply.json["results"]]
            assert scores == [pytest.approx(expected[i], abs=1e-5) for i in chosen]

        before = replicas_of(process)
        assert len(before) == 2
        with ThreadPoolExecutor(CLIENTS) as clients:
            asked = [clients.submit(ask, number) for number in range(REQUESTS)]
            wait_until(lambda: len(answered) > REQUESTS // 4)
            victim = min(before)
            os.kill(victim, signal.SIGKILL)
            for one in asked:
                one.result()
        assert answered == [200] * REQUESTS
        wait_until(lambda: log.read_text().splitlines()[-1] == "replicas: 2 running", 60)
        assert len(replicas_of(process) - before) == 1

        ours = children(process.pid)
        with ThreadPoolExecutor() as clients:  # what is in hand is answered before the end
            last = clients.submit(server.post_form, "/score", files * 3, [("prompts", text) for text in prompts * 3])
            wait_until(lambda: sum(map(inside, [server] * 8)) > 0)
            process.send_signal(signal.SIGTERM)
            assert [len(last.result().json["results"]), last.result().status] == [3 * IMAGES, 200]
        assert process.wait(60) == 0
        wait_until(lambda: not [pid for pid in ours if (Path("/proc") / str(pid)).exists()])
    finally:
        process.kill()
        process.wait()


def inside(server):
    """How many images one of the replicas has in hand."""
    lines = server.ask("GET", "/metrics").body.decode().splitlines()
    return float(next(line for line in lines if line.startswith("mgs_images_inside ")).split()[1])
