import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from mgs.evaluation.metrics import (
    METRICS,
    fit_logistic,
    krcc,
    measure,
    pair_accuracy,
    plcc,
    plcc_fitted,
    plcc_interval,
    rmse,
    rmse_fitted,
    srcc,
    srcc_interval,
)
from mgs.evaluation.per_fold import find_repeats, mean_interval, measure_folds, selection_value, summarise_folds

PREDICTION = [1.0, 2.0, 3.0, 4.0]
MOS = [1.0, 3.0, 2.0, 5.0]
PAIRS = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=20)


def vqeg(x, b1, b2, b3, b4):
    """The curve as the VQEG report writes it."""
    return (b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4))) + b2


def test_metrics_equal_hand_worked_values():
    # Ranks 1 2 3 4 against 1 3 2 4: rho = 1 - 6 * 2 / (4 * 15); one discordant pair of six.
    assert srcc(PREDICTION, MOS) == pytest.approx(0.8)
    assert krcc(PREDICTION, MOS) == pytest.approx((5 - 1) / 6)
    assert pair_accuracy(PREDICTION, MOS) == pytest.approx(5 / 6)
    # Deviations -1.5 -0.5 0.5 1.5 and -1.75 0.25 -0.75 2.25.
    assert plcc(PREDICTION, MOS) == pytest.approx(5.5 / math.sqrt(5 * 8.75))
    assert rmse(PREDICTION, MOS) == pytest.approx(math.sqrt(3 / 4))


def test_ties_take_their_mean_rank():
    ranks = np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3.5, 3.5])[0, 1]
    assert srcc([1, 1, 2, 3], [1, 2, 4, 4]) == pytest.approx(ranks)
    # tau-b: 4 concordant pairs, 1 tie on each side, 6 pairs.
    assert krcc([1, 1, 2, 3], [1, 2, 4, 4]) == pytest.approx(4 / math.sqrt(5 * 5))
    # Of five pairs with different MOS four are right, and one has equal predictions.
    assert pair_accuracy([1, 1, 2, 3], [1, 2, 4, 4]) == pytest.approx(4.5 / 5)


def test_a_reversed_predictor_shows_as_negative():
    mos = np.random.default_rng(0).random(50) * 5
    figures = measure(-mos, mos)
    assert figures["srcc"] == pytest.approx(-1)
    assert figures["plcc"] == pytest.approx(-1)
    assert figures["krcc"] == pytest.approx(-1)
    assert figures["plcc_fitted"] == pytest.approx(-1, abs=1e-4)
    assert figures["pair_accuracy"] == 0


@pytest.mark.parametrize("metric", [srcc, plcc, krcc, plcc_fitted, rmse_fitted, pair_accuracy])
def test_what_has_no_figure_is_nan_never_zero(metric):
    assert math.isnan(metric([1, 1, 1, 1, 1, 1], [1, 2, 3, 4, 5, 6]))
    assert math.isnan(metric([1, 2, 3, 4, 5, 6], [2, 2, 2, 2, 2, 2]))
    assert math.isnan(metric([1], [2]))


def test_two_images_have_an_order_and_no_fit():
    figures = measure([1, 2], [3, 4])
    assert [figures[name] for name in ("srcc", "plcc", "krcc", "pair_accuracy")] == pytest.approx([1, 1, 1, 1])
    assert math.isnan(figures["plcc_fitted"])
    assert math.isnan(figures["rmse_fitted"])


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("bad", [[1, math.nan], [1, math.inf], [1], [], [[1, 2]]])
def test_what_is_no_pair_of_finite_vectors_is_an_error(metric, bad):
    with pytest.raises(ValueError, match="must be"):
        metric(bad, [1, 2])


@given(PAIRS)
def test_monotone_maps_keep_ranks_affine_maps_keep_plcc_and_order_does_not_matter(pairs):
    values, mos = np.array(pairs, float).T
    assert srcc(np.exp(values / 10), mos) == pytest.approx(srcc(values, mos), nan_ok=True)
    assert krcc(values**3, mos) == pytest.approx(krcc(values, mos), nan_ok=True)
    assert pair_accuracy(values**3, mos) == pytest.approx(pair_accuracy(values, mos), nan_ok=True)
    assert plcc(3 * values + 7, mos) == pytest.approx(plcc(values, mos), nan_ok=True, abs=1e-9)
    for name in ("srcc", "plcc", "krcc", "rmse", "pair_accuracy"):
        figure = METRICS[name](values[::-1], mos[::-1])
        assert figure == pytest.approx(METRICS[name](values, mos), nan_ok=True, abs=1e-9)


