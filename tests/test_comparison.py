"""Runs on the same folds: what is noise, what is not, what makes up a leaderboard, and what cannot be compared."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import skip_plots
from scipy import stats

from mgs.errors import UserError
from mgs.evaluation.comparison import compare_entries, paired_difference
from mgs.evaluation.costs import Costs, add_costs, mean_costs
from mgs.evaluation.leaderboard import write_leaderboard
from mgs.evaluation.metrics import srcc
from mgs.evaluation.per_fold import measure_folds
from mgs.evaluation.report import Background, Protocol, write_report
from mgs.evaluation.tested_runs import group_runs, join_runs, read_tested_run

FOLDS, IMAGES = 5, 200


@pytest.fixture(autouse=True)
def _no_plots_of_the_runs(monkeypatch):
    skip_plots(monkeypatch)  # a comparison reads none of them, and draws its own


def make_run(
    folder,
    *,
    seed,
    correspondence=0.5,
    folds=range(1, FOLDS + 1),
    dataset="AGIQA-3K",
    scored=("quality", "correspondence"),
    method="MGS",
    backbone="ViT-B/16",
    prompted=("correspondence",),
    costs=None,
):
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
            if dimension in scored:
                frame |= {f"{dimension}_mos": mos, f"{dimension}_pred": mos + error * noise}
        frames.append(pd.DataFrame(frame))
    protocol = Protocol(dataset, "published", backbone, "float32", ("A note.",), "", method, prompted)
    background = Background(train_images=dict.fromkeys(folds, 700), costs=costs)
    write_report(pd.concat(frames, ignore_index=True), protocol, folder / "report", background)
    return folder


def compare(*folders):
    """One group of runs, compared."""
    (group,) = group_runs([read_tested_run(folder) for folder in folders])
    return compare_entries(join_runs(group))


def verdicts(*folders):
    table = compare(*folders).results
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
    comparison = compare_entries(join_runs(runs))
    table = comparison.results.set_index(["run", "dimension", "metric"])
    row = table.loc["b", "quality", "srcc"]
    by_fold = [
        [srcc(part.quality_pred, part.quality_mos) for _, part in run.predictions.groupby("fold")] for run in runs
    ]
    gaps = np.subtract(by_fold[1], by_fold[0])
    assert comparison.folds == [1, 2, 3, 4, 5]
    assert row["difference"] == pytest.approx(gaps.mean())
    assert row["p"] == pytest.approx(stats.wilcoxon(gaps).pvalue)
    error = gaps.std(ddof=1) * math.sqrt(1 / 5 + 200 / 700)
    expected = stats.t.interval(0.95, 4, loc=gaps.mean(), scale=error)
    assert [row["difference_low"], row["difference_high"]] == pytest.approx(expected)
    first = table.loc["a", "quality", "srcc"]
    assert first["value"] == pytest.approx(np.mean(by_fold[0]))
    own = stats.t.interval(0.95, 4, loc=np.mean(by_fold[0]), scale=np.std(by_fold[0], ddof=1) / math.sqrt(5))
    assert [first["low"], first["high"]] == pytest.approx(own)
    assert first["verdict"] == ""
    assert math.isnan(first["difference"])


def test_folds_that_are_not_in_common_and_repeats_do_not_count(tmp_path):
    a, b = make_run(tmp_path / "a", seed=1, folds=[1, 2, 3, 4]), make_run(tmp_path / "b", seed=2, folds=[2, 3, 4, 5])
    assert compare(a, b).folds == [2, 3, 4]
    repeated = []
    for run in (read_tested_run(folder) for folder in (a, b)):  # fold 4 becomes fold 2 under another number
        table = run.predictions[run.predictions.fold != 4]
        repeated.append(replace(run, predictions=pd.concat([table, table[table.fold == 2].assign(fold=4)])))
    comparison = compare_entries(join_runs(repeated))
    assert (comparison.folds, comparison.left_out) == ([2, 3], [1, 4, 5])
    assert set(comparison.results["folds"]) == {2}


def test_a_fold_that_repeats_one_which_is_not_in_common_counts(tmp_path):
    runs = [read_tested_run(make_run(tmp_path / name, seed=s)) for name, s in (("a", 1), ("b", 2))]
    table = runs[0].predictions
    repeating = pd.concat([table, table[table.fold == 2].assign(fold=0)])  # fold 2 repeats fold 0 in a, alone
    runs[0] = replace(runs[0], predictions=repeating)
    comparison = compare_entries(join_runs(runs))
    assert comparison.folds == [1, 2, 3, 4, 5]
    assert set(comparison.results["folds"]) == {5}


def test_a_small_difference_counts_where_all_folds_agree_on_it():
    small = np.array([0.010, 0.011, 0.012, 0.010, 0.011])
    assert paired_difference(small, overlap=2 / 7)["verdict"] == "higher"
    assert paired_difference(-small, overlap=2 / 7)["verdict"] == "lower"
    assert paired_difference(small - 0.0105, overlap=2 / 7)["verdict"] == "noise"


def test_one_fold_has_a_difference_and_no_verdict(tmp_path):
    result = paired_difference(np.array([0.1]), overlap=0.3)
    assert result["difference"] == 0.1
    assert math.isnan(result["difference_low"])
    assert result["verdict"] == "one fold says nothing about noise"
    assert paired_difference(np.zeros(4), overlap=0.3)["verdict"] == "noise"
    assert paired_difference(np.array([0.1, math.nan]), overlap=0.3)["verdict"] == "undefined"


def test_runs_of_one_method_for_a_target_each_are_one_row(tmp_path):
    first = make_run(tmp_path / "first", seed=1)
    parts = [
        make_run(tmp_path / f"ipce-{d}", seed=s, scored=[d], method="IPCE", correspondence=5.0)
        for s, d in enumerate(("correspondence", "quality"))
    ]
    other = make_run(tmp_path / "ipce-large", seed=4, scored=["quality"], method="IPCE", backbone="ViT-L/14")
    comparison = compare(first, *parts, other)
    assert [(entry.name, entry.run_names) for entry in comparison.entries] == [
        ("MGS", "first"),
        ("IPCE, ViT-B/16", "ipce-correspondence + ipce-quality"),
        ("IPCE, ViT-L/14", "ipce-large"),
    ]
    found = verdicts(first, *parts, other)
    assert found["ipce-correspondence", "correspondence", "srcc"] == "lower"
    assert found["ipce-quality", "quality", "srcc"] == "noise"
    assert ("ipce-large", "correspondence", "srcc") not in found
    same = [make_run(tmp_path / name, seed=s) for s, name in enumerate(("one", "two"))]
    assert [entry.name for entry in compare(*same).entries] == ["MGS, one", "MGS, two"]


def test_a_dimension_that_the_first_lacks_has_figures_and_no_verdict(tmp_path):
    part = make_run(tmp_path / "part", seed=1, scored=["quality"], method="IPCE")
    whole = make_run(tmp_path / "whole", seed=2)
    folder = tmp_path / "out"
    text = write_leaderboard([read_tested_run(run) for run in (part, whole)], folder)
    assert "No verdict on correspondence: IPCE does not score it." in text
    rows = pd.read_csv(next(folder.glob("*.csv")), keep_default_na=False).set_index(["method", "dimension", "metric"])
    alone = rows.loc["MGS", "correspondence", "srcc"]
    table = measure_folds(read_tested_run(whole).predictions)
    assert float(alone["value"]) == pytest.approx(table[table.dimension == "correspondence"]["srcc"].mean())
    assert (alone["verdict"], alone["difference"]) == ("", "")
    assert rows.loc["MGS", "quality", "srcc"]["verdict"] == "noise"


def test_costs_add_up_over_models_and_are_averaged_over_folds():
    one = Costs(10, 4, 6.0, 2.0, 20.0, 60.0, "GPU", 2)
    both = add_costs([one, replace(one, images_s=5.0, gflop_image=1.0)])
    assert both == Costs(20, 8, 7.0, 4.0, 4.0, 120.0, "GPU", 2)  # 1/20 + 1/5 of a second an image
    mean = mean_costs([one, replace(one, images_s=5.0, train_s=None, device="CPU")])
    assert mean == Costs(10, 4, 6.0, 2.0, 8.0, None, "GPU and CPU", 2)


def test_the_leaderboard_has_every_dataset_method_cost_and_note_on_one_page(tmp_path):
    costs = Costs(150e6, 105e6, 417.0, 76.5, 2.5, 5400.0, "GPU <1>", 2)
    folders = [
        make_run(tmp_path / "fir_st", seed=1, costs=costs),
        make_run(tmp_path / "liqe-q", seed=2, method="LIQE", scored=["quality"], prompted=(), costs=costs),
        make_run(tmp_path / "liqe-c", seed=3, method="LIQE", scored=["correspondence"], prompted=(), costs=costs),
        make_run(tmp_path / "second", seed=4, folds=[3], dataset="AIGCIQA2023"),
    ]
    runs, out = [read_tested_run(folder) for folder in folders], tmp_path / "comparison"
    text = write_leaderboard(runs, out)
    (page_file,) = out.glob("leaderboard_*.html")
    page, stem = page_file.read_text(), page_file.with_suffix("")
    for told in (
        "AGIQA-3K, protocol published, folds 1, 2, 3, 4, 5: 2 methods",
        "AIGCIQA2023, protocol published, fold 3: 1 method",
        "LIQE †",
        "LIQE: run liqe-q (quality), run liqe-c (correspondence).",
        "Differences to MGS",
        "Nothing else was tested here",
        "A note.",
    ):
        assert told in text
        assert told in page
    assert re.search(r"\| MGS +\| 150 +\| 105 +\| 417 +\| 76.5 +\| 2.5 +\| 90 ", text)
    assert re.search(r"\| LIQE +\| 300 +\| 210 +\| 834 +\| 153 +\| 1.25 +\| 180 ", text)  # two models
    assert "<script" not in page
    assert "GPU &lt;1&gt;, 2 threads, float32" in page
    assert page.count("<img ") == len(list(out.glob("*.png"))) == 4  # three plots of the first group, one of the other
    assert r"LIQE $\dagger$ & ViT-B/16 &" in stem.with_suffix(".tex").read_text()
    rows = pd.read_csv(stem.with_suffix(".csv"))
    assert list(rows.groupby("dataset").size()) == [8, 4]
    assert set(rows["parameters"].dropna()) == {150e6, 300e6}
    groups = json.loads(stem.with_suffix(".json").read_text())["groups"]
    assert [len(group["results"]) for group in groups] == [8, 4]
    write_leaderboard(runs[:3][::-1], out)
    assert len(list(out.glob("*.md"))) == 2


def test_runs_without_a_fold_in_common_are_refused(tmp_path):
    runs = [make_run(tmp_path / name, seed=1, folds=folds) for name, folds in (("a", [1, 2]), ("b", [7]))]
    with pytest.raises(UserError, match="a, b: no fold that all were tested on"):
        compare(*runs)


@pytest.mark.parametrize("first", ["", "correspondence"])
def test_other_images_or_mos_under_the_same_fold_number_are_refused(tmp_path, first):
    runs = [read_tested_run(make_run(tmp_path / name, seed=1)) for name in ("a", "b")]
    runs[1].predictions.loc[3, "quality_mos"] += 0.1
    if first:  # the first named run doesn't know the MOS that differ
        runs.insert(0, read_tested_run(make_run(tmp_path / "first", seed=1, scored=[first])))
    with pytest.raises(UserError, match="b: fold 1 holds other images or MOS than a's"):
        compare_entries(join_runs(runs))
    runs[-1].predictions.loc[3, "image"] = "other.png"
    with pytest.raises(UserError, match="b: fold 1 holds other images or MOS than"):
        compare_entries(join_runs(runs))


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


def test_a_strangers_record_is_refused_before_anything_is_written(tmp_path):
    folder = make_run(tmp_path / "run", seed=1)
    (path,) = (folder / "report").glob("metrics_*.json")
    record = json.loads(path.read_text())
    changes = {"dataset": "../../out", "protocol": ["own"], "folds": 5, "notes": 5, "method": [1]}
    for fact, value in (changes | {"costs": {"trained": "x"}}).items():
        path.write_text(json.dumps(record | {fact: value}))
        with pytest.raises(UserError, match=r"not what test\.py leaves"):
            read_tested_run(folder)
    path.write_text(json.dumps(record))
    assert read_tested_run(folder).record == record
