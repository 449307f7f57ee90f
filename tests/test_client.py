"""A server's scores as a reward: the numbers of the images, in order, whatever the network does."""

import asyncio
import contextlib
import email.utils
import io
import math
import random
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from aiohttp import web
from PIL import Image
from serving import serving
from test_colour import ADOBE_RGB

from mgs import ask_server, client
from mgs.ask_server import detail, pause
from mgs.client import RemoteReward
from mgs.errors import UserError
from mgs.images.decode import decode_image
from mgs.images.forms import as_file
from mgs.images.inputs import load_image
from mgs.scoring.mix import Mix
from mgs.scoring.reward import Reward
from mgs.scoring.scorer import Scorer
from mgs.serve.limits import Limits

MIX = {"quality": 1.0, "correspondence": 3.0}
PROMPTS = ["a grey wall", "a red fox", "a wall, of bricks\n", "nothing"]


class StandIn:
    """A server on a loopback port: quality is the mean of the pixels, correspondence the length of the prompt."""

    def __init__(self):
        self.info = {
            "checkpoints": [
                {"name": "best", "dimensions": ["quality", "correspondence"], "needs_prompt": ["correspondence"]},
                {"name": "other", "dimensions": ["authenticity"], "needs_prompt": []},
            ],
            "limits": {"images": 64, "bytes": 1 << 20},
        }
        self.first = []  # answers that come before scores
        self.asked, self.peers, self.seen = [], [], []  # paths, their senders' ports, forms
        self.inside = self.most_inside = self.cancelled = 0
        self.seconds = lambda: 0.0
        self.change = lambda answer: answer

    @contextlib.contextmanager
    def running(self, port=0):
        """The server's address, in a thread with an event loop of its own."""
        loop, runner = asyncio.new_event_loop(), self.runner()

        async def start():
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            return runner.addresses[0][1]

        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{asyncio.run_coroutine_threadsafe(start(), loop).result(5)}"
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(5)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)
            loop.close()

    def runner(self):
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self.answer)
        return web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)

    async def answer(self, request):
        self.asked.append(request.path)
        self.peers.append(request.transport.get_extra_info("peername")[1])
        if request.path != "/score":
            return web.json_response(self.info)
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            form = await request.post()
            if self.first:
                return self.first.pop(0)(request)
            await asyncio.sleep(self.seconds())
            files, prompts = [field.file.read() for field in form.getall("images")], form.getall("prompts")
            self.seen.append((files, prompts, form.getall("dimensions"), dict(request.headers)))
            results = [self.entry(i, *pair) for i, pair in enumerate(zip(files, prompts, strict=True))]
            return web.json_response(self.change({"checkpoint": form["checkpoint"], "results": results}))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.inside -= 1

    def entry(self, index, data, prompt):
        try:
            scores = {"quality": quality(Image.open(io.BytesIO(data))), "correspondence": float(len(prompt))}
            return {"index": index, "scores": scores | {"authenticity": 1.0}, "status": "ok: a remark"}
        except OSError:
            return {"index": index, "scores": {}, "status": "error: the image: not a whole image"}


def quality(picture):
    return float(np.asarray(picture.convert("RGB")).mean()) / 51


def expected(pixels, prompts):
    return [
        (quality(Image.fromarray(one)) + 3 * len(prompt)) / 4 / 5 for one, prompt in zip(pixels, prompts, strict=True)
    ]


def refusing(status, told="no", **headers):
    return lambda request: web.json_response({"detail": told}, status=status, headers=headers)


def hang_up(request):
    request.transport.abort()
    return web.Response()


@pytest.fixture
def server():
    return StandIn()


@pytest.fixture
def address(server):
    with server.running() as address:
        yield address


@pytest.fixture
def pauses(monkeypatch):
    """Short pauses between tries; a list of those that there would have been."""
    found, told = [], ask_server.pause
    monkeypatch.setattr(ask_server, "pause", lambda *given: found.append(told(*given)) or 0.01)
    return found


@pytest.fixture(scope="module")
def pixels():
    """uint8, (N, H, W, C)."""
    return np.random.default_rng(0).integers(0, 256, (4, 40, 48, 3), dtype=np.uint8)


