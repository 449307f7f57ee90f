import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgs.evaluation.folds import measure_folds, selection_value, summarise_folds
from mgs.evaluation.metrics import krcc, measure, plcc, rmse, srcc
from mgs.evaluation.report import Protocol, write_report

PREDICTION = [1.0, 2.0, 3.0, 4.0]
MOS = [1.0, 3.0, 2.0, 5.0]


def test_metrics_equal_hand_worked_values():
    # Ranks 1 2 3 4 against 1 3 2 4: rho = 1 - 6 * 2 / (4 * 15); one discordant pair of six.
    assert srcc(PREDICTION, MOS) == pytest.approx(0.8)
    assert krcc(PREDICTION, MOS) == pytest.approx((5 - 1) / 6)
    # Deviations -1.5 -0.5 0.5 1.5 and -1.75 0.25 -0.75 2.25.
    assert plcc(PREDICTION, MOS) == pytest.approx(5.5 / math.sqrt(5 * 8.75))
    assert rmse(PREDICTION, MOS) == pytest.approx(math.sqrt(3 / 4))


def test_ties_take_their_mean_rank():
    ranks = np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3.5, 3.5])[0, 1]
    assert srcc([1, 1, 2, 3], [1, 2, 4, 4]) == pytest.approx(ranks)
    # tau-b: 4 concordant pairs, 1 tie on each side, 6 pairs.
    assert krcc([1, 1, 2, 3], [1, 2, 4, 4]) == pytest.approx(4 / math.sqrt(5 * 5))


def test_a_reversed_predictor_shows_as_negative():
    assert measure(PREDICTION, [-p for p in PREDICTION])["srcc"] == -1


@pytest.mark.parametrize("metric", [srcc, plcc, krcc])
def test_a_constant_side_has_no_correlation(metric):
    assert math.isnan(metric([1, 1, 1], [1, 2, 3]))
    assert math.isnan(metric([1, 2, 3], [2, 2, 2]))
    assert math.isnan(metric([1], [2]))


@pytest.mark.parametrize("bad", [[1, math.nan], [1, math.inf], [1], [], [[1, 2]]])
def test_what_is_no_pair_of_finite_vectors_is_an_error(bad):
    with pytest.raises(ValueError, match="must be"):
        srcc(bad, [1, 2])


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=20))
def test_monotone_maps_keep_ranks_affine_maps_keep_plcc_and_order_does_not_matter(pairs):
    values, mos = np.array(pairs, float).T
    assert srcc(np.exp(values / 10), mos) == pytest.approx(srcc(values, mos), nan_ok=True)
    assert krcc(values**3, mos) == pytest.approx(krcc(values, mos), nan_ok=True)
    assert plcc(3 * values + 7, mos) == pytest.approx(plcc(values, mos), nan_ok=True, abs=1e-9)
    for name, figure in measure(values[::-1], mos[::-1]).items():
        assert figure == pytest.approx(measure(values, mos)[name], nan_ok=True, abs=1e-9)


def predictions(folds=(1, 2)):
    rng = np.random.default_rng(0)
    frames = []
    for fold in folds:
        mos = rng.random(30) * 5
        frames.append(
            pd.DataFrame(
                {
                    "fold": fold,
                    "image": [f"{i}.png" for i in range(30)],
                    "prompt": 'a "b", c',
                    "quality_mos": mos,
                    "quality_pred": mos + rng.normal(size=30),
                    "correspondence_mos": mos,
                    "correspondence_pred": -mos,
                }
            )
        )
    return pd.concat(frames)


def test_folds_are_measured_apart_and_summed_up_with_their_spread():
    table = predictions()
    per_fold = measure_folds(table)
    assert list(per_fold["dimension"]) == ["quality", "correspondence"] * 2
    first = table[table.fold == 1]
    assert per_fold.loc[0, "srcc"] == srcc(first.quality_pred, first.quality_mos)
    summary = summarise_folds(per_fold)
    values = per_fold[per_fold.dimension == "quality"]["plcc"].tolist()
    assert summary.loc["quality", "plcc"] == pytest.approx(sum(values) / 2)
    assert summary.loc["quality", "plcc_sd"] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    assert summary.loc["correspondence", "srcc"] == -1


def test_an_undefined_fold_makes_an_undefined_mean_not_a_better_one():
    table = predictions()
    table.loc[table.fold == 2, "quality_pred"] = 1.0
    assert math.isnan(summarise_folds(measure_folds(table)).loc["quality", "srcc"])


def test_the_best_epoch_is_chosen_by_the_mean_of_all_srcc_and_plcc():
    table = predictions((1,))
    expected = [srcc(table.quality_pred, table.quality_mos), plcc(table.quality_pred, table.quality_mos), -1, -1]
    assert selection_value(table) == pytest.approx(sum(expected) / 4)
    table["quality_pred"] = 1.0
    assert selection_value(table) == pytest.approx(-1)  # of what is defined
    table["correspondence_pred"] = 1.0
    assert math.isnan(selection_value(table))


def test_the_report_states_its_protocol_and_keeps_every_prediction(tmp_path):
    table = predictions()
    text = write_report(table, Protocol("AGIQA-3K", "published", "ViT-B/16", "float32"), tmp_path)
    assert "AGIQA-3K, protocol published, 2 folds, 60 test images, backbone ViT-B/16, float32" in text
    assert "mean ± SD" in text
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == text
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "predictions.csv"), table.reset_index(drop=True))
    assert pd.read_csv(tmp_path / "metrics.csv")["protocol"].unique().tolist() == ["published"]


def test_an_undefined_figure_is_null_in_json(tmp_path):
    table = predictions((1,))
    table["quality_pred"] = 1.0
    write_report(table, Protocol("demo", "prompt-disjoint", "demo", "float32"), tmp_path)
    assert '"srcc": null' in (tmp_path / "metrics.json").read_text()
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
