"""Leaks, other datasets and comparisons, by the commands that users type."""

import json
import re
import shutil

import pandas as pd
import pytest
from conftest import skip_plots

from mgs.config_files import load_config
from mgs.datasets.folds import find_folds
from mgs.errors import UserError
from mgs.recipes import test as testing
from mgs.recipes import train as training

ONE = ["own.yaml", "folds=[1]", "train.epochs=1"]


def make_leak(here):
    """Copy a train image over a test image; the folds are drawn from names here, so write them down first."""
    data = load_config(here / "own.yaml").data
    fold = find_folds(data, [1])[0]
    for subset in ("train", "val", "test"):
        rows = [{"image": s.name, "prompt": s.prompt, **s.targets} for s in getattr(fold, subset)]
        path = here / "splits" / "1" / f"{subset}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(path, index=False)
    shutil.copy(fold.train[0].image, fold.test[0].image)
    return ["leak.yaml", "train.epochs=1"], f"{fold.test[0].name} = {fold.train[0].name}"


def test_a_leak_stops_training_and_where_it_is_allowed_every_table_carries_it(here):
    words, pair = make_leak(here)
    (here / "leak.yaml").write_text(
        "base: own.yaml\ndata: {table: null, splits: splits, root: ., mos_range: [0, 5]}\nfolds: []\n"
    )
    with pytest.raises(UserError, match=rf"leak: 1 image of test also in train \(fold 1: {pair}\).*data\.allow_leaks"):
        training.main(words)
    assert not (here / "runs").exists()
    training.main([*words, "data.allow_leaks=true"])
    testing.main([*words, "data.allow_leaks=true"])
    report = here / "runs" / "leak" / "report"
    for file in ("table_custom_random-image.md", "table_custom_random-image.tex", "report_custom_random-image.html"):
        assert "Leak: 1 image of test also in train" in (report / file).read_text(encoding="utf-8")
    record = json.loads((report / "metrics_custom_random-image.json").read_text())
    assert any(note.startswith("Leak: 1 image") for note in record["notes"])


def test_a_leak_in_published_folds_is_said_and_stands_in_every_table_but_stops_nothing(here, capsys):
    for fold in ("1", "2"):
        for subset, numbers in (("train", range(6)), ("val", range(6, 10)), ("test", range(10, 14))):
            path = here / "data" / "AGIQA-1K" / "splits" / "published" / fold / f"{subset}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            numbers = [*numbers, 0] if (fold, subset) == ("2", "test") else numbers
            rows = [{"Image": f"{i}.png", "Prompt": "a wall", "MOS": i / 5} for i in numbers]
            pd.DataFrame(rows).to_csv(path, index=False)
    for i in range(14):
        shutil.copy(here / f"{i}.png", here / "data" / "AGIQA-1K")
    words = ["model.clip=clip.safetensors", "train.epochs=1"]
    training.main(words)
    assert "AGIQA-1K: leak: 1 image of test also in train (fold 2: 0.png)" in capsys.readouterr().out
    testing.main(words)
    report = here / "runs" / "agiqa1k" / "report"
    for suffix, head in ((".md", "\n|--"), (".tex", r"\toprule"), (".html", "<caption>")):
        (file,) = report.glob(f"*{suffix}")
        text = file.read_text(encoding="utf-8")
        tables = 3  # the summary, the literature's figures, the folds
        assert text.count(head) == tables
        assert text.count("<li>Leak: 1 image" if suffix == ".html" else "Leak: 1 image") >= tables


def test_equal_files_under_two_names_stay_in_one_subset_of_folds_that_are_drawn(here):
    shutil.copy(here / "0.png", here / "1.png")
    data = load_config(here / "own.yaml").data
    for number in range(1, 11):
        fold = find_folds(data, [number])[0]
        holders = [s for s in ("train", "val", "test") if {"0.png", "1.png"} & {x.name for x in getattr(fold, s)}]
        assert len(holders) == 1


