"""What holds for any input at all: of tables, configs, level sentences and fragments."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mgs.config import Config, find_impossible_values, flat_config
from mgs.config_files import config_of, load_config, save_config
from mgs.datasets.tables import iterate_csv, read_rows, write_table
from mgs.errors import UserError
from mgs.methods.fragments import STYLES, split_prompt
from mgs.methods.mgs import MGSOptions
from mgs.methods.templates import LEVELS, read_levels
from mgs.renamed_keys import MOVED

PATH = Path("any.csv")
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ROWS = st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = sorted({*flat_config(Config(options=MGSOptions())), "options", *MOVED, "model.patches"})


def outcome(call, expected):
    """What a call gives, and None; or None and the text of the one kind of error that it may raise, in one line."""
    try:
        return call(), None
    except expected as error:
        text = str(error)
    assert "\n" not in text
    return None, text


def decode_csv(data):
    return list(iterate_csv(io.BytesIO(data), PATH))


@given(ROWS, st.sampled_from(["\n", "\r\n"]), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), st.booleans())
def test_whatever_a_csv_writer_wrote_is_read_back_cell_by_cell(rows, ends, quoting, bom):
    if quoting == csv.QUOTE_MINIMAL:  # Python's writer leaves a lone carriage return bare then
        rows = [[cell.replace("\r", "") for cell in row] for row in rows]
    rows = [["image", "prompt"], *rows]  # the first row tells the separator
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator=ends, quoting=quoting).writerows(rows)
    found = decode_csv(("\ufeff" * bom + stream.getvalue()).encode())
    assert [cells for _, cells in found] == rows
    assert [line for line, _ in found] == sorted({line for line, _ in found})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_our_own_tables_read_back_to_the_letter(tmp_path, rows):
    write_table(tmp_path / "t.csv", rows)
    assert [cells for _, cells in read_rows(tmp_path / "t.csv")] == [row for row in rows if any(map(str.strip, row))]


@given(st.binary())
def test_any_bytes_are_rows_or_one_line_naming_file_and_row(data):
    _, problem = outcome(lambda: decode_csv(data), UserError)
    assert problem is None or problem.startswith("any.csv:")


def nested(flat):
    """Dotted keys back to nested mappings."""
    tree = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        inner = tree
        for section in sections:
            if not isinstance(inner.get(section), dict):  # a section itself may be among the keys
                inner[section] = {}
            inner = inner[section]
        inner[name] = value
    return tree


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))
def test_any_values_under_known_keys_are_a_config_that_could_work_or_an_error_that_names_one(flat):
    config, _ = outcome(lambda: config_of(nested({"name": "x", **flat})), ValueError)
    if config:
        assert find_impossible_values(config) == []
        assert config_of(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@given(JSON)
def test_anything_at_all_is_a_config_or_a_value_error(content):
    config, problem = outcome(lambda: config_of(content), ValueError)
    assert isinstance(config, Config) or problem


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.text(max_size=12)), max_size=3))
def test_any_words_on_the_command_line_are_a_config_that_survives_saving_or_one_line(tmp_path, pairs):
    words = ["name=x", *(f"{key}={value}" for key, value in pairs)]
    config, _ = outcome(lambda: load_config(None, words), UserError)
    if config:
        save_config(config, tmp_path / "config.yaml")
        assert load_config(tmp_path / "config.yaml") == config


SCALE = torch.tensor(LEVELS)
SIMILARITIES = st.lists(st.floats(-1, 1, width=32), min_size=25, max_size=25).map(torch.tensor)


@given(SIMILARITIES, st.floats(0.1, 100), st.floats(-1, 1))
def test_levels_stay_on_the_scale_and_depend_on_differences_alone(similarity, temperature, shift):
    scale = torch.tensor(temperature)
    quality, authenticity = read_levels(similarity[None], "joint", scale, SCALE)
    for score in (quality, authenticity):
        assert -1e-4 <= score.item() <= 5 + 1e-4
    moved = read_levels(similarity[None] + shift, "joint", scale, SCALE)
    torch.testing.assert_close(torch.cat(moved), torch.cat([quality, authenticity]), atol=1e-2, rtol=0)


@given(SIMILARITIES, st.floats(0.1, 100))
def test_turning_the_grid_of_sentences_over_swaps_quality_and_authenticity(similarity, temperature):
    scale = torch.tensor(temperature)
    quality, authenticity = read_levels(similarity[None], "joint", scale, SCALE)
    turned = similarity.view(5, 5).T.reshape(1, 25)
    torch.testing.assert_close(read_levels(turned, "joint", scale, SCALE), (authenticity, quality))


@given(SIMILARITIES, st.floats(0.1, 20), st.integers(0, 4))
def test_a_quality_words_sentences_pull_quality_towards_that_words_level(similarity, temperature, word):
    scale = torch.tensor(temperature)
    pulled = similarity.view(5, 5).clone()
    pulled[word] += 0.5  # all five sentences with this quality word
    level = 1.25 * word
    before, after = (read_levels(s.reshape(1, 25), "joint", scale, SCALE)[0].item() for s in (similarity, pulled))
    assert abs(after - level) <= abs(before - level) + 1e-4


@given(st.text(), st.sampled_from(sorted(STYLES)))
def test_fragments_are_trimmed_in_order_and_never_empty(prompt, style):
    fragments = split_prompt(prompt, style)
    assert fragments
    assert all(fragment == fragment.strip() for fragment in fragments)
    if any(c.isalnum() for c in prompt):
        assert all(fragments)
    place = 0
    text = " ".join(prompt.split())
    for fragment in fragments:
        found = text.find(fragment, place)
        assert found >= 0 or fragment not in text
        place = max(place, found)


def test_the_strategies_reach_both_sides(tmp_path):
    assert config_of({"name": "x", "train": {"epochs": 3}}).train.epochs == 3
    with pytest.raises(ValueError, match=r"train\.epochs"):
        config_of({"name": "x", "train": {"epochs": -1}})
