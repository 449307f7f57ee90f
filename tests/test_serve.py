"""The server: every address gives the scorer's own numbers; bad images and invalid requests get a clear answer."""

import base64
import io
import itertools
import math
import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from serving import serving

from mgs import Reward
from mgs.dimensions import DIMENSIONS
from mgs.scoring.scorer import Scorer
from mgs.serve.limits import Limits

NAME = "small"
PROMPTS = [f"a grey wall, number {i}" for i in range(8)]
MIX = {"quality": 1.0, "correspondence": 3.0}


@pytest.fixture(scope="module")
def scorer(own_set):
    return Scorer.zero_shot(str(own_set / "clip.safetensors"), device="cpu")


@pytest.fixture(scope="module")
def files(own_set):
    return [(f"{i}.png", (own_set / f"{3 * i}.png").read_bytes()) for i in range(8)]


@pytest.fixture(scope="module")
def server(scorer, own_set):
    """Two checkpoints, the second of them one that judges quality alone."""
    other = Scorer.zero_shot(str(own_set / "clip.safetensors"), method="clip-iqa", device="cpu")
    with serving({NAME: scorer, "other": other}, Limits(images=40, bytes=8 << 20, pixels=1 << 20), weights=MIX) as one:
        yield one


@pytest.fixture(scope="module")
def expected(scorer, files):
    """By the scorer itself, one image after the other."""
    return [scorer.score(data, prompt) for (_, data), prompt in zip(files, PROMPTS, strict=True)]


def told(score):
    return {name: getattr(score, name) for name in DIMENSIONS if getattr(score, name) is not None}


def coded(files):
    return [base64.b64encode(data).decode() for _, data in files]


def png(pixels, **texts):
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.fromarray(pixels).save(stream := io.BytesIO(), "PNG", pnginfo=info)
    return stream.getvalue()


GREY = png(np.full((64, 64, 3), 99, np.uint8))


def test_forms_and_json_give_the_scorers_own_scores_in_order(server, files, expected):
    urls = [f"data:image/png;base64,{text}" for text in coded(files)]
    prompts = [("prompts", prompt) for prompt in PROMPTS]
    replies = {
        "form": server.post_form("/score", files, prompts),
        "base64": server.post_json("/score", {"images": coded(files), "prompts": PROMPTS}),
        "data URL": server.post_json("/score", {"images": urls, "prompts": PROMPTS, "checkpoint": NAME}),
    }
    for form, reply in replies.items():
        assert reply.status == 200, reply.body
        assert reply.json["checkpoint"] == NAME
        entries = reply.json["results"]
        assert [entry["index"] for entry in entries] == list(range(8))
        assert [entry["name"] for entry in entries] == (
            [name for name, _ in files] if form == "form" else [f"image {i}" for i in range(8)]
        )
        for entry, score, prompt in zip(entries, expected, PROMPTS, strict=True):
            assert entry["scores"] == pytest.approx(told(score), abs=1e-5), form
            assert (entry["prompt"], entry["status"], entry["explanation"]) == (prompt, score.status, None)
            assert entry["levels"].keys() == entry["scores"].keys()


def test_many_clients_at_once_share_batches_and_each_gets_its_own(server, scorer, files, expected):
    batches = server.service.metrics.batches.labels(NAME)
    before = batches._sum.get(), sum(bucket.get() for bucket in batches._buckets)

    def ask(i):
        (entry,) = server.post_form("/score", [files[i % 8]], [("prompts", PROMPTS[i % 8])]).json["results"]
        assert entry["scores"] == pytest.approx(told(expected[i % 8]), abs=1e-5)

    with ThreadPoolExecutor(16) as clients:
        list(clients.map(ask, range(64)))
    images = batches._sum.get() - before[0]
    assert images == 64
    assert sum(bucket.get() for bucket in batches._buckets) - before[1] < images / 2  # batches


