"""Two runs on the same folds: what is noise, what is not, and what cannot be compared."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import skip_plots
from scipy import stats

from mgs.errors import UserError
from mgs.evaluation.comparison import compare_runs, paired_difference, read_tested_run, write_comparison
from mgs.evaluation.metrics import srcc
from mgs.evaluation.report import Background, Protocol, write_report

FOLDS, IMAGES = 5, 200


@pytest.fixture(autouse=True)
def _no_plots_of_the_runs(monkeypatch):
    skip_plots(monkeypatch)  # a comparison reads none of them, and draws its own


def make_run(folder, *, seed, correspondence=0.5, folds=range(1, FOLDS + 1), dataset="AGIQA-3K"):
    """A tested run: the same images and MOS for every run, predictions with an error that its seed decides.

    A trained model's error is mostly its own, whatever the seed: here nine tenths of the variance.
    """
    own = np.random.default_rng(seed)
    frames = []
    for fold in folds:
        common = np.random.default_rng(100 + fold)
        frame = {"fold": fold, "image": [f"{fold}-{i}.png" for i in range(IMAGES)], "prompt": "None"}
        for dimension, error in (("quality", 0.5), ("correspondence", correspondence)):
            mos = common.random(IMAGES) * 5
            noise = math.sqrt(0.9) * common.normal(size=IMAGES) + math.sqrt(0.1) * own.normal(size=IMAGES)
            frame |= {f"{dimension}_mos": mos, f"{dimension}_pred": mos + error * noise}
        frames.append(pd.DataFrame(frame))
    protocol = Protocol(dataset, "published", "ViT-B/16", "float32", ("A note.",))
    background = Background(train_images=dict.fromkeys(folds, 700))
    write_report(pd.concat(frames, ignore_index=True), protocol, folder / "report", background)
    return folder


def verdicts(*folders):
    table = compare_runs([read_tested_run(folder) for folder in folders])[1]
    return {(row["run"], row["dimension"], row["metric"]): row["verdict"] for row in table.to_dict("records")}


def test_another_seed_is_noise_and_a_broken_branch_is_not(tmp_path):
    first = make_run(tmp_path / "first", seed=1)
    seed = make_run(tmp_path / "seed", seed=2)
    broken = make_run(tmp_path / "broken", seed=3, correspondence=5.0)
    found = verdicts(first, seed, broken)
    for metric in ("srcc", "plcc"):
        for dimension in ("quality", "correspondence"):
            assert found["seed", dimension, metric] == "noise"
        assert found["broken", "quality", metric] == "noise"
        assert found["broken", "correspondence", metric] == "lower"


def test_differences_are_paired_by_fold(tmp_path):
    runs = [read_tested_run(make_run(tmp_path / name, seed=s)) for name, s in (("a", 1), ("b", 2))]
    figures, differences, folds = compare_runs(runs)
    row = differences[(differences.dimension == "quality") & (differences.metric == "srcc")].iloc[0]
    by_fold = [
        [srcc(part.quality_pred, part.quality_mos) for _, part in run.predictions.groupby("fold")] for run in runs
    ]
    gaps = np.subtract(by_fold[1], by_fold[0])
    assert folds == [1, 2, 3, 4, 5]
    assert row["difference"] == pytest.approx(gaps.mean())
    assert row["p"] == pytest.approx(stats.wilcoxon(gaps).pvalue)
    error = gaps.std(ddof=1) * math.sqrt(1 / 5 + 200 / 700)
    assert [row["low"], row["high"]] == pytest.approx(stats.t.interval(0.95, 4, loc=gaps.mean(), scale=error))
    mean = figures[(figures.run == "a") & (figures.dimension == "quality")].iloc[0]["srcc"]
    assert mean == pytest.approx(np.mean(by_fold[0]))


def test_folds_that_are_not_in_common_and_repeats_do_not_count(tmp_path):
    a, b = make_run(tmp_path / "a", seed=1, folds=[1, 2, 3, 4]), make_run(tmp_path / "b", seed=2, folds=[2, 3, 4, 5])
    runs = [read_tested_run(folder) for folder in (a, b)]
    assert compare_runs(runs)[2] == [2, 3, 4]
    repeated = []
    for run in runs:  # fold 4 becomes fold 2 under another number
        table = run.predictions[run.predictions.fold != 4]
        repeated.append(replace(run, predictions=pd.concat([table, table[table.fold == 2].assign(fold=4)])))
    figures, _, folds = compare_runs(repeated)
    assert folds == [2, 3]
    assert set(figures["folds"]) == {2}


def test_a_fold_that_repeats_one_which_is_not_in_common_counts(tmp_path):
    runs = [read_tested_run(make_run(tmp_path / name, seed=s)) for name, s in (("a", 1), ("b", 2))]
    table = runs[0].predictions
    repeating = pd.concat([table, table[table.fold == 2].assign(fold=0)])  # fold 2 repeats fold 0 in a, alone
    runs[0] = replace(runs[0], predictions=repeating)
    figures, _, folds = compare_runs(runs)
    assert folds == [1, 2, 3, 4, 5]
    assert set(figures["folds"]) == {5}


def test_a_small_difference_counts_where_all_folds_agree_on_it():
    small = np.array([0.010, 0.011, 0.012, 0.010, 0.011])
    assert paired_difference(small, overlap=2 / 7)["verdict"] == "higher"
    assert paired_difference(-small, overlap=2 / 7)["verdict"] == "lower"
    assert paired_difference(small - 0.0105, overlap=2 / 7)["verdict"] == "noise"


def test_one_fold_has_a_difference_and_no_verdict(tmp_path):
    result = paired_difference(np.array([0.1]), overlap=0.3)
    assert result["difference"] == 0.1
    assert math.isnan(result["low"])
    assert result["verdict"] == "one fold says nothing about noise"
    assert paired_difference(np.zeros(4), overlap=0.3)["verdict"] == "noise"
    assert paired_difference(np.array([0.1, math.nan]), overlap=0.3)["verdict"] == "undefined"


def test_the_comparison_leaves_tables_a_plot_and_a_page_with_the_notes_of_its_runs(tmp_path):
    folders = [make_run(tmp_path / name, seed=s) for s, name in enumerate(("first", "se_ed"))]
    text = write_comparison([read_tested_run(folder) for folder in folders], tmp_path / "comparison")
    assert "AGIQA-3K, protocol published, folds 1, 2, 3, 4, 5: 2 runs" in text
    assert text.count("A note.") == 1
    (file,) = (tmp_path / "comparison").glob("comparison_AGIQA-3K_published_*.md")
    stem = file.with_suffix("")
    for suffix in (".md", ".tex", ".csv", ".json", ".html", ".png"):
        assert stem.with_suffix(suffix).stat().st_size > 100
    write_comparison([read_tested_run(folder) for folder in folders[::-1]], tmp_path / "comparison")
    assert len(list((tmp_path / "comparison").glob("*.md"))) == 2
    assert r"se\_ed" in stem.with_suffix(".tex").read_text()
    assert len(json.loads(stem.with_suffix(".json").read_text())["differences"]) == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dataset": "AGIQA-1K"}, ["b: dataset AGIQA-1K, a: AGIQA-3K", "same folds"]),
        ({"folds": [7]}, ["no fold that all were tested on"]),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(tmp_path, change, told):
    runs = [read_tested_run(make_run(tmp_path / n, seed=1, **c)) for n, c in (("a", {}), ("b", change))]
    with pytest.raises(UserError) as error:
        compare_runs(runs)
    assert all(part in str(error.value) for part in told)


def test_other_images_or_mos_under_the_same_fold_number_are_refused(tmp_path):
    runs = [read_tested_run(make_run(tmp_path / name, seed=1)) for name in ("a", "b")]
    runs[1].predictions.loc[3, "quality_mos"] += 0.1
    with pytest.raises(UserError, match="b: fold 1 holds other images or MOS than a's"):
        compare_runs(runs)


def test_a_run_that_was_not_tested_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such run; test the run"):
        read_tested_run(tmp_path / "nothing")
    (tmp_path / "trained").mkdir()
    with pytest.raises(UserError, match=r"0 metrics_\*\.json"):
        read_tested_run(tmp_path / "trained")
    folder = make_run(tmp_path / "cut", seed=1)
    record = next((folder / "report").glob("metrics_*.json"))
    record.write_text(record.read_text()[:100])
    with pytest.raises(UserError, match=r"not what test\.py leaves"):
        read_tested_run(folder)
