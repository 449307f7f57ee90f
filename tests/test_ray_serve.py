"""The server on Ray Serve: replicas that answer alike, of which one may die, and nothing that stays behind."""

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from mgs.cli.serve import parse_replicas, serve
from mgs.dimensions import MOS_MAX
from mgs.errors import UserError
from mgs.scoring.mix import Mix
from mgs.scoring.scorer import Scorer
from mgs.serve.limits import Limits
from mgs.serve.ray_serve import NAME, Recipe, Replicas, share_cores
from mgs.serve.run import Address
from tests.serving import Running, wait_until

IMAGES = 20  # of a request
CLIENTS, REQUESTS = 8, 32


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
    with pytest.raises(UserError, match=r"needs ray: run pip install 'ray\[data,serve\]'"):
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


@pytest.mark.slow
def test_replicas_answer_alike_and_one_may_die_under_load(own_set, tmp_path):
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed")
    from mgs.client import RemoteReward  # whose aiohttp comes with Ray Serve

    clip = str(own_set / "clip.safetensors")
    files = [(f"{i}.png", (own_set / f"{i}.png").read_bytes()) for i in range(IMAGES)]
    prompts = [f"a grey wall, number {i}" for i in range(IMAGES)]
    table = Scorer.zero_shot(clip, device="cpu").score_many([own_set / name for name, _ in files], prompts)

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
        reward = RemoteReward(address.split()[0], images_per_request=IMAGES)
        answered = 0

        async def ask(client):
            nonlocal answered
            for number in range(client, REQUESTS, CLIENTS):
                chosen = [(number + i) % IMAGES for i in range(IMAGES)]
                found = await reward.score([files[i][1] for i in chosen], [prompts[i] for i in chosen])
                assert found == {name: pytest.approx(table[name][chosen] / MOS_MAX, abs=1e-5) for name in found}
                answered += 1

        async def kill_one():
            while answered < REQUESTS // 4:
                await asyncio.sleep(0.01)
            os.kill(min(before), signal.SIGKILL)

        async def ask_all():
            async with reward, asyncio.timeout(100), asyncio.TaskGroup() as group:
                for task in [kill_one(), *map(ask, range(CLIENTS))]:
                    group.create_task(task)

        before = replicas_of(process)
        assert len(before) == 2
        asyncio.run(ask_all())
        assert answered == REQUESTS
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