def test_a_bad_image_is_an_entry_and_its_neighbours_are_scored(server, files, expected):
    bad = {
        "cut": (coded([("", files[1][1][:-2000])])[0], "not a whole image"),
        "text": (base64.b64encode(b"hello").decode(), "no image format that is read here"),
        "empty": ("", "no image format that is read here"),
        "no base64": ("****", "not base64"),
        "address": ("https://example.org/a.png", "an address; this server opens none"),
        "file": ("file:///etc/passwd", "an address; this server opens none"),
        "path": ("/etc/passwd", "not base64"),
        "large": (coded([("", png(np.zeros((1024, 2048, 3), np.uint8)))])[0], "2,097,152 pixels as the model sees it"),
        "sliver": (coded([("", png(np.zeros((64, 2000, 3), np.uint8)))])[0], "8,192,000 pixels as the model sees it"),
    }
    images = [coded(files)[0], *(text for text, _ in bad.values()), coded(files)[1]]
    reply = server.post_json("/score", {"images": images, "prompts": [PROMPTS[0], *("x" for _ in bad), PROMPTS[1]]})
    long = server.post_json(
        "/score", {"images": images[:1] * 4, "prompts": ["x" * 5000, "x" * 501, "x y " * 250, "&" + "amp;" * 9]}
    )
    statuses = [entry["status"] for entry in long.json["results"]]
    assert statuses[0].startswith("error: image 0: a prompt of 5,000 characters")
    assert statuses[1].startswith("error: image 1: a prompt of more than 4,096 letters, or 500 in a word")
    assert statuses[2].startswith("ok")
    assert "escaped again and again" in statuses[3]
    assert reply.status == 200
    first, *entries, last = reply.json["results"]
    assert first["scores"] == pytest.approx(told(expected[0]), abs=1e-5)
    assert last["scores"] == pytest.approx(told(expected[1]), abs=1e-5)
    for entry, (kind, (_, reason)) in zip(entries, bad.items(), strict=True):
        assert entry["status"].startswith("error: "), kind
        assert reason in entry["status"], kind
        assert entry["scores"] == entry["levels"] == {}


def test_prompts_are_given_or_found_in_the_file_or_there_are_none(server, scorer):
    inside = "a (red:1.2) fox\nSteps: 20, Sampler: Euler, CFG scale: 7"
    data = png(np.full((64, 64, 3), 99, np.uint8), parameters=inside)
    images = [("a.png", data), ("b.png", GREY)]
    found, none = server.post_form("/score", images).json["results"]
    assert (found["prompt"], found["prompt_read"]) == ("a (red:1.2) fox", "a red fox")
    assert found["status"].endswith("prompt from the file (AUTOMATIC1111)")
    assert found["scores"] == pytest.approx(told(scorer.score(data, "a red fox")), abs=1e-5)
    assert none["prompt"] is None
    assert none["scores"].keys() == {"quality", "authenticity"}
    given, blank = server.post_form("/score", images, [("prompts", "a dog"), ("prompts", " ")]).json["results"]
    assert given["prompt"] == "a dog"
    assert "correspondence" not in blank["scores"]
    as_json = server.post_json("/score", {"images": coded(images), "prompts": [None, "a dog"]}).json["results"]
    assert [entry["prompt_read"] for entry in as_json] == ["a red fox", "a dog"]
    places = server.post_form("/prompt", images).json["results"]
    assert [(one["prompt_read"], one["place"]) for one in places] == [
        ("a red fox", "the file (AUTOMATIC1111)"),
        (None, None),
    ]


def test_images_are_ranked_as_the_scorer_ranks_them(server, scorer, files):
    images = [*files, ("bad.png", b"bad")]
    for by, prompt in itertools.product((None, "quality"), (None, "a bright wall")):
        table = scorer.rank([data for _, data in files], prompt, by=by)
        fields = [(key, text) for key, text in (("by", by), ("prompt", prompt)) if text]
        reply = server.post_form("/rank", images, fields).json
        assert reply["by"] == (by or ("correspondence" if prompt else "quality"))
        *entries, last = reply["results"]
        assert [entry["rank"] for entry in entries] == list(range(1, 9))
        assert [entry["scores"][reply["by"]] for entry in entries] == pytest.approx(list(table[reply["by"]]), abs=1e-5)
        assert (last["rank"], last["name"]) == (None, "bad.png")


