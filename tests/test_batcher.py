"""`Batcher`: callers share full batches, get their own scores in order, and none of them ever hangs."""

import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mgs import Scorer
from mgs.dimensions import Prompt
from mgs.engine.batcher import Batcher
from mgs.errors import UserError
from mgs.images.cuts import Cuts
from mgs.images.forms import as_prompt
from mgs.scoring import streaming
from mgs.scoring.metric import ImageMetric
from mgs.scoring.streaming import load_pair, score_all

ROOT = Path(__file__).parents[1]
SOON = 20  # seconds, after which a thread is taken to hang


class StubEngine:
    """Scores a picture by its first pixel, in reverse order; more than `room` pictures at once do not fit."""

    def __init__(self, room=1 << 30):
        self.machine, self.cuts = SimpleNamespace(device=torch.device("cpu")), Cuts()
        self.room, self.sizes, self.threads = room, [], set()
        self.before_score = lambda batch: None

    def stage(self, pictures, prompts):
        assert len(pictures) == len(prompts)
        order = list(range(len(pictures)))[::-1]
        return SimpleNamespace(order=order, pictures=[pictures[i] for i in order], prompts=prompts)

    def score(self, batch):
        self.sizes.append(len(batch.order))
        self.threads.add(threading.current_thread().name)
        self.before_score(batch)
        if len(batch.order) > self.room:
            raise MemoryError
        values = torch.stack([picture[0, 0, 0].float() for picture in batch.pictures])
        return {"quality": values, "authenticity": -values}


def pictures_of(*values):
    """A small picture for each number."""
    return [torch.full((3, 2, 2), value, dtype=torch.uint8) for value in values]


def submit(batcher, *values, most=8):
    """Ask for the scores of a small picture for each number."""
    return batcher.submit(pictures_of(*values), [Prompt("")] * len(values), most=most)


def qualities(answer):
    """A request's scores, once they are there."""
    return [found and found["quality"] for found in answer.result(SOON)]


@pytest.fixture
def engine():
    return StubEngine()


@pytest.fixture
def batcher(engine):
    return Batcher(engine)


class Gate:
    """Holds an engine's thread, between batches, until `open` is called."""

    def __init__(self, batcher):
        reached, self.free = threading.Event(), threading.Event()
        batcher.thread.submit(lambda: (reached.set(), self.free.wait(SOON)))
        assert reached.wait(SOON)

    def open(self):
        self.free.set()


def test_requests_that_gather_share_full_batches_and_keep_their_order(engine, batcher):
    gate = Gate(batcher)
    answers = [submit(batcher, i) for i in range(20)]
    gate.open()
    assert [qualities(answer) for answer in answers] == [[i] for i in range(20)]
    assert engine.sizes == [8, 8, 4]
    assert batcher.call(lambda: list(batcher.running)) == []


def test_requests_of_many_images_get_their_own_scores_in_their_order(engine, batcher):
    gate = Gate(batcher)
    answers = [submit(batcher, *range(start, start + length)) for start, length in ((0, 3), (10, 5), (20, 1), (30, 8))]
    gate.open()
    assert [qualities(answer) for answer in answers] == [[*range(3)], [*range(10, 15)], [20], [*range(30, 38)]]
    assert engine.sizes == [8, 1, 8]  # a request is never taken apart to fill a batch
    assert answers[0].result()[2] == {"quality": 2.0, "authenticity": -2.0}


def test_a_batch_is_no_larger_than_any_of_its_requests_allows(engine, batcher):
    gate = Gate(batcher)
    answers = [submit(batcher, 1, most=8), submit(batcher, 2, most=2), submit(batcher, 3, most=8)]
    gate.open()
    assert [qualities(answer) for answer in answers] == [[1], [2], [3]]
    assert engine.sizes == [2, 1]


def test_no_request_waits_for_others_to_come(engine, batcher):
    assert qualities(submit(batcher, 7)) == [7]
    assert batcher.submit([], [], most=8).result(0) == []
    assert engine.sizes == [1]


def test_many_threads_at_once_get_the_scores_that_they_asked_for(engine, batcher):
    # each thread waits for its answer before it asks again; so batches hold up to twelve images, and most are shared
    def ask(thread):
        return [qualities(submit(batcher, (thread * 20 + i) % 256)) == [(thread * 20 + i) % 256] for i in range(20)]

    with ThreadPoolExecutor(12) as pool:
        assert all(all(right) for right in pool.map(ask, range(12)))
    assert sum(engine.sizes) == 240
    assert max(engine.sizes) <= 8
    assert len(engine.threads) == 1


