"""`Scorer`: the same scores by every door, for every kind of image, alone and in batches."""

import copy
import dataclasses
import json
import math
import os
import pickle
import random
import runpy
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import random_clip, skip_plots
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from mgs import Scorer
from mgs.engine.batcher import Batcher
from mgs.engine.engine import Engine
from mgs.errors import UserError
from mgs.images import decode as images
from mgs.images import inputs
from mgs.recipes import test as testing
from mgs.recipes import train as training
from mgs.scoring import scorer as scorer_module
from mgs.scoring.wording import remarks_on_prompt

DIMENSIONS = ["quality", "correspondence"]


@pytest.fixture(scope="module")
def trained(own_set, tmp_path_factory):
    """The user's folder with a run that was trained and tested in it."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(own_set, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        skip_plots(patch)
        words = ["own.yaml", "folds=[1]", "train.epochs=1"]
        training.main(words)
        testing.main(words)
    return folder


@pytest.fixture
def scorer(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return Scorer.load("runs/own")


def predictions(folder):
    return pd.read_csv(folder / "runs/own/report/predictions_custom_random-image.csv")


def test_scores_equal_those_of_testing(trained, scorer):
    table = predictions(trained)
    scores = scorer.score_many([trained / name for name in table["image"]], table["prompt"])
    assert scores["status"].tolist() == ["ok"] * len(table)
    for dimension in DIMENSIONS:
        np.testing.assert_allclose(scores[dimension], table[f"{dimension}_pred"], atol=1e-5)
    one = scorer.score(trained / table["image"][0], table["prompt"][0])
    assert one.quality == pytest.approx(table["quality_pred"][0], abs=1e-5)


def test_what_the_checkpoint_was_not_trained_on_is_not_scored(trained, scorer):
    score = scorer.score(trained / "0.png", "a wall")
    assert score.authenticity is None
    assert score.overall is None
    assert scorer.scored == ("quality", "correspondence")


def test_an_image_scores_alike_alone_and_in_any_batch(trained, scorer):
    names = [trained / f"{i}.png" for i in range(7)]
    prompts = [f"a grey wall, {'very ' * i}grey" for i in range(7)]
    together = scorer.score_many(names, prompts, batch_size=7)
    backwards = scorer.score_many(names[::-1], prompts[::-1], batch_size=3)[::-1]
    for dimension in DIMENSIONS:
        alone = [getattr(scorer.score(n, p), dimension) for n, p in zip(names, prompts, strict=True)]
        np.testing.assert_allclose(alone, together[dimension], atol=1e-5)
        np.testing.assert_allclose(backwards[dimension], together[dimension], atol=1e-5)


def test_threads_get_the_scores_that_they_would_get_alone(trained, scorer):
    jobs = [(trained / f"{i % 5}.png", f"prompt number {i}, of a wall") for i in range(20)]
    expected = [scorer.score(*job) for job in jobs]
    scorer.engine.texts.embeddings.forget()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: scorer.score(*job), jobs))
    for one, other in zip(found, expected, strict=True):
        assert [one.quality, one.correspondence] == pytest.approx([other.quality, other.correspondence], abs=1e-5)


def test_paths_pictures_arrays_and_tensors_of_one_image_score_alike(trained, scorer):
    path = trained / "3.png"
    picture = Image.open(path)
    pixels = np.array(picture.convert("RGB"))
    forms = {
        "text": str(path),
        "picture": picture,
        "bytes": pixels,
        "floats": pixels / 255,
        "tensor": torch.from_numpy(pixels).permute(2, 0, 1),
        "float tensor": torch.from_numpy(pixels).permute(2, 0, 1) / 255,
    }
    expected = scorer.score(path, "a wall")
    for name, image in forms.items():
        assert scorer.score(image, "a wall") == dataclasses.replace(expected), name


def test_one_picture_in_many_places_is_decoded_once_and_right(scorer, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "big.png")
    expected = scorer.score(tmp_path / "big.png", "a wall").quality
    picture = Image.open(tmp_path / "big.png")  # not decoded yet
    table = scorer.score_many([picture] * 8, ["a wall"] * 8)
    assert table["status"].tolist() == ["ok"] * 8
    np.testing.assert_allclose(table["quality"], expected, atol=1e-5)


def test_a_batch_is_as_large_as_asked_for(trained, scorer, monkeypatch):
    sizes, launch = [], Batcher.launch
    monkeypatch.setattr(Batcher, "launch", lambda self, p, *a: sizes.append(len(p)) or launch(self, p, *a))
    scorer.score_many([trained / "0.png"] * 20, batch_size=12)
    assert sizes == [12, 8]


def test_what_one_call_asks_for_is_not_the_next_ones(trained, scorer, monkeypatch):
    sizes, launch = [], Batcher.launch
    monkeypatch.setattr(Batcher, "launch", lambda self, p, *a: sizes.append(len(p)) or launch(self, p, *a))
    for size in (1, None):
        scorer.score_many([trained / "0.png"] * 2, batch_size=size)
    assert sizes == [1, 1, 2]


def test_a_stream_refuses_what_is_wrong_before_it_is_read(scorer):
    with pytest.raises(UserError, match="batch_size=0"):
        scorer.score_stream([], batch_size=0)
    with pytest.raises(UserError, match="prompt style 'poem'"):
        scorer.score_stream([], style="poem")


def test_a_score_that_is_not_finite_is_an_error(trained, scorer, monkeypatch):
    score = Engine.score

    def overflow(self, batch):
        found = score(self, batch)
        found["correspondence"][0] = math.nan
        return found

    monkeypatch.setattr(Engine, "score", overflow)
    table = scorer.score_many([trained / "0.png", trained / "1.png"], ["a wall"] * 2)
    assert table["status"].tolist() == [
        "error: correspondence not finite; score with precision=fp32, or use another checkpoint",
        "ok",
    ]
    assert table[DIMENSIONS].isna().all(axis=1).tolist() == [True, False]
    with pytest.raises(UserError, match="not finite"):
        scorer.score(trained / "0.png", "a wall")
    assert scorer.score(trained / "0.png").status.startswith("ok")  # where it was not asked for, nothing is wrong


def test_a_pickled_scorer_scores_alike_and_takes_no_texts_along(trained, scorer):
    expected = scorer.score(trained / "0.png", "a wall")
    twin = pickle.loads(pickle.dumps(scorer))
    assert not twin.engine.texts.embeddings.tensors
    assert twin.score(trained / "0.png", "a wall") == expected
    assert twin.source == scorer.source


def test_a_forked_process_is_refused_at_once_with_the_remedy(trained, scorer):
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            scorer.score(trained / "0.png")
        except UserError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert "make it in the worker itself, or start workers by spawn" in os.read(read, 1000).decode()
    os.close(read)
    os.close(write)


@pytest.fixture
def rounding_host():
    """A process that has asked torch for TF32."""
    parts = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul
    before = [part.fp32_precision for part in parts]
    for part in parts:
        part.fp32_precision = "tf32"
    yield parts
    for part, precision in zip(parts, before, strict=True):
        part.fp32_precision = precision


def test_the_process_around_a_scorer_stays_as_it_is(trained, rounding_host):
    def state():
        flags = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), torch.is_grad_enabled()
        precisions = [part.fp32_precision for part in rounding_host]
        numbers = torch.get_rng_state().tolist(), random.getstate()
        return list(warnings.filters), precisions, flags, numbers, torch.backends.mha.get_fastpath_enabled()

    before = state()
    for module in (images, inputs, scorer_module):
        runpy.run_path(module.__file__)  # once more, as on a first import
    scorer = Scorer.load(trained / "runs/own")
    scorer.score_many([trained / "0.png"], ["a wall"])
    scorer.explain(trained / "0.png", "a wall")
    assert state() == before


def test_what_surrounds_a_call_changes_no_score(trained, scorer):
    expected = scorer.score(trained / "0.png", "a wall, of stone")
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.enable_grad():
        scorer.engine.texts.embeddings.forget()
        assert scorer.score(trained / "0.png", "a wall, of stone") == expected
    torch.set_default_dtype(torch.float64)
    try:
        scorer.engine.texts.embeddings.forget()
        assert scorer.score(trained / "0.png", "a wall, of stone") == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_shallow_copy_is_the_scorer_itself(trained):
    scorer = Scorer.load(trained / "runs/own")
    assert copy.copy(scorer) is scorer
    with pytest.raises(UserError, match=r"batch_size=2\.5: give 1 or more"):
        scorer.score_stream([], batch_size=2.5)
    assert scorer.score(trained / "0.png", pd.NA).correspondence is None


def make_modes(folder):
    """One picture in every mode and shape that Pillow knows and people have."""
    rng = np.random.default_rng(0)
    base = Image.fromarray(rng.integers(0, 256, (520, 560, 3), dtype=np.uint8))
    saved = {
        "palette.png": base.convert("P"),
        "grey.png": base.convert("L"),
        "one-bit.png": base.convert("1"),
        "alpha.png": base.convert("RGBA"),
        "grey-alpha.png": base.convert("LA"),
        "cmyk.jpg": base.convert("CMYK"),
        "16-bit.png": Image.fromarray(rng.integers(0, 65536, (520, 560), dtype=np.uint16)),
        "animated.gif": base.convert("P"),
        "narrow.png": base.resize((1, 90)),
        "flat.png": base.resize((90, 1)),
        "dot.png": base.resize((1, 1)),
        "webp.webp": base,
        "tiff.tif": base,
        "bmp.bmp": base,
    }
    for name, picture in saved.items():
        more = {"save_all": True, "append_images": [base.convert("P").rotate(90)]} if name == "animated.gif" else {}
        picture.save(folder / name, **more)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    base.save(folder / "turned.jpg", exif=exif)
    return [*saved, "turned.jpg"]


def test_every_mode_and_size_is_scored(scorer, tmp_path):
    names = make_modes(tmp_path)
    table = scorer.score_many([tmp_path / name for name in names], ["a wall"] * len(names))
    assert table["status"].str.startswith("ok").all(), table["status"].tolist()
    assert table[DIMENSIONS].notna().all(axis=None)
    assert table["status"][names.index("animated.gif")] == "ok: first frame of an animation"


def test_a_large_image_is_scored_and_one_beyond_the_limit_says_so(scorer, tmp_path):
    Image.new("L", (12_000, 8_400)).save(tmp_path / "100-megapixels.png")
    assert scorer.score(tmp_path / "100-megapixels.png", "a wall").status == "ok"
    Image.new("1", (40_000, 10_000)).save(tmp_path / "400-megapixels.png")
    with pytest.raises(UserError, match="exceeds limit of 178956970 pixels"):
        scorer.score(tmp_path / "400-megapixels.png")


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.full((600, 600, 3), np.nan), "not all from 0 to 1"),
        (np.full((600, 600, 3), 2.0), "not all from 0 to 1"),
        (torch.zeros(2, 600, 600), "shape"),
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (np.zeros((600, 600, 3), np.int32), "int32 pixels"),
        (7, "a int; give a path"),
        (Path("."), "not a file"),
    ],
)
def test_what_is_no_image_is_an_error_alone_and_a_row_among_others(trained, scorer, image, told):
    with pytest.raises(UserError, match=told):
        scorer.score(image)
    table = scorer.score_many([trained / "0.png", image, trained / "1.png"])
    assert [status.split(":")[0] for status in table["status"]] == ["ok", "error", "ok"]
    assert math.isnan(table["quality"][1])


@pytest.mark.parametrize("prompt", ["", "  ", None, math.nan])
def test_without_a_prompt_there_is_no_correspondence_and_the_status_says_why(trained, scorer, prompt):
    score = scorer.score(trained / "0.png", prompt)
    assert score.correspondence is None
    assert score.status == "ok: no prompt, so nothing to correspond to"
    assert score.quality == pytest.approx(scorer.score(trained / "0.png", "a wall").quality, abs=1e-5)


@pytest.mark.parametrize(
    "prompt", ["一只猫在沙发上", "قطة على أريكة", "🐱" * 40, "word " * 500, "null", "\x00\x07<b>", "a" * 3000]
)
def test_prompts_of_any_length_and_script_are_scored(trained, scorer, prompt):
    score = scorer.score(trained / "0.png", prompt)
    assert math.isfinite(score.correspondence)
    assert ("prompt longer than CLIP reads, cut" in score.status) == (len(prompt) > 200)


@pytest.mark.parametrize(
    ("prompt", "remark"),
    [
        ("a café, naïve, 5 µm wide 🐱", ""),
        ("一只猫 on a sofa", "not in Latin letters"),
        ("قطة على أريكة", "not in Latin letters"),
        ("кот", "not in Latin letters"),
        ("ελληνικά", "not in Latin letters"),
        ("a (red:1.35) cat", "generator syntax"),
        ("a cat <lora:style:0.8>", "generator syntax"),
        ("a ((red)) cat", "generator syntax"),
        ("embedding:easynegative, a cat", "generator syntax"),
        ("a cat --ar 3:2", "generator syntax"),
        ("a cat BREAK a dog", "generator syntax"),
        ("a cat (at 9:30), 16:9 -- a cat: take a break", ""),
    ],
)
def test_a_status_says_of_a_prompt_how_clip_will_read_it(scorer, prompt, remark):
    found = "; ".join(remarks_on_prompt(prompt, scorer.model))
    assert remark in found
    assert bool(found) == bool(remark)


def test_a_long_prompt_is_told_by_the_clips_own_context(tmp_path, trained):
    weights = random_clip(size=32, width=64, layers=2, embed=32, context=20).state_dict()
    save_file(weights, tmp_path / "clip.safetensors")
    status = Scorer.zero_shot(str(tmp_path / "clip.safetensors")).score(trained / "0.png", "word " * 30).status
    assert "longer than CLIP reads" in status


def test_a_prompts_style_decides_its_fragments_and_a_wrong_one_is_refused(trained, scorer):
    prompt = "wall: grey, on a hill"
    found = {s: scorer.score(trained / "0.png", prompt, style=s).correspondence for s in ("keywords", "hybrid")}
    assert found["keywords"] != found["hybrid"]
    with pytest.raises(UserError, match="prompt style 'poem': choose from keywords, hybrid, sentence"):
        scorer.score(trained / "0.png", prompt, style="poem")


def test_lists_are_paired_one_to_one(trained, scorer):
    with pytest.raises(ValueError, match=r"1 prompt\(s\) for 2 image\(s\)"):
        scorer.score_many([trained / "0.png", trained / "1.png"], ["a wall"])
    with pytest.raises(ValueError, match="one text in place of a list"):
        scorer.score_many([trained / "0.png"] * 3, "cat")
    for image in ("0.png", torch.zeros(3, 600, 600)):
        with pytest.raises(ValueError, match="one image in place of a list"):
            scorer.score_many(image)
    assert scorer.score_many([]).empty


def test_images_are_ranked_best_first(trained, scorer):
    paths = [trained / f"{i}.png" for i in range(6)]
    table = scorer.rank(paths, "a grey wall")
    assert table["correspondence"].is_monotonic_decreasing
    assert "correspondence" not in scorer.rank(paths, " ").dropna(axis=1)  # a blank prompt is none
    assert scorer.rank(paths, " ")["quality"].is_monotonic_decreasing
    assert scorer.rank(paths, by="quality")["quality"].is_monotonic_decreasing
    with pytest.raises(ValueError, match="this scorer gives quality, correspondence"):
        scorer.rank(paths, by="overall")


def test_where_memory_runs_out_batches_are_halved_and_nothing_is_lost(trained, scorer, monkeypatch):
    whole, sizes = Engine.score, []

    def limited(self, batch):
        sizes.append(len(batch.order))
        if len(batch.order) > 2:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"
            )
        return whole(self, batch)

    paths = [trained / f"{i}.png" for i in range(10)]
    expected = scorer.score_many(paths)
    monkeypatch.setattr(Engine, "score", limited)
    pd.testing.assert_frame_equal(scorer.score_many(paths), expected, atol=1e-5)
    assert sizes[:4] == [8, 4, 2, 2]
    assert max(sizes[2:]) == 2

    def hopeless(self, batch):
        raise MemoryError

    monkeypatch.setattr(Engine, "score", hopeless)
    assert scorer.score_many(paths[:2])["status"].str.contains("out of memory for a single image").all()

    def wrong(self, batch):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Engine, "score", wrong)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        scorer.score_many(paths[:2])


def test_a_zero_shot_scorer_marks_every_row(trained):
    scorer = Scorer.zero_shot(str(trained / "clip.safetensors"))
    table = scorer.score_many([trained / "0.png", trained / "1.png"], ["a wall", None])
    assert table["status"].str.contains("zero-shot, never trained on MOS").all()
    assert table["authenticity"].notna().all()
    assert table["overall"].isna().all()


def test_a_checkpoint_that_names_no_dimension_is_refused(trained, scorer, tmp_path):
    file = trained / "runs/own/fold_01/best.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = json.loads(opened.metadata()["mgs"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    del metadata["val"]
    save_file(tensors, tmp_path / "best.safetensors", metadata={"mgs": json.dumps(metadata)})
    with pytest.raises(UserError, match="does not say which dimensions"):
        Scorer.load(tmp_path)


def test_a_checkpoint_is_found_by_file_fold_run_and_age(trained, scorer, tmp_path):
    file = trained / "runs/own/fold_01/best.safetensors"
    for path in (file, file.parent):
        assert Path(Scorer.load(path).name).samefile(file)
    with pytest.raises(UserError, match="no finished fold"):
        Scorer.load(tmp_path)


def test_a_scorer_may_be_made_in_inference_mode(own_set):
    with torch.inference_mode():
        scorer = Scorer.zero_shot(str(own_set / "clip.safetensors"), device="cpu")
        first = scorer.score(own_set / "3.png", "a cat")
    assert scorer.score(own_set / "3.png", "a cat") == first
    assert not any(weight.requires_grad for weight in scorer.model.parameters())  # so that matrices are cast once