def test_every_form_of_images_gives_their_own_scores(server, address, pixels, tmp_path):
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / f"{i}.bmp")
    files = [tmp_path / f"{i}.bmp" for i in range(4)]
    floats = torch.from_numpy(pixels).float() / 255
    forms = {
        "Pillow": [Image.fromarray(one) for one in pixels],
        "arrays": list(pixels),
        "NHWC array": pixels,
        "NCHW array": pixels.transpose(0, 3, 1, 2),
        "NHWC tensor": torch.from_numpy(pixels),
        "NCHW floats with gradients": floats.permute(0, 3, 1, 2).requires_grad_(),
        "files": files,
        "names": [str(file) for file in files],
        "contents": [file.read_bytes() for file in files],
    }
    reward = RemoteReward(address, MIX, images_per_request=3)
    for name, images in forms.items():
        found = reward.wait(images, PROMPTS, metadata=[{}] * 4)
        assert {type(value) for value in found} == {float}, name
        assert found == pytest.approx(expected(pixels, PROMPTS), abs=1e-9), name
    unchanged = forms["contents"]
    sent = sorted((part[:3] for part in server.seen[-2:]), key=lambda part: -len(part[0]))
    assert sent == [(unchanged[:3], PROMPTS[:3], [*MIX]), (unchanged[3:], PROMPTS[3:], [*MIX])]
    assert server.asked.count("/info") == 1
    assert reward.wait([]) == []


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_what_is_sent_of_a_picture_decodes_to_the_pixels_that_are_scored_here(mode, pixels):
    picture = Image.fromarray(pixels[0]).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    if mode in ("LA", "RGBA"):
        picture.putalpha(Image.fromarray(pixels[1]).convert("L"))
    if mode == "RGB":
        picture.getexif()[0x0112] = 6  # lies on its side
        picture.info |= {"icc_profile": ADOBE_RGB, "exif": picture.getexif().tobytes()}
    sent = decode_image(as_file(picture), "sent")
    assert torch.equal(sent, load_image(picture)[0])


def test_many_requests_are_in_flight_and_images_are_encoded_no_further_ahead(server, address, monkeypatch):
    encoded, ahead = [], []
    values = random.Random(0).choices(range(256), k=90)
    images = [np.full((8, 8, 3), value, np.uint8) for value in values]
    shuffled = random.Random(1)
    server.seconds = lambda: shuffled.random() / 20

    def count(image):
        encoded.append(image)
        ahead.append(len(encoded) - sum(len(part[0]) for part in server.seen))
        return as_file(image)

    monkeypatch.setattr(client, "as_file", count)
    reward = RemoteReward(address, {"quality": 1}, images_per_request=4, connections=5)
    assert reward.wait(images) == pytest.approx([value / 255 for value in values])
    assert 1 < server.most_inside <= 5
    assert max(ahead) <= 4 * 5
    assert [len(part[0]) for part in server.seen].count(4) == 22
    assert {part[1][0] for part in server.seen} == {""}  # no prompt, and not the file's own either


def test_a_request_never_has_more_than_the_server_takes(server, address):
    noise = np.random.default_rng(0).integers(0, 256, (9, 60, 60, 3), dtype=np.uint8)
    server.info["limits"] = {"images": 4, "bytes": 30_000}
    large = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    found = RemoteReward(address, {"quality": 1}, on_bad="nan").wait([*noise, large])
    assert found[:-1] == pytest.approx([quality(Image.fromarray(one)) / 5 for one in noise])
    assert math.isnan(found[-1])
    assert max(sum(map(len, part[0])) for part in server.seen) <= 30_000
    assert sum(len(part[0]) for part in server.seen) == 9
    with pytest.raises(
        ValueError, match=r"image 0, and 0 others of 1: error: the image: .* more than the server takes"
    ):
        RemoteReward(address, {"quality": 1}).wait([large])


def test_a_busy_server_is_asked_again_when_it_says(server, address, pixels, pauses):
    server.first = [refusing(503, **{"Retry-After": "3"}), refusing(429), hang_up, refusing(408), refusing(500)]
    found = RemoteReward(address, MIX, retries=5).wait(pixels, PROMPTS)
    assert found == pytest.approx(expected(pixels, PROMPTS))
    assert 3 <= pauses[0] < 3.5
    assert len(pauses) == 5
    assert all(0.12 <= wait <= 4 for wait in pauses[1:])