@pytest.fixture(scope="module")
def tested(own_set, tmp_path_factory):
    """The user's folder with a run that was trained and tested in it."""
    folder = tmp_path_factory.mktemp("tested")
    shutil.copytree(own_set, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        skip_plots(patch)
        training.main(ONE)
        testing.main(ONE)
    return folder


@pytest.fixture
def trained(here, tested):
    """A copy of its own of that for a test which adds to it."""
    shutil.copytree(tested / "runs", here / "runs")
    return here


def test_another_datasets_test_sets_are_scored_on_the_dimensions_that_both_have(trained, capsys):
    table = pd.read_csv(trained / "mos.csv").rename(columns={"correspondence": "authenticity"})
    table.to_csv(trained / "other.csv", index=False)
    (trained / "other.yaml").write_text("base: own.yaml\ndata: {table: other.csv}\n")
    testing.main(["--checkpoint", "runs/own/fold_01", "other.yaml", "folds=[2]"])
    report = trained / "runs" / "other_by_own_fold_01" / "report"
    predictions = pd.read_csv(report / "predictions_custom_random-image.csv")
    assert [c for c in predictions if c.endswith("_pred")] == ["quality_pred"]
    assert predictions["fold"].unique() == [2]
    out = capsys.readouterr().out
    assert "Cross-dataset: scored by own_fold_01, trained on custom, protocol random-image" in out
    assert "Dimensions left out, since checkpoint or data lack them: authenticity, correspondence." in out
    # the same images by the run's own test: the same scores
    testing.main(["--checkpoint", "runs/own/fold_01/best.safetensors", "own.yaml", "folds=[1]"])
    own, again = (
        pd.read_csv(trained / "runs" / name / "report" / "predictions_custom_random-image.csv")
        for name in ("own", "own_by_own_fold_01")
    )
    pd.testing.assert_frame_equal(own, again)


def test_a_dataset_without_a_dimension_in_common_is_refused(trained):
    table = pd.read_csv(trained / "mos.csv").drop(columns="correspondence").rename(columns={"quality": "overall"})
    table.to_csv(trained / "other.csv", index=False)
    (trained / "other.yaml").write_text("base: own.yaml\ndata: {table: other.csv}\n")
    with pytest.raises(UserError, match="trained on quality, correspondence of custom, and custom has MOS for overall"):
        testing.main(["--checkpoint", "runs/own/fold_01", "other.yaml"])


def test_tested_runs_are_compared_and_left_beside_them(trained, capsys):
    training.main([*ONE, "name=again"])
    testing.main([*ONE, "name=again"])
    testing.main(["--compare", "runs/own", "runs/again"])
    out = capsys.readouterr().out
    assert "**custom, protocol random-image: Differences to MGS, own**" in out
    assert re.search(r"\| MGS, again +\| quality +\| SRCC +\| \+0.0000 +\| – +\| – +\| one fold says nothing", out)
    assert len(list((trained / "runs" / "comparison").glob("leaderboard_*.html"))) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--compare", "runs/own"], "two or more folders"),
        (["--compare", "runs/own", "runs/own"], "runs/own is named twice"),
        (["--compare", "runs/own", "runs/../runs/own"], "is named twice, or has another's name"),
        (["--compare", "runs/own", "runs/none"], "runs/none: no such run"),
        (["--checkpoint", "runs/own/fold_01", "own.yaml"], r"trained on fold 1 of these.*say folds=\[1\]"),
        (["--compare", "runs/own", "runs/none", "--checkpoint", "x"], "two or more folders of runs, and nothing else"),
        (["--checkpoint", "nowhere", "own.yaml"], "nowhere: no readable checkpoint"),
    ],
)
def test_wrong_words_are_one_line(tested, monkeypatch, words, told):
    monkeypatch.chdir(tested)
    with pytest.raises(UserError, match=told):
        testing.main(words)