def test_the_next_batch_is_sent_before_the_last_ones_scores_are_read(engine, batcher, monkeypatch):
    events, launch, finish = [], Batcher.launch, Batcher.finish
    monkeypatch.setattr(Batcher, "launch", lambda self, *a: events.append("send") or launch(self, *a))
    monkeypatch.setattr(Batcher, "finish", lambda self: events.append("read") or finish(self))
    gate = Gate(batcher)
    answers = [submit(batcher, *range(8)) for _ in range(3)]
    gate.open()
    assert [len(answer.result(SOON)) for answer in answers] == [8, 8, 8]
    assert events == ["send", "send", "read", "send", "read", "read"]


def test_what_goes_through_call_runs_on_the_thread_between_batches(engine, batcher):
    assert batcher.call(lambda *a: (a, threading.current_thread().name), 1, 2) == ((1, 2), "mgs-engine_0")
    with pytest.raises(ZeroDivisionError):
        batcher.call(lambda: 1 / 0)
    assert qualities(submit(batcher, 3)) == [3]
    assert engine.threads == {"mgs-engine_0"}


def score_pairs(batcher, pairs, size):
    return score_all(batcher, ((image, as_prompt(prompt)) for image, prompt in pairs), load_pair, size, "sentence")


@pytest.mark.parametrize("bad", [[], [1, 3, 4, 6, 9, 10, 12, 13, 14]])
def test_one_callers_batches_are_the_same_every_time(engine, batcher, bad):
    # Whatever the timing, and even where images could not be read: a batch's scores differ in their last bits by size.
    pairs = [(None if i in bad else torch.full((3, 512, 512), i, dtype=torch.uint8), None) for i in range(18)]
    for slow in (0, 0.05):
        engine.sizes.clear()
        gate = Gate(batcher)
        timer = threading.Timer(slow, gate.open)
        timer.start()
        found = list(score_pairs(batcher, pairs, 6))
        assert [one.found and one.found["quality"] for one in found] == [None if i in bad else i for i in range(18)]
        assert engine.sizes == [sum(i not in bad for i in range(start, start + 6)) for start in (0, 6, 12)]


def test_a_request_that_memory_does_not_hold_is_halved_until_it_fits(batcher, engine):
    engine.room = 3
    assert qualities(submit(batcher, *range(10), most=16)) == [*range(10)]
    assert engine.sizes == [10, 5, 2, 2, 2, 2, 2]
    assert batcher.fits == 2
    engine.sizes.clear()
    gate = Gate(batcher)
    answers = [submit(batcher, *range(5)), *(submit(batcher, i) for i in range(4))]
    gate.open()
    assert [qualities(answer) for answer in answers] == [[*range(5)], [0], [1], [2], [3]]
    assert engine.sizes == [2, 2, 1, 2, 2]  # what did not fit is not tried again


def test_callers_who_share_a_batch_that_does_not_fit_all_get_their_scores(batcher, engine):
    engine.room = 2
    gate = Gate(batcher)
    answers = [submit(batcher, *range(3)), submit(batcher, 3), submit(batcher, *range(4, 8))]
    gate.open()
    assert [qualities(answer) for answer in answers] == [[0, 1, 2], [3], [4, 5, 6, 7]]
    assert engine.sizes == [8, 4, 2, 2, 2, 2]


def test_a_batch_on_the_way_is_answered_when_the_next_one_does_not_fit(batcher, engine):
    gate = Gate(batcher)
    first, second = submit(batcher, *range(6)), submit(batcher, *range(10, 18))
    engine.room = 6
    gate.open()
    assert qualities(first) == [*range(6)]
    assert qualities(second) == [*range(10, 18)]
    assert engine.sizes == [6, 8, 4, 4]


def test_an_image_that_does_not_fit_alone_has_no_scores_and_the_others_have(batcher, engine):
    def too_large(batch):
        if any(picture[0, 0, 0] == 5 for picture in batch.pictures):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    engine.before_score = too_large
    assert qualities(submit(batcher, 3, 5, 4)) == [3, None, 4]


def test_a_lone_image_that_does_not_fit_makes_no_later_batch_smaller(batcher, engine):
    engine.room = 0
    assert qualities(submit(batcher, 1)) == [None]
    engine.room = 8
    engine.sizes.clear()
    assert qualities(submit(batcher, *range(8))) == [*range(8)]
    assert engine.sizes == [8]