def test_an_explanation_has_the_scorers_numbers(server, scorer, files):
    prompt = "a grey wall, and a red fox in a box"
    fields = [("prompts", prompt), ("explain", "true"), ("dimensions", "quality")]
    (entry,) = server.post_form("/score", files[2:3], fields).json["results"]
    why, own = entry["explanation"], scorer.explain(files[2][1], prompt)
    assert entry["scores"].keys() == {"quality"}
    assert why["size"] == [512, 576]
    assert [tuple(box) for box in why["boxes"]] == own.boxes
    assert np.allclose(why["joint"], own.joint)
    assert why["patch_quality"] == pytest.approx(own.patch_quality)
    assert why["correspondence"] == pytest.approx(own.score.correspondence)
    assert [(f["text"], f["counted"]) for f in why["fragments"]] == [(f.text, f.counted) for f in own.fragments]
    parts = sum(f["weight"] * f["score"] for f in why["fragments"])
    assert why["whole_share"] * why["whole"] + (1 - why["whole_share"]) * parts == pytest.approx(why["correspondence"])
    (bad,) = server.post_form("/score", [("a", b"bad")], fields).json["results"]
    assert bad["explanation"] is None
    assert "not a whole image" in bad["status"]


def test_an_explanation_has_small_maps_of_the_scorers(server, scorer, files):
    prompt = "a grey wall, and a red fox in a box"
    (entry,) = server.post_form("/score", files[2:3], [("prompts", prompt), ("explain", "true")]).json["results"]
    told, own = entry["explanation"]["maps"], scorer.explain(files[2][1], prompt).maps
    assert len(told["fragments"]) == len(own.fragments) > 1
    pairs = [(told["whole"], own.whole), (told["fragments"][1], own.fragments[1]), (told["quality"], own.quality)]
    for one, mine in pairs:
        grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["png"]))), dtype=np.float64)
        assert grey.shape == (57, 64)
        step = (one["high"] - one["low"]) / 255
        assert np.abs(one["low"] + step * grey - mine.merge(64).numpy()).max() <= 0.51 * step
    assert told["quality"]["low"] == -told["quality"]["high"]
    (entry,) = server.post_form("/score", files[2:3], [("prompts", "x, " * 70), ("explain", "true")]).json["results"]
    assert len(entry["explanation"]["fragments"]) > len(entry["explanation"]["maps"]["fragments"]) == 64


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_flow_grpos_and_verl_omnis_pickles_get_rewards(server, scorer, files, protocol):
    images = [*(data for _, data in files), b"bad"]
    body = {"images": images, "prompts": [*PROMPTS, "x"], "metadata": {}, "meta_datas": [{"a": [1, 2.5, True]}]}
    reply = server.ask("POST", "/", pickle.dumps(body, protocol))
    assert reply.status == 200, reply.body
    answer = pickle.loads(reply.body)
    assert answer["scores"] == answer["rewards"] == answer["outputs"]
    assert answer["scores"][:8] == pytest.approx(Reward(scorer, MIX)(images[:8], PROMPTS), abs=1e-5)
    assert math.isnan(answer["scores"][8])
    assert answer["statuses"][8].startswith("error: ")
    bad = server.ask("POST", "/", pickle.dumps({"images": [b"bad"], "prompts": ["x"]}, protocol))
    assert pickle.loads(bad.body)["error"].startswith("error: image 0: not a whole image")
    unasked = server.ask("POST", "/", pickle.dumps({"images": images}, protocol))
    assert (unasked.status, "correspondence is judged by" in pickle.loads(unasked.body)["error"]) == (422, True)


