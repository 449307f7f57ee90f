"""`mgs score`: files, folders and tables to rows; nothing lost by a kill, nothing crashed by a file."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from mgs.backbones.table import load_backbone
from mgs.cli import app, scorer_options
from mgs.cli.scorer_options import ScorerWords, open_scorer
from mgs.config import Config, DataConfig
from mgs.engine.engine import Engine
from mgs.errors import UserError
from mgs.files import locked
from mgs.methods.table import make_method
from mgs.methods.templates import QUALITY_WORDS
from mgs.scoring.score import columns
from mgs.scoring.scorer import Scorer
from mgs.scoring.wording import level_word
from mgs.sources.find import find_sources
from mgs.sources.tables import TableOptions
from mgs.training.checkpoint import CHECKPOINT, FINISHED, save_checkpoint

ROOT = Path(__file__).parents[1]


def named(*words):
    return [item.image for item in find_sources(words, TableOptions()).items()]


@pytest.fixture
def folder(own_set, tmp_path, monkeypatch):
    """A folder with ten images, a table of them, and a CLIP to score with."""
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes((own_set / f"{i}.png").read_bytes())
    (tmp_path / "clip.safetensors").write_bytes((own_set / "clip.safetensors").read_bytes())
    rows = [[f"{i}.png", f'a wall, number "{i}"'] for i in range(10)]
    with (tmp_path / "pairs.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "prompt"], *rows])
    monkeypatch.chdir(tmp_path)
    return tmp_path


ZERO_SHOT = ["--zero-shot", "--clip", "clip.safetensors"]


def mgs(*words, stdin=None):
    return CliRunner().invoke(app, ["score", *map(str, words), *ZERO_SHOT], input=stdin)


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_one_image_is_shown_for_people(folder):
    result = mgs("3.png", "--prompt", "a grey wall")
    assert result.exit_code == 0
    lines = dict(line.split(None, 1) for line in result.output.splitlines())
    score = Scorer.zero_shot("clip.safetensors").score("3.png", "a grey wall")
    assert lines["quality"].startswith(f"{score.quality:.2f}  ")
    assert lines["prompt"] == "a grey wall"
    assert lines["status"] == "ok: zero-shot, never trained on MOS"


def test_levels_take_the_nearest_word():
    found = [level_word("overall", value) for value in (-1, 0.6, 0.7, 2.5, 4.3, 4.4, 9)]
    assert found == [QUALITY_WORDS[i] for i in (0, 0, 1, 2, 3, 4, 4)]


def test_files_folders_and_patterns_give_rows_in_order(folder):
    (folder / "more" / "deep").mkdir(parents=True)
    for name in ("more/b.png", "more/deep/a.png"):
        (folder / name).write_bytes((folder / "1.png").read_bytes())
    for name in ("notes.txt", "film.mpg", "paper.pdf"):
        (folder / "more" / name).write_text("no image")
    result = mgs("more", "2.png", "[45].png", "--prompt", "x")
    rows = read(result.stdout)
    assert "scored by zero-shot clip.safetensors" in result.stderr
    assert [row["image"] for row in rows] == ["more/b.png", "more/deep/a.png", "2.png", "4.png", "5.png"]
    assert list(rows[0]) == columns()
    for words in (["nothing*.png"], [folder / "more" / "empty"]):
        (folder / "more" / "empty").mkdir(exist_ok=True)
        assert isinstance(mgs(*words).exception, UserError)


def test_hidden_files_are_passed_over_unless_they_are_named(folder):
    for name in ("more/a.png", "more/._a.png", "more/.thumbs/a.png", "more/__MACOSX/a.png", ".own/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((folder / "1.png").read_bytes())
    found = {word: named(word) for word in ("more", "more/**", ".own")}
    assert found == {"more": ["more/a.png"], "more/**": ["more/a.png"], ".own": [".own/a.png"]}
    assert named(".own/*", "more/._a.png") == [".own/a.png", "more/._a.png"]


def test_images_that_cannot_be_read_are_counted_and_those_that_a_plugin_reads_are_scored(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (folder / "more").mkdir()
    for name in ("a.HEIC", "b.heic", "c.jxl", "d.psd", "f.dds", "notes.txt", "paper.pdf"):
        (folder / "more" / name).write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"no image that can be read \(1 \.dds .*, 2 \.heic \(run pip install pillow-heif"
    ):
        named("more")
    (folder / "more" / "e.png").write_bytes((folder / "1.png").read_bytes())
    assert named("more") == ["more/e.png"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "more: left out 1 .dds (convert to PNG or JPEG), "
        "2 .heic (run pip install pillow-heif, or convert to PNG or JPEG), "
        "1 .jxl (run pip install pillow-jxl-plugin, or convert to PNG or JPEG), 1 .psd (convert to PNG or JPEG)"
    )
    monkeypatch.setitem(Image.OPEN, "HEIF", None)  # as where its plugin is registered
    assert named("more") == ["more/a.HEIC", "more/b.heic", "more/e.png"]


def finish_fold(folder, run, dataset, when):
    """A trained fold as far as scoring looks for one, finished at that time."""
    fold = folder / "runs" / run / "fold_01"
    fold.mkdir(parents=True)
    backbone = load_backbone(str(folder / "clip.safetensors"))
    config = Config(name=run, data=DataConfig(dataset=dataset))
    save_checkpoint(fold / CHECKPOINT, make_method(backbone, config), config, {"val": {"quality": {}}})
    (fold / FINISHED).write_text("")
    os.utime(fold / FINISHED, (when, when))


def test_without_a_checkpoint_named_the_newest_that_saw_real_images_scores(folder, monkeypatch, capsys):
    drawing = folder / "data" / "demo" / "images" / "1.png"
    (folder / "data/demo/splits/prompt-disjoint").mkdir(parents=True)
    (folder / "data/demo/splits/prompt-disjoint/protocol.json").write_text('{"dataset": "demo"}')
    monkeypatch.setattr(scorer_options, "DEFAULT_CLIP", "clip.safetensors")
    chosen = lambda *images: open_scorer(ScorerWords(), map(Path, images)).name  # noqa: E731
    assert chosen("1.png") == "zero-shot clip.safetensors"
    finish_fold(folder, "demo", "demo", 3)
    assert chosen("1.png", drawing) == "zero-shot clip.safetensors"
    assert chosen(drawing) == "runs/demo/fold_01/best.safetensors"
    finish_fold(folder, "old", "custom", 1)
    finish_fold(folder, "new", "custom", 2)
    assert chosen("1.png") == chosen() == "runs/new/fold_01/best.safetensors"
    assert chosen(drawing) == "runs/demo/fold_01/best.safetensors"
    finish_fold(folder, "broken", "custom", 4)
    (folder / "runs/broken/fold_01/best.safetensors").write_bytes(b"half")
    assert chosen("1.png") == "runs/new/fold_01/best.safetensors"
    assert "passed over: runs/broken/fold_01/best.safetensors: no readable checkpoint" in capsys.readouterr().err


def test_a_clip_of_drawings_scores_real_images_only_if_named(folder, monkeypatch):
    monkeypatch.setattr(scorer_options, "DEFAULT_CLIP", "clip.safetensors")
    place = folder / "runs" / "toy" / "fold_01"
    backbone, config = load_backbone("demo"), Config(name="toy")
    save_checkpoint(place / CHECKPOINT, make_method(backbone, config), config, {"val": {"quality": {}}})
    (place / FINISHED).touch()
    assert open_scorer(ScorerWords(), [Path("1.png")]).name == "zero-shot clip.safetensors"
    assert open_scorer(ScorerWords(place)).source.remarks == "its CLIP knows drawings only"


def test_where_there_is_nothing_to_score_with_one_line_says_what_to_do(folder, monkeypatch):
    monkeypatch.setattr(scorer_options, "DEFAULT_CLIP", "none.pt")
    result = CliRunner().invoke(app, ["score", "1.png"])
    told = str(result.exception)
    assert re.search(
        r"runs: no checkpoint that saw real images; train one, .* --clip demo; --clip=none\.pt: no such", told
    )
    assert "model.clip" not in told
    with pytest.raises(UserError, match=r"^clip=none\.pt: no such file"):
        Scorer.zero_shot("none.pt")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_becomes_a_table(folder, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    out = folder / "out" / f"scores.{suffix}"
    result = mgs("--table", "pairs.csv", "--out", out)
    assert result.exit_code == 0, result.output
    assert "10 of 10 images scored by zero-shot clip.safetensors" in result.output
    readers = {"csv": pd.read_csv, "jsonl": lambda p: pd.read_json(p, lines=True), "parquet": pd.read_parquet}
    table = readers[suffix](out)
    assert list(table) == columns()
    assert table["prompt"].tolist() == [f'a wall, number "{i}"' for i in range(10)]
    expected = Scorer.zero_shot("clip.safetensors").score_many(
        [f"{i}.png" for i in range(10)], table["prompt"].tolist()
    )
    np.testing.assert_allclose(table["correspondence"], expected["correspondence"], atol=1e-5)
    assert not list(out.parent.glob("*.partial"))


def test_a_table_from_stdin_is_read_with_its_images_folder(folder):
    table = 'image,prompt\n1.png,"a, b"\n'
    (folder / "elsewhere").mkdir()
    result = mgs("--table", "-", "--images", folder, "--out", "elsewhere/o.csv", stdin=table)
    assert result.exit_code == 0, result.output
    assert read((folder / "elsewhere/o.csv").read_text())[0]["prompt"] == "a, b"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name images, or a table"),
        (["1.png", "--table", "pairs.csv"], "one of the two"),
        (["1.png", "--images", "x"], "leave it out, or name a --table"),
        (["1.png", "--resume"], "continues an --out"),
        (["1.png", "--out", "folder.csv"], "is a folder; name a file"),
        (["1.png", "--out", "s3://bucket/o.csv"], "outputs are files of this machine"),
        (["1.png", "--out", "o.csv", "--devices", "cpu,cpu", "--set", "device=cpu"], "leave out --set device"),
        (["1.png", "--ray", "local"], "name an --out"),
        (["1.png", "--out", "scores.txt"], r"scores.txt: no such kind of output; end its name in \.csv"),
        (["1.png", "--set", "views.antialias=true"], "only device and precision can be set"),
        (["1.png", "--checkpoint", "x"], "leave out these, or --checkpoint"),
        (["--table", "none.csv"], "none.csv: no such file"),
        (["--table", "clip.safetensors"], "not UTF-8|quotation|columns|fields"),
        (["--table", "pairs.csv", "--prompt", "x"], "leave one of them out"),
        (["1.png", "--prompt-style", "poem"], "choose from keywords, hybrid, sentence"),
    ],
)
def test_wrong_words_are_one_line(folder, words, told):
    (folder / "folder.csv").mkdir()
    result = mgs(*words)
    assert isinstance(result.exception, UserError), result.output
    assert re.search(told, str(result.exception)), str(result.exception)
    assert "\n" not in str(result.exception)


def test_an_interrupted_job_is_continued_without_scoring_again(folder, monkeypatch):
    out, partial = folder / "scores.csv", folder / "scores.csv.partial" / ".part-00000.partial"
    whole = mgs("--table", "pairs.csv", "--out", "whole.csv", "--batch-size", 3)
    assert whole.exit_code == 0
    stream = Scorer.score_inputs

    def broken(self, *args, **options):
        for number, score in enumerate(stream(self, *args, **options)):
            if number == 4:
                raise KeyboardInterrupt
            yield score

    monkeypatch.setattr(Scorer, "score_inputs", broken)
    interrupted = mgs("--table", "pairs.csv", "--out", out, "--batch-size", 3)
    assert "--resume continues from there" in interrupted.output
    assert not out.exists()
    with partial.open("a") as half:
        half.write('{"image": "4.png", "pro')  # as a kill leaves it
    monkeypatch.setattr(Scorer, "score_inputs", stream)
    refused = mgs("--table", "pairs.csv", "--out", out)
    assert "continue it with --resume" in str(refused.exception)
    other = mgs("0.png", "--out", out, "--resume")
    assert "of another job" in str(other.exception)
    scored = []
    monkeypatch.setattr(Scorer, "score_inputs", lambda self, x, *y, **o: stream(self, note(x, scored), *y, **o))
    done = mgs("--table", "pairs.csv", "--out", out, "--resume", "--batch-size", 3)
    assert done.exit_code == 0
    assert [item.image for item in scored] == [f"{i}.png" for i in range(4, 10)]
    ours, theirs = (pd.read_csv(folder / name) for name in ("scores.csv", "whole.csv"))
    pd.testing.assert_frame_equal(ours, theirs, atol=1e-5)


def note(pairs, scored):
    for pair in pairs:
        scored.append(pair)
        yield pair


def test_a_job_on_other_images_of_the_same_names_is_another_job(folder, monkeypatch):
    (folder / "other").mkdir()
    for i in range(10):
        (folder / "other" / f"{i}.png").write_bytes((folder / "9.png").read_bytes())
    monkeypatch.setattr("mgs.scoring.jobs.write_rows", lambda *args: 1 / 0)
    assert isinstance(mgs("--table", "pairs.csv", "--out", "o.csv").exception, ZeroDivisionError)
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    refused = mgs("--table", "pairs.csv", "--images", "other", "--out", "o.csv", "--resume")
    assert "of another job" in str(refused.exception)
    assert mgs("--table", "pairs.csv", "--images", folder, "--out", "o.csv", "--resume").exit_code == 0


def test_a_mistake_in_the_style_leaves_nothing_that_blocks_the_corrected_command(folder):
    assert "choose from" in str(mgs("0.png", "--out", "o.csv", "--prompt-style", "keyword").exception)
    assert mgs("0.png", "--out", "o.csv", "--prompt-style", "keywords").exit_code == 0


def test_odd_prompts_and_names_come_back_harmless_in_csv_and_as_they_were_elsewhere(folder):
    odd = ["c\rd", 'a "b", c', "x\ny", "=1+1", "猫"]
    with (folder / "odd.csv").open("w", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([["image", "prompt"], *[["0.png", p] for p in odd]])
    assert mgs("--table", "odd.csv", "--out", "o.csv").exit_code == 0
    assert pd.read_csv(folder / "o.csv")["prompt"].tolist() == ["c␍d", 'a "b", c', "x\ny", "'=1+1", "猫"]
    assert mgs("--table", "odd.csv", "--out", "o.jsonl").exit_code == 0
    lines = (folder / "o.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == odd  # only what spreadsheets open is changed
    (folder / "o.jsonl").unlink()
    (folder / "n").mkdir()
    os.symlink(folder / "0.png", os.fsencode(folder / "n") + b"/b\xff.png")
    assert mgs("n", "--out", "n.csv").exit_code == 0
    assert len(read((folder / "n.csv").read_text())) == 1
    (folder / "nul.csv").write_bytes(b"image,prompt\na\0b.png,x\n0.png,y\n")
    assert mgs("--table", "nul.csv", "--out", "o.jsonl").exit_code == 1
    statuses = [json.loads(line)["status"][:5] for line in (folder / "o.jsonl").read_text().splitlines()]
    assert statuses == ["error", "ok: z"]


def test_blank_lines_from_stdin_are_no_rows(folder):
    result = mgs("--table", "-", "--out", "o.csv", stdin="image,prompt\n 1.png ,x\n\n.\\2.png,y\n\n")
    assert result.exit_code == 0, result.output
    assert len(read((folder / "o.csv").read_text())) == 2


def test_parquet_columns_have_one_type_whatever_they_hold(folder):
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    mgs("0.png", "--prompt-from", "none", "--out", "a.parquet")
    mgs("0.png", "--prompt", "x", "--out", "b.parquet")
    one, other = (pq.read_schema(folder / f"{name}.parquet").remove_metadata() for name in "ab")
    assert one.equals(other)
    assert str(one.field("overall").type) == "double"


def test_a_job_killed_before_its_first_line_starts_again(folder, monkeypatch):
    monkeypatch.setattr(Scorer, "score_inputs", lambda *args, **options: 1 / 0)
    assert isinstance(mgs("0.png", "--out", "o.csv").exception, ZeroDivisionError)
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    (folder / "o.csv.partial" / ".part-00000.partial").write_text('{"mgs.sha')
    assert mgs("0.png", "--out", "o.csv", "--resume").exit_code == 0
    assert len(read((folder / "o.csv").read_text())) == 1


@pytest.mark.slow
def test_a_killed_process_loses_nothing(folder):
    (folder / "many.csv").write_text("image,prompt\n" + "".join(f"{i % 10}.png,wall {i}\n" for i in range(600)))
    words = [sys.executable, "-m", "mgs", "score", "--table", "many.csv", "--out", "m.csv", *ZERO_SHOT]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    partial = folder / "m.csv.partial" / ".part-00000.partial"
    while process.poll() is None and (not partial.exists() or partial.read_bytes().count(b"\n") < 200):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.exists(), "the job was over before it could be killed"
    subprocess.run([*words, "--resume"], env=environment, check=True, capture_output=True)
    assert [row["prompt"] for row in read((folder / "m.csv").read_text())] == [f"wall {i}" for i in range(600)]


def make_nasty_files(folder):
    """At least forty files that go wrong in ways of their own, beside a few that are merely odd."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (80, 90, 3), dtype=np.uint8))
    kinds = ("png", "jpg", "gif", "bmp", "tif", "webp")
    for kind in kinds:
        picture.save(folder / f"whole.{kind}")
        data = (folder / f"whole.{kind}").read_bytes()
        (folder / f"half.{kind}").write_bytes(data[: len(data) // 2])
        (folder / f"header.{kind}").write_bytes(data[:20])
        (folder / f"zeros.{kind}").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
        (folder / f"empty.{kind}").write_bytes(b"")
        (folder / f"text.{kind}").write_text("this is no picture")
        (folder / f"noise.{kind}").write_bytes(rng.bytes(500))
    (folder / "png-inside.jpg").write_bytes((folder / "whole.png").read_bytes())
    Image.new("1", (40_000, 10_000)).save(folder / "huge.png")
    picture.convert("P").save(folder / "animated.gif", save_all=True, append_images=[picture.convert("P").rotate(90)])
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(rng.integers(0, 65536, (80, 90), dtype=np.uint16)).save(folder / "16-bit.png")
    picture.convert("F").save(folder / "float.tif")
    (folder / "a" / "b" / "c" / "d" / "e").mkdir(parents=True)
    picture.save(folder / "a" / "b" / "c" / "d" / "e" / "deep.png")
    picture.save(folder / "denied.png")
    (folder / "denied.png").chmod(0)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    picture.save(folder / "名前 with, comma\n and line.png")
    picture.resize((1, 1)).save(folder / "dot.png")
    picture.resize((1, 3000)).save(folder / "sliver.png")


def test_a_folder_of_nasty_files_gives_a_row_each_and_no_crash(folder):
    nasty = folder / "nasty"
    nasty.mkdir()
    make_nasty_files(nasty)
    count = sum(1 for path in nasty.rglob("*") if not path.is_dir())
    assert count >= 40
    result = mgs(nasty, "--out", "o.csv")
    assert result.exit_code == 1, result.output
    rows = read((folder / "o.csv").read_text())
    assert len(rows) == count
    status = {Path(row["image"]).name: row["status"] for row in rows}
    for name in ("whole.png", "png-inside.jpg", "animated.gif", "cmyk.jpg", "16-bit.png", "deep.png", "dot.png"):
        assert status[name].startswith("ok"), (name, status[name])
    for name in ("half.png", "half.jpg", "zeros.jpg", "text.png", "loop.png", "dangling.png", "huge.png", "float.tif"):
        assert status[name].startswith("error: "), (name, status[name])
    for row in rows:
        assert (row["quality"] != "") == row["status"].startswith("ok")


def test_scores_that_are_not_finite_are_failures_and_json_stays_json(folder, monkeypatch):
    score = Engine.score
    monkeypatch.setattr(Engine, "score", lambda *a: {d: v / 0 for d, v in score(*a).items()})
    assert mgs("0.png", "--out", "o.jsonl").exit_code == 1
    row = json.loads((folder / "o.jsonl").read_text(), parse_constant=pytest.fail)
    assert row["quality"] is None
    assert row["status"].startswith("error: quality, authenticity not finite")


def test_an_address_that_gives_nothing_is_a_row(folder):
    for word in ("http://127.0.0.1:1/a.png", "http://127.0.0.1:1/a.png?size=[3]"):
        assert re.search(r"status +error: http://127\S+: cannot be read", mgs(word).stdout)
    with pytest.raises(UserError, match="a URL; download it first"):
        Scorer.zero_shot("clip.safetensors").score("https://example.com/a.png")


def test_json_lines_keep_what_is_missing_as_null(folder):
    mgs("0.png", "none.png", "--out", "o.jsonl")
    first, second = map(json.loads, (folder / "o.jsonl").read_text().splitlines())
    assert first["correspondence"] is None
    assert first["quality"] > 0
    assert second["quality"] is None
    assert second["status"] == "error: none.png: no such file"


def test_a_second_job_into_the_same_output_is_refused(folder):
    with locked(folder / ".o.csv.lock", "the first job"):
        result = mgs("0.png", "--out", "o.csv")
    assert isinstance(result.exception, UserError)
    assert "o.csv: in use by" in str(result.exception)
    assert mgs("0.png", "--out", "o.csv").exit_code == 0
    assert not (folder / ".o.csv.lock").exists()