def test_pauses_double_and_obey_the_server():
    for tries in range(1, 12):
        longest = min(0.25 * 2 ** (tries - 1), 10)
        assert longest / 2 <= pause(tries, None, 60) <= longest
    assert 7 <= pause(1, "7", 60) <= 7.5
    assert 60 <= pause(1, "100000", 60) <= 60.5
    assert 18 <= pause(1, email.utils.formatdate(time.time() + 20, usegmt=True), 60) <= 21
    assert pause(1, "soon", 60) <= 0.25
    before = random.getstate()
    pause(1, None, 60)
    assert random.getstate() == before


def test_a_server_that_starts_late_is_waited_for(server, pixels, monkeypatch):
    monkeypatch.setattr(ask_server, "FIRST_PAUSE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def late():
        asked = asyncio.create_task(RemoteReward(f"http://127.0.0.1:{port}/", MIX)(pixels, PROMPTS))
        await asyncio.sleep(0.15)
        with server.running(port):
            return await asked

    assert asyncio.run(late()) == pytest.approx(expected(pixels, PROMPTS))


def test_a_server_that_never_answers_is_given_up_with_its_address_and_the_reason(server, address, pixels, pauses):
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=rf"{closed}: gave up after 3 tries \(.*refused|Connect call failed"):
        RemoteReward(closed, MIX, retries=2).wait(pixels, PROMPTS)
    assert len(pauses) == 2
    server.first = [refusing(503, "256 of 256 places are taken")] * 9
    with pytest.raises(
        ConnectionError, match=rf"{address}: gave up after 2 tries \(503: 256 of 256 places are taken\)"
    ):
        RemoteReward(address, MIX, retries=1).wait(pixels, PROMPTS)
    server.first, server.seconds = [], lambda: 1.0
    with pytest.raises(ConnectionError, match=r"gave up after 1 tries \(no answer within 0.1 s\)"):
        RemoteReward(address, MIX, retries=0, timeout=0.1).wait(pixels, PROMPTS)


@pytest.mark.parametrize(
    ("refusal", "error", "told"),
    [
        (refusing(422, "prompts: 3\nfor 4"), UserError, "422: prompts: 3 for 4"),
        (refusing(413, "the body: more than 9 bytes"), UserError, "413: the body"),
        (refusing(401, "a token is needed"), UserError, "401: a token is needed; give token="),
        (refusing(307, Location="/elsewhere"), UserError, "redirects to /elsewhere, which is not followed"),
        (refusing(501, "a fault"), ConnectionError, "501: a fault; look at the server's log"),
    ],
)
def test_a_refusal_is_raised_at_once_in_the_servers_words(server, address, pixels, refusal, error, told):
    server.first = [refusal] * 2
    with pytest.raises(error, match=told):
        RemoteReward(address, MIX, images_per_request=2, connections=1).wait(pixels, PROMPTS)
    assert server.asked == ["/info", "/score"]


def test_the_token_is_sent_and_never_shown(server, address, pixels):
    RemoteReward(address, MIX, token="s3cret").wait(pixels, PROMPTS)
    assert server.seen[0][3]["Authorization"] == "Bearer s3cret"
    server.first = [refusing(401, "a token is needed")]
    with pytest.raises(UserError, match="the server's own as token=") as raised:
        RemoteReward(address, MIX, token="s3cret").wait(pixels, PROMPTS)
    assert "s3cret" not in str(raised.value)


def without(key):
    return lambda answer: answer["results"][1].pop(key) and answer


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: ["scores"],
        lambda answer: answer | {"checkpoint": "other"},
        lambda answer: answer | {"results": answer["results"][:-1]},
        lambda answer: answer | {"results": answer["results"][::-1]},
        lambda answer: answer["results"][2].update(scores={"quality": 1.0}) or answer,
        lambda answer: answer["results"][2].update(scores={"quality": math.nan, "correspondence": 1.0}) or answer,
        lambda answer: answer["results"][2].update(status=None) or answer,
        without("scores"),
        without("status"),
    ],
)
def test_an_answer_that_does_not_fit_is_no_reward(server, address, pixels, change):
    server.change = change
    with pytest.raises(UserError, match=rf"{address}: no scores in its answer .* is this `mgs serve`"):
        RemoteReward(address, MIX).wait(pixels, PROMPTS)