def test_flow_factory_and_unirl_get_rewards(server, scorer, files):
    reward = Reward(scorer, MIX)
    images, prompts = [data for _, data in files], PROMPTS
    reply = server.post_json("/compute", {"image": [*coded(files), "bad"], "prompt": [*prompts, "x"], "video": None})
    assert reply.json["rewards"][:8] == pytest.approx(reward(images, prompts), abs=1e-5)
    assert reply.json["rewards"][8] is None
    assert reply.json["error"].startswith("error: image 8: not base64")
    names = server.ask("GET", "/rewards").json["rewards"]
    assert names == list(server.ask("GET", "/health").json["rewards"]) == ["mgs", *DIMENSIONS[:3]]
    turns = [{"text": "a dog", "image_b64": coded(files)[5]}, {"text": prompts[0], "image_b64": coded(files)[0]}]
    requests = [
        {"history": turns, "required_rewards": names, "metadata": None},
        {"history": [{"text": "x", "image_b64": "bad"}], "required_rewards": ["mgs"]},
        {"history": [{"text": "x"}]},
    ]
    found = server.post_json("/score", {"requests": requests}).json
    shares = reward.score(images[:1], prompts[:1])
    assert found["results"][0]["mgs"]["score"] == pytest.approx(reward(images[:1], prompts[:1])[0], abs=1e-5)
    assert found["results"][0]["quality"]["score"] == pytest.approx(shares["quality"][0], abs=1e-5)
    assert found["results"][1:] == [{}, {}]
    assert [list(one) for one in found["errors"]] == [[], ["mgs"], ["mgs"]]
    unknown = [{"history": turns, "required_rewards": ["beauty"]}]
    assert "no reward beauty" in server.post_json("/score", {"requests": unknown}).json["detail"]


def test_requests_that_are_none_get_one_line_of_what_is_wrong(server):
    image = base64.b64encode(GREY).decode()
    cases = [
        ("/score", {}, 422, "images: missing"),
        ("/score", {"images": []}, 422, "images: missing"),
        ("/score", {"images": "x"}, 422, "images: missing"),
        ("/score", {"images": [image] * 41}, 413, "images: more than 40"),
        ("/score", {"images": [image], "prompts": []}, 422, "prompts: 0 for 1 images"),
        ("/score", {"images": [image], "prompts": [3]}, 422, "prompts.0: Input should be a valid string"),
        ("/score", {"images": [image], "prompt": "x"}, 422, "prompt: Extra inputs are not permitted"),
        ("/score", {"images": [image], "checkpoint": "x\ny"}, 422, "not here; choose from small, other"),
        ("/score", {"images": [image], "dimensions": ["beauty"]}, 422, "dimensions.0: Input should be 'quality'"),
        ("/score", {"images": [image], "dimensions": ["overall"]}, 422, "overall: checkpoint small gives quality, "),
        ("/score", {"images": [image], "explain": True, "checkpoint": "other"}, 422, "only scores of the method mgs"),
        ("/rank", {"images": [image], "by": "overall"}, 422, "overall: checkpoint small gives"),
        ("/score", [1], 422, "not an object"),
        ("/compute", {"image": [image], "prompt": []}, 422, "prompts: 0 for 1"),
    ]
    for path, content, status, part in cases:
        reply = server.post_json(path, content)
        assert (reply.status, list(reply.json)) == (status, ["detail"]), (content, reply.body)
        assert part in reply.json["detail"]
        assert "\n" not in reply.json["detail"]
    for body, kind, status, part in [
        (b"{", "application/json", 400, "not JSON"),
        (b"[" * 5000, "application/json", 400, "not JSON"),
        (b"[" * 200_000, "application/json", 413, "more than 20,000 brackets and commas"),
        (b'{"images": [' + b"1," * 200_000, "application/json", 413, "more than 20,000 brackets and commas"),
        (b"\xff", "application/json", 400, "not JSON"),
        (b"x", "text/plain", 415, "send multipart/form-data"),
        (b"x", "multipart/form-data", 400, "the form: cannot be read"),
        (b"x", "multipart/form-data; boundary=y", 400, "the form: cannot be read"),
    ]:
        reply = server.ask("POST", "/score", body, {"content-type": kind})
        assert (reply.status, part in reply.json["detail"]) == (status, True), (body[:9], reply.body)
    assert server.post_form("/score", [], [("images", "x")]).status == 422
    assert server.post_form("/score", [("a", GREY)], [("checkpoint", "a"), ("checkpoint", "b")]).status == 422
    assert server.ask("GET", "/nowhere").status == 404
    assert server.ask("PUT", "/score").status == 405
    assert server.ask("POST", "/", b"{}").status == 415