@given(PAIRS)
def test_pair_accuracy_equals_counting_every_pair(pairs):
    values, mos = np.array(pairs, float).T
    assume(np.ptp(values) and np.ptp(mos))
    points = [
        0.5 if values[i] == values[j] else float((values[i] > values[j]) == (mos[i] > mos[j]))
        for i in range(len(mos))
        for j in range(i)
        if mos[i] != mos[j]
    ]
    assert pair_accuracy(values, mos) == pytest.approx(sum(points) / len(points))


@settings(deadline=None)  # a fit is no matter of a fixed time
@given(PAIRS)
def test_a_fit_is_never_worse_than_a_straight_line_and_keeps_the_sign(pairs):
    values, mos = np.array(pairs, float).T
    assume(len(mos) > 4 and np.ptp(values) and np.ptp(mos))
    straight = plcc(values, mos)
    assume(abs(straight) > 1e-9)  # else rounding alone gives it a sign
    assert plcc_fitted(values, mos) * np.sign(straight) >= abs(straight) - 1e-4


@pytest.mark.parametrize("noise", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("count", [30, 600])
def test_the_fit_equals_scipys_curve_fit_of_the_published_formula(count, noise):
    rng = np.random.default_rng(count)
    x = rng.normal(2.5, 0.6, count)
    y = vqeg(x, 4.5, 0.5, 2.6, 0.4) + rng.normal(0, noise, count)
    best, _ = optimize.curve_fit(vqeg, x, y, p0=[y.max(), y.min(), x.mean(), x.std() / 4], maxfev=20000)
    assert rmse_fitted(x, y) == pytest.approx(np.sqrt(np.mean((vqeg(x, *best) - y) ** 2)), rel=1e-4)
    assert plcc_fitted(x, y) == pytest.approx(stats.pearsonr(vqeg(x, *best), y)[0], abs=1e-4)


@pytest.mark.parametrize("count", [6, 8, 12, 20])
def test_on_few_images_the_fit_is_as_good_as_a_search_of_everything(count):
    rng = np.random.default_rng(count)
    x, y = rng.normal(size=count), rng.normal(size=count)
    z = (x - x.mean()) / x.std()
    direction = np.sign(plcc(x, y))
    best = math.inf
    for middle in np.linspace(-4, 4, 161):
        for width in np.geomspace(0.02, 100, 40):
            step = 1 / (1 + np.exp(-np.clip((z - middle) / width, -500, 500)))
            design = np.stack([step, np.ones(count)], 1)
            found, *_ = np.linalg.lstsq(design, y, rcond=None)
            if np.sign(found[0]) == direction:
                best = min(best, float(np.sqrt(np.mean((design @ found - y) ** 2))))
    assert rmse_fitted(x, y) <= best * 1.001


def test_where_there_is_no_direction_the_fitted_curve_does_not_fall():
    assert plcc_fitted([-2, -1, 0, 1, 2], [4, 1, 0, 1, 4]) >= 0


def test_intervals_of_means_stay_within_what_there_can_be():
    table = predictions((1, 2))
    table.loc[table.fold == 2, "quality_pred"] = table.loc[table.fold == 2, "quality_mos"]
    summary = summarise_folds(measure_folds(table))
    assert summary.loc["quality", "srcc_high"] == 1
    assert summary.loc["quality", "rmse_low"] == 0


def test_the_fit_finds_the_curve_that_the_data_came_from():
    x = np.linspace(0, 5, 40)
    curve = fit_logistic(x, vqeg(x, 4.0, 1.0, 2.5, 0.3))
    assert [curve.b1, curve.b2, curve.b3, curve.b4] == pytest.approx([4.0, 1.0, 2.5, 0.3], abs=1e-4)
    falling = fit_logistic(x, vqeg(x, 1.0, 4.0, 2.5, 0.3))
    assert [falling.b1, falling.b2, falling.rises] == [
        pytest.approx(1.0, abs=1e-4),
        pytest.approx(4.0, abs=1e-4),
        False,
    ]


@pytest.mark.parametrize(("interval", "metric"), [(srcc_interval, srcc), (plcc_interval, plcc)])
def test_intervals_hold_the_truth_95_times_in_100(interval, metric):
    rng = np.random.default_rng(1)
    x = rng.normal(size=400_000)
    y = 0.8 * x + 0.6 * rng.normal(size=len(x))
    truth, count = metric(x, y), 60
    draws = rng.integers(0, len(x), (1000, count))
    held = sum(low <= truth <= high for low, high in (interval(metric(x[d], y[d]), count) for d in draws))
    assert 930 <= held <= 970
    assert all(map(math.isnan, interval(0.5, 3)))
    assert all(map(math.isnan, interval(1.0, 10)))  # a perfect figure says nothing of its spread


def predictions(folds=(1, 2)):
    rng = np.random.default_rng(0)
    frames = []
    for fold in folds:
        mos = rng.random(30) * 5
        frames.append(
            pd.DataFrame(
                {
                    "fold": fold,
                    "image": [f"{fold}-{i}.png" for i in range(30)],
                    "prompt": 'a "b", c',
                    "quality_mos": mos,
                    "quality_pred": mos + rng.normal(size=30),
                    "correspondence_mos": mos,
                    "correspondence_pred": -mos,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def test_folds_are_measured_apart_and_summed_up_with_their_spread():
    table = predictions()
    per_fold = measure_folds(table)
    assert list(per_fold["dimension"]) == ["quality", "correspondence"] * 2
    first = table[table.fold == 1]
    assert per_fold.loc[0, "srcc"] == srcc(first.quality_pred, first.quality_mos)
    assert (per_fold.loc[0, "srcc_low"], per_fold.loc[0, "srcc_high"]) == srcc_interval(per_fold.loc[0, "srcc"], 30)
    summary = summarise_folds(per_fold)
    values = per_fold[per_fold.dimension == "quality"]["plcc"].tolist()
    assert summary.loc["quality", "plcc"] == pytest.approx(sum(values) / 2)
    assert summary.loc["quality", "plcc_sd"] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    assert summary.loc["correspondence", "srcc"] == -1


def test_the_means_interval_is_students_t():
    values = np.array([0.80, 0.82, 0.87, 0.83])
    expected = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected)
    # Nadeau and Bengio: (1/n + test/train) in place of 1/n.
    wider = stats.t.interval(0.95, 3, loc=values.mean(), scale=values.std(ddof=1) * math.sqrt(1 / 4 + 2 / 7))
    assert mean_interval(values, overlap=2 / 7) == pytest.approx(wider)
    assert all(map(math.isnan, mean_interval(values[:1])))


def test_a_repeated_test_set_counts_once():
    table = predictions((1, 2))
    again = table[table.fold == 1].assign(fold=3, quality_pred=0.0)
    shuffled = again.sample(frac=1, random_state=0)  # in another order it is the same set
    per_fold = measure_folds(pd.concat([table, shuffled]))
    assert find_repeats(pd.concat([table, shuffled])) == {3: 1}
    assert per_fold.set_index("fold")["repeats"].to_dict() == {1: 0, 2: 0, 3: 1}
    pd.testing.assert_frame_equal(summarise_folds(per_fold), summarise_folds(measure_folds(table)))


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


def test_images_without_mos_are_left_out_of_their_dimension_alone():
    rng = np.random.default_rng(1)
    mos = rng.random(20) * 5
    table = pd.DataFrame(
        {"fold": 1, "image": [f"{i}" for i in range(20)]}
        | {f"{d}_mos": mos for d in ("quality", "overall")}
        | {f"{d}_pred": mos + rng.normal(size=20) for d in ("quality", "overall")}
    )
    holed = table.copy()
    holed.loc[[2, 5, 7], "quality_mos"] = np.nan
    whole, part = measure_folds(table), measure_folds(holed)
    assert part["images"].tolist() == [17, 20]
    pd.testing.assert_series_equal(part.iloc[1], whole.iloc[1])
    pd.testing.assert_series_equal(part.iloc[0], measure_folds(table.drop([2, 5, 7])).iloc[0])