@pytest.mark.parametrize("info", [[], {}, {"checkpoints": [], "limits": {}}, {"checkpoints": [{"name": "a"}]}, None])
def test_what_is_no_mgs_server_is_told(server, address, pixels, info):
    server.info = info
    with pytest.raises(UserError, match="no facts in its answer"):
        RemoteReward(address, MIX).wait(pixels, PROMPTS)


def test_a_bad_image_is_an_error_or_nan_and_the_others_keep_their_rewards(server, address, pixels, tmp_path):
    images = [pixels[0], b"no image", np.full((9, 9, 3), math.nan), tmp_path / "none.png", pixels[1]]
    prompts = [*PROMPTS, "the last"]
    with pytest.raises(ValueError, match="image 1, and 2 others of 5: error: the image: not a whole image"):
        RemoteReward(address, MIX).wait(images, prompts)
    for standardize in (False, True):
        found = RemoteReward(address, MIX, on_bad="nan", standardize=standardize).wait(images, prompts)
        assert [math.isnan(value) for value in found] == [False, True, True, True, False]
    with pytest.raises(ValueError, match=r"image 0, and 0 others of 1: error: .*none.png: no such file"):
        RemoteReward(address, MIX).wait(images[3:4], prompts[:1])


def test_scores_are_told_by_dimension_and_standardized_as_reward_does(server, address, pixels):
    async def both():
        async with RemoteReward(address, MIX, standardize=True, images_per_request=1) as reward:
            return await reward.score(pixels, PROMPTS), await reward(pixels, PROMPTS)

    scores, found = asyncio.run(both())
    assert scores["correspondence"] == [len(prompt) / 5 for prompt in PROMPTS]
    assert found == Mix(MIX, standardize=True).total(scores)


def test_all_dimensions_of_the_checkpoint_count_alike_by_default(server, address, pixels):
    mean = [(quality(Image.fromarray(one)) + len(text)) / 10 for one, text in zip(pixels, PROMPTS, strict=True)]
    assert RemoteReward(address).wait(pixels, PROMPTS) == pytest.approx(mean)
    assert RemoteReward(address, checkpoint="other").wait(pixels) == [0.2] * 4
    assert server.seen[-1][2] == ["authenticity"]


def test_prompts_weights_and_settings_that_do_not_fit_are_refused(server, address, pixels):
    reward = RemoteReward(address, MIX)
    with pytest.raises(ValueError, match="3 prompt"):
        reward.wait(pixels, PROMPTS[:3])
    for prompts in (None, [*PROMPTS[:3], " "]):
        with pytest.raises(ValueError, match="correspondence: judged against a prompt"):
            reward.wait(pixels, prompts)
    with pytest.raises(ValueError, match=r"give \(N, C, H, W\)"):
        reward.wait(pixels[0], PROMPTS[:1])
    with pytest.raises(UserError, match="weights authenticity: best gives quality, correspondence"):
        RemoteReward(address, {"authenticity": 1}).wait(pixels, PROMPTS)
    with pytest.raises(UserError, match=r"checkpoint third: .* has best, other"):
        RemoteReward(address, checkpoint="third").wait(pixels, PROMPTS)
    for options, told in [
        ({"weights": {"beauty": 1}}, "beauty"),
        ({"on_bad": "skip"}, "say raise, or nan"),
        ({"connections": 0}, "give 1 or more"),
        ({"images_per_request": 0}, "give 1 or more"),
        ({"timeout": 0}, "more than 0 s"),
        ({"retries": -1}, "0 or more"),
        ({"token": "a\n"}, "line breaks"),
        ({"address": "localhost:8000"}, "such as http://"),
    ]:
        with pytest.raises(UserError, match=told):
            RemoteReward(**({"address": address} | options))
    assert "/score" not in server.asked


def test_connections_are_kept_between_calls_and_otherwise_each_call_has_its_own(server, address, pixels):
    async def twice(reward):
        return [await reward(pixels, PROMPTS) for _ in range(2)]

    async def kept():
        async with RemoteReward(address, MIX) as reward:
            await twice(reward)
            with pytest.raises(RuntimeError, match="enter it once"):
                await reward.__aenter__()
        return await twice(reward)  # also after its end

    asyncio.run(kept())
    first, second, third, fourth, fifth = server.peers
    assert first == second == third
    assert len({third, fourth, fifth}) == 3
    assert server.asked == ["/info"] + ["/score"] * 4