def test_an_error_reaches_every_caller_of_the_batch_and_no_other(batcher, engine):
    def fail(batch):
        if any(picture[0, 0, 0] == 5 for picture in batch.pictures):
            raise ValueError("shapes do not match")

    engine.before_score = fail
    gate = Gate(batcher)
    good, *bad, later = [submit(batcher, *range(10, 18)), *(submit(batcher, i) for i in range(8)), submit(batcher, 9)]
    gate.open()
    assert qualities(good) == [*range(10, 18)]
    for answer in bad:
        with pytest.raises(ValueError, match="shapes do not match"):
            answer.result(SOON)
    assert qualities(later) == [9]
    assert qualities(submit(batcher, 1)) == [1]  # the thread goes on


def test_an_error_in_staging_or_in_late_reading_reaches_its_callers(batcher, engine, monkeypatch):
    monkeypatch.setattr(StubEngine, "stage", lambda self, *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        submit(batcher, 1).result(SOON)
    monkeypatch.undo()
    monkeypatch.setattr("mgs.engine.plan.LateScores.read", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        submit(batcher, 1).result(SOON)
    monkeypatch.undo()
    assert qualities(submit(batcher, 1)) == [1]


def test_an_error_while_a_batch_is_scored_in_parts_reaches_its_callers(batcher, engine):
    def fail(batch):
        if len(batch.order) == 4:
            raise ValueError("shapes do not match")

    engine.room, engine.before_score = 6, fail
    gate = Gate(batcher)
    answers = [submit(batcher, *range(5)), submit(batcher, *range(3))]
    gate.open()
    for answer in answers:
        with pytest.raises(ValueError, match="shapes do not match"):
            answer.result(SOON)
    assert qualities(submit(batcher, 1)) == [1]


def test_cancelled_requests_are_skipped(batcher, engine):
    gate = Gate(batcher)
    answers = [submit(batcher, i) for i in range(6)]
    assert all(answer.cancel() for answer in answers[1::2])
    gate.open()
    assert [qualities(answer) for answer in answers[::2]] == [[0], [2], [4]]
    for answer in answers[1::2]:
        with pytest.raises(CancelledError):
            answer.result(SOON)
    assert engine.sizes == [3]
    gate = Gate(batcher)
    answers = [submit(batcher, i) for i in range(6)]
    assert all(answer.cancel() for answer in answers)
    gate.open()
    assert qualities(submit(batcher, 1)) == [1]
    assert engine.sizes == [3, 1]


def test_a_request_that_comes_too_late_is_refused_and_hangs_nobody(batcher, engine):
    reached, free = threading.Event(), threading.Event()
    engine.before_score = lambda batch: (reached.set(), free.wait(SOON))
    early = submit(batcher, 1)
    assert reached.wait(SOON)
    batcher.thread.shutdown(wait=False)  # as where the interpreter ends
    with pytest.raises(RuntimeError, match="cannot schedule"):
        submit(batcher, 2)
    free.set()
    assert qualities(early) == [1]
    assert not batcher.waiting


def test_the_thread_ends_with_the_batcher(engine):
    batcher = Batcher(engine)
    answer = submit(batcher, *range(8))
    (thread,) = batcher.thread._threads
    gone = weakref.ref(batcher)
    del batcher
    assert qualities(answer) == [*range(8)]
    thread.join(SOON)
    assert gone() is None
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def clip(own_set):
    return str(own_set / "clip.safetensors")


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (520, 520, 3), dtype=np.uint8)


def test_a_scorer_that_nobody_needs_is_freed_with_its_thread(clip):
    scorer = Scorer.zero_shot(clip, device="cpu")
    scorer.score(picture(), "a wall")
    scorer.explain(picture(), "a wall")
    next(scorer.score_stream([(picture(), "a wall")] * 40))  # and the stream is left behind
    (thread,) = scorer.batcher.thread._threads
    gone = weakref.ref(scorer), weakref.ref(scorer.model)
    gc.disable()  # a circle of objects would keep a GPU's memory until the next collection
    try:
        del scorer
        thread.join(SOON)
        assert not thread.is_alive()
        assert [one() for one in gone] == [None, None]
    finally:
        gc.enable()


def test_a_scorer_is_pickled_while_others_use_it_and_the_twin_has_its_own_thread(clip):
    scorer = Scorer.zero_shot(clip, device="cpu")
    prompts = [f"a wall, number {i}" for i in range(24)]
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(scorer.score_many, [picture()] * 24, prompts)
        twins = [pickle.loads(pickle.dumps(scorer)) for _ in range(5)]
        table = busy.result()
    assert len({id(one.batcher.thread) for one in (scorer, *twins)}) == 6
    for twin in twins[::2]:
        assert twin.score(picture(), prompts[3]).quality == pytest.approx(table["quality"][3], abs=1e-5)


DOORS = {
    "score": lambda scorer: scorer.score(picture()),
    "score_many": lambda scorer: scorer.score_many([picture()]),
    "score_stream": lambda scorer: scorer.score_stream([]),
    "rank": lambda scorer: scorer.rank([picture()]),
    "explain": lambda scorer: scorer.explain(picture()),
    "metric": lambda scorer: ImageMetric(scorer, "quality")(torch.zeros(1, 3, 512, 512)),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_forked_process_is_refused_at_every_door(clip, door):
    scorer = Scorer.zero_shot(clip, device="cpu")
    scorer.score(picture())
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            DOORS[door](scorer)
        except UserError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert "Scorer: made before this process was forked" in os.read(read, 1000).decode()
    os.close(read)
    os.close(write)


USE = """
def use():
    try:
        while True: scorer.score(picture, 'a wall')
    except RuntimeError as error: assert 'shutdown' in str(error), error
"""
STREAM = "stream = scorer.score_stream([(picture, 'a wall')] * 40); next(stream)\n"
REQUESTS = "[scorer.batcher.submit(pictures, [Prompt('')], most=1) for _ in range(3)]\n"
THREADS = USE + "for _ in range(4): threading.Thread(target=use).start()\ntime.sleep(0.5)\n"
DAEMONS = USE + "for _ in range(4): threading.Thread(target=use, daemon=True).start()\ntime.sleep(0.5)\n"
FORK = "scorer.score(picture, 'a wall'); child = os.fork()\nif child: assert os.waitpid(child, 0)[1] == 0\n"


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(STREAM + REQUESTS + THREADS, id="amid work"),
        pytest.param(FORK, id="forked"),
        *(
            pytest.param(code, id=name, marks=pytest.mark.slow)
            for name, code in {"stream": STREAM, "requests": REQUESTS, "threads": THREADS, "daemons": DAEMONS}.items()
        ),
    ],
)
def test_a_process_with_a_scorer_ends(clip, ending):
    code = (
        "import os, threading, time\nimport numpy as np, torch\n"
        "from mgs import Scorer\nfrom mgs.dimensions import Prompt\n"
        "torch.set_num_threads(1)\n"
        "picture = np.full((512, 512, 3), 90, np.uint8)\npictures = [torch.from_numpy(picture).permute(2, 0, 1)]\n"
        f"scorer = Scorer.zero_shot({clip!r}, device='cpu')\n{ending}"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_what_was_taken_before_an_error_is_scored_first(batcher):
    pairs = [*zip(pictures_for_stream(6), ["a"] * 5 + [3], strict=True)]
    found = []
    with pytest.raises(UserError, match="prompt 3"):
        found.extend(score_pairs(batcher, pairs, 2))
    assert [one.found["quality"] for one in found] == [0, 1, 2, 3, 4]


def test_a_stream_that_is_left_leaves_nothing_in_the_queue(batcher, engine, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    free = threading.Event()
    engine.machine.device = torch.device("cuda")  # where two batches are on their way
    monkeypatch.setattr(streaming, "gather", interrupt)
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(batcher.call, free.wait)
        with pytest.raises(KeyboardInterrupt):
            list(score_pairs(batcher, zip(pictures_for_stream(8), ["a"] * 8, strict=True), 2))
        free.set()
        assert busy.result(SOON)
    batcher.call(lambda: None)
    assert engine.sizes == []


def test_the_engines_thread_has_as_many_threads_as_its_callers(batcher):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert batcher.call(torch.get_num_threads) == 1
        torch.set_num_threads(2)
        assert batcher.call(torch.get_num_threads) == 2
    finally:
        torch.set_num_threads(before)


def pictures_for_stream(count):
    """Images whose first pixel is their number; no side is so short that they are enlarged."""
    return [np.full((512, 512, 3), i, np.uint8) for i in range(count)]