class Evil:
    """What a stranger's pickle may have run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


def test_a_pickle_that_is_more_than_data_is_refused_and_runs_nothing(server, tmp_path):
    pairs = b"".join(b"h%ch%c\x86\x94" % (i, i) for i in range(64))  # each of the one before, twice
    bodies = {
        "runs": (pickle.dumps({"images": [Evil(tmp_path / "touched")]}), 422, "more than plain data"),
        "array": (pickle.dumps({"prompts": np.array(["a"])}), 422, "more than plain data"),
        "keys": (b"\x80\x04})\x94" + pairs + b"K\x01s.", 422, "more than plain data (EMPTY_TUPLE)"),
        "protocol 2": (pickle.dumps({"images": [b"x"]}, 2), 422, "by protocol 3 or later"),
        "persistent": (b"\x80\x04\x8c\x01aQ.", 422, "more than plain data"),
        "many": (b"\x80\x04" + b"]" * 30_000 + b".", 413, "more than 20,000 parts"),
        "memo": (b"\x80\x04]r\xff\xff\xff\x7f.", 413, "more than 20,000 parts"),
        "cut": (pickle.dumps({"images": [b"x" * 99]})[:-30], 422, "not a whole pickle"),
        "long": (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00abc.", 422, "not a whole pickle"),
        "list": (pickle.dumps([1]), 422, "not a dict"),
        "no images": (pickle.dumps({"prompts": ["x"]}), 422, "images: missing"),
        "prompts": (pickle.dumps({"images": [GREY], "prompts": [3]}), 422, "not a list of texts"),
        "unhashable": (b"\x80\x04}]Ns.", 422, "not a whole pickle"),
    }
    for kind, (body, status, part) in bodies.items():
        reply = server.ask("POST", "/", body)
        assert (reply.status, part in pickle.loads(reply.body)["error"]) == (status, True), (kind, reply.body)
    assert not (tmp_path / "touched").exists()
    pickle.loads(bodies["runs"][0])
    assert (tmp_path / "touched").exists()  # it would have


def test_nothing_is_written_to_disk(server, monkeypatch, files):
    def refuse(*args, **options):
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(tempfile, "_TemporaryFileWrapper", refuse)
    noise = png(np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8))
    assert len(noise) > 2 << 20
    assert server.post_form("/score", [("a.png", noise)], [("prompts", "x")]).json["results"][0]["scores"]


def test_what_is_served_is_told(server, scorer):
    info = server.ask("GET", "/info").json
    small, other = info["checkpoints"]
    assert (small["name"], small["dimensions"], small["range"]) == (NAME, list(scorer.scored), [0, 5])
    assert (small["explains"], other["explains"], other["method"]) == (True, False, "clip-iqa")
    assert info["limits"]["images"] == 40
    assert info["reward"]["weights"] == MIX
    assert server.ask("GET", "/ready").json == {"status": "ok"}
    for path in ("/", "/health", "/ready"):
        head = server.ask("HEAD", path)
        assert (head.status, head.body) == (200, b"")
    metrics = server.ask("GET", "/metrics").body.decode()
    assert f'mgs_images_total{{checkpoint="{NAME}",status="ok"}}' in metrics
    assert 'mgs_request_seconds_count{path="/score",status="200"}' in metrics
    assert server.ask("GET", "/docs").status == 200
    examples = server.ask("GET", "/examples").json["examples"]
    assert Image.open(io.BytesIO(server.ask("GET", examples[0]["url"]).body)).size == (512, 512)
    assert server.ask("GET", "/examples/99.jpg").status == server.ask("GET", "/examples/x").status == 404
    assert {"/score", "/rank", "/prompt", "/compute"} <= server.ask("GET", "/openapi.json").json["paths"].keys()