def test_a_cancelled_call_cancels_its_requests(server, address, pixels):
    server.seconds = lambda: 30.0

    async def cancelled():
        call = asyncio.create_task(RemoteReward(address, MIX, images_per_request=1)(pixels, PROMPTS))
        while server.inside < 4:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(5):
            while server.inside:
                await asyncio.sleep(0.01)

    asyncio.run(cancelled())
    assert server.cancelled == 4


def test_one_request_that_fails_cancels_the_others(server, address, pixels):
    server.seconds, server.first = (lambda: 30.0), [refusing(422, "no")]
    begun = time.monotonic()
    with pytest.raises(UserError, match="422: no"):
        RemoteReward(address, MIX, images_per_request=1).wait(pixels, PROMPTS)
    assert time.monotonic() - begun < 10


def test_waiting_within_an_event_loop_is_refused(address, pixels):
    async def inside():
        RemoteReward(address, MIX).wait(pixels, PROMPTS)

    with pytest.raises(RuntimeError, match="an event loop is running here"):
        asyncio.run(inside())


def test_reasons_are_one_line():
    assert detail(b'{"detail": "a\\nb"}') == "a b"
    assert detail(b"<html>\n" + b"x" * 1000).startswith("<html> xxx")
    assert detail(b"[]") == "[]"
    assert detail(b"") == "no reason given"


def test_a_client_of_files_loads_no_torch(server, address, pixels, tmp_path):
    Image.fromarray(pixels[0]).save(tmp_path / "0.png")
    code = (
        "import sys; from mgs.client import RemoteReward; "
        f"print(RemoteReward({address!r}, {MIX!r}).wait([{str(tmp_path / '0.png')!r}], ['a grey wall'])); "
        "print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert float(told[0].strip("[]")) == pytest.approx(expected(pixels[:1], PROMPTS[:1])[0])
    assert told[1] == "False"


@pytest.fixture(scope="module")
def scorer(own_set):
    return Scorer.zero_shot(str(own_set / "clip.safetensors"), device="cpu")


def test_a_server_gives_the_rewards_that_reward_gives(scorer, pixels, tmp_path):
    Image.fromarray(pixels[1]).save(tmp_path / "1.jpg")
    images = [Image.fromarray(pixels[0]), tmp_path / "1.jpg", torch.from_numpy(pixels[2]).permute(2, 0, 1), b"none"]
    with serving({"own": scorer}, token="T") as server:
        address = f"http://127.0.0.1:{server.port}"
        spread = np.nanstd(Reward(scorer, MIX, on_bad="nan")(images, PROMPTS))
        for standardize in (False, True):
            options = {"on_bad": "nan", "standardize": standardize}
            found = RemoteReward(address, MIX, token="T", images_per_request=1, **options).wait(images, PROMPTS)
            atol = 1e-5 / spread if standardize else 1e-5  # rewards far below 1 apart are drawn out to a spread of 1
            np.testing.assert_allclose(found, Reward(scorer, MIX, **options)(images, PROMPTS), atol=atol)
        assert RemoteReward(address, {"quality": 1}, token="T").wait(images[:3]) == pytest.approx(
            Reward(scorer, {"quality": 1})(images[:3]), abs=1e-5
        )
        with pytest.raises(UserError, match=r"401: .*; give token="):
            RemoteReward(address, MIX).wait(images, PROMPTS)
        with pytest.raises(ValueError, match="image 3, and 0 others of 4: error: the image: not a whole image"):
            RemoteReward(address, MIX, token="T").wait(images, PROMPTS)


def test_a_full_server_scores_all_images_in_the_end(scorer, pixels, pauses):
    images, prompts = list(pixels) * 3, PROMPTS * 3
    with serving({"own": scorer}, Limits(images=2, queue=3)) as server:
        reward = RemoteReward(f"http://127.0.0.1:{server.port}", MIX, images_per_request=1, retries=10_000)
        np.testing.assert_allclose(reward.wait(images, prompts), Reward(scorer, MIX)(images, prompts), atol=1e-5)
    assert pauses
    assert min(pauses) >= 1  # the server's own word
