"""Folds: how they are made, written and read back, and what each mistake in a folder of them says."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgs.backbones.openai import token_numbers
from mgs.config import DataConfig
from mgs.datasets.folds import Fold, content_sha256, find_folds, make_folds, read_pictures
from mgs.datasets.read_table import read_table
from mgs.datasets.samples import Sample
from mgs.datasets.write_folds import write_folds, write_samples
from mgs.errors import UserError
from mgs.prompts import clean_prompt, prompt_key

SHARED = Path(__file__).parents[2] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real dataset is not at {SHARED}")
SUBSETS = ("train", "val", "test")


def sample(name: str, prompt: str, mos: float = 2.5) -> Sample:
    return Sample(name, Path(name), prompt, "sentence", {"quality": mos})


def read_fold(data: DataConfig, number: int) -> Fold:
    (fold,) = find_folds(data, [number])
    return fold


def fold_numbers(data: DataConfig, requested: list[int]) -> list[int]:
    return [fold.number for fold in find_folds(data, requested)]


def collection(prompts: int = 40, per_prompt: int = 5) -> list[Sample]:
    """Pictures of numbered prompts, each prompt written in several ways, and one picture listed twice."""
    spellings = ("a dog {}", '"A dog {}"', "A  Dog {} ", "«a dog {}»", "`a dog {}`")
    samples = [
        sample(f"m{k}/{p:03}.png", spellings[k % len(spellings)].format(p), (p * 7 + k) % 50 / 10)
        for p, k in itertools.product(range(prompts), range(per_prompt))
    ]
    return [*samples, dataclasses.replace(samples[0], targets={"quality": 4.9})]


def as_names(samples: list[Sample], folds: list[dict[str, list[int]]]) -> list[dict[str, set[tuple[str, float]]]]:
    return [
        {subset: {(samples[i].name, samples[i].targets["quality"]) for i in fold[subset]} for subset in SUBSETS}
        for fold in folds
    ]


@pytest.mark.parametrize("protocol", ["prompt-disjoint", "random-image"])
def test_each_fold_divides_all_rows_70_10_20_with_nothing_in_two_subsets(protocol: str) -> None:
    samples = collection()
    folds = make_folds(samples, protocol, 42)
    assert len(folds) == 10
    for fold in folds:
        assert list(fold) == list(SUBSETS)
        assert sorted(i for subset in SUBSETS for i in fold[subset]) == list(range(len(samples)))
        for subset, share in zip(SUBSETS, (0.7, 0.1, 0.2), strict=True):
            assert len(fold[subset]) / len(samples) == pytest.approx(share, abs=0.02)
        for one, other in itertools.combinations(SUBSETS, 2):
            assert not {samples[i].name for i in fold[one]} & {samples[i].name for i in fold[other]}
            if protocol == "prompt-disjoint":
                numbers = [{samples[i].name.partition("/")[2] for i in fold[subset]} for subset in (one, other)]
                assert not numbers[0] & numbers[1]  # the prompt's number is in the name, however it is spelt


@pytest.mark.parametrize("protocol", ["prompt-disjoint", "random-image"])
def test_every_row_is_tested_once_per_round_and_no_test_set_repeats(protocol: str) -> None:
    samples = collection(prompts=10)  # so few that a shuffle does repeat a set now and then
    for seed in range(30):
        tests = [frozenset(fold["test"]) for fold in make_folds(samples, protocol, seed)]
        assert len(set(tests)) == 10
        for tested in (tests[:5], tests[5:]):
            assert sorted(i for test in tested for i in test) == list(range(len(samples)))


@pytest.mark.parametrize("protocol", ["prompt-disjoint", "random-image"])
def test_folds_depend_on_content_and_seed_but_not_on_row_order(protocol: str) -> None:
    samples = collection()
    expected = as_names(samples, make_folds(samples, protocol, 42))
    for seed in range(5):
        permuted = random.Random(seed).sample(samples, len(samples))
        assert as_names(permuted, make_folds(permuted, protocol, 42)) == expected
    assert as_names(samples, make_folds(samples, protocol, 43)) != expected


def test_images_that_share_prompts_through_one_another_stay_together() -> None:
    chain = [sample("a.png", "x"), sample("a.png", "y"), sample("./b.png", "y"), sample("b.png", "z")]
    samples = [*chain, *collection()]
    for fold in make_folds(samples, "prompt-disjoint", 42):
        assert len({subset for subset in SUBSETS for i in fold[subset] if i < len(chain)}) == 1


def test_prompts_are_the_same_whatever_their_case_space_and_quotation_marks() -> None:
    for spelling in ("a dog", ' "A  Dog" ', "“a dog”", "'a\tdog'", "\"'A DOG'\"", "«a dog»", "`A dog`"):
        assert prompt_key(spelling) == "a dog"
    assert prompt_key('a sign "Stop"') == 'a sign " stop "'
    assert prompt_key('"yes" and "no"') == '" yes " and " no "'
    assert prompt_key('"') == '"'


PIECES = [
    "'",
    "’",
    '"',
    "“",
    "”",
    "&",
    "&amp;",
    "&amp;amp;",
    "é",
    "e\u0301",
    "ﬁ",
    "fi",
    "Ａ",
    "a",
    "12",
    "1 2",
    " ",
    ",",
]


@given(st.lists(st.sampled_from(PIECES), max_size=6), st.lists(st.sampled_from(PIECES), max_size=6))
def test_prompts_are_one_prompt_exactly_if_the_tokenizer_reads_the_same_tokens(first, second):
    one, other = (f"a cat {''.join(parts)} in a hat" for parts in (first, second))
    tokens = [token_numbers(clean_prompt(prompt), 77) for prompt in (one, other)]
    assert (prompt_key(one) == prompt_key(other)) == (tokens[0] == tokens[1])


@pytest.mark.parametrize(("one", "other"), [("a cat's hat", "a cat’s hat"), ("cats & dogs", "Cats &amp; dogs")])
def test_spellings_that_the_tokenizer_repairs_are_one_prompt(one, other):
    assert prompt_key(one) == prompt_key(other)
    assert token_numbers(clean_prompt(one), 77) == token_numbers(clean_prompt(other), 77)


def test_too_few_or_too_unequal_prompts_are_an_error_with_a_remedy() -> None:
    with pytest.raises(UserError, match=r"9 different prompts are too few for 10 folds, .*protocol random-image"):
        make_folds(collection(prompts=9), "prompt-disjoint", 42)
    dominated = [sample(f"{i}.png", "the same" if i < 50 else str(i)) for i in range(100)]
    with pytest.raises(UserError, match=r"50 of 100 rows share one of the prompts, .*protocol random-image"):
        make_folds(dominated, "prompt-disjoint", 42)
    with pytest.raises(UserError, match=r"protocol published: no way to make folds; choose prompt-disjoint or"):
        make_folds(collection(), "published", 42)


@pytest.fixture
def own(tmp_path: Path) -> DataConfig:
    """A table of one's own, with empty files for its images."""
    rows = ["image,prompt,quality"]
    for i in range(60):
        (tmp_path / f"{i}.png").touch()
        rows.append(f'{i}.png,"a dog, {i // 3}",{i % 5}.{i}')
    (tmp_path / "table.csv").write_text("\n".join(rows))
    return DataConfig(dataset="custom", table=str(tmp_path / "table.csv"))


def with_splits(data: DataConfig, **options: Any) -> DataConfig:
    return dataclasses.replace(data, **options)


def test_folds_of_an_own_table_are_drawn_alike_every_time(own: DataConfig) -> None:
    assert fold_numbers(own, []) == list(range(1, 11))
    assert fold_numbers(own, [7, 2]) == [7, 2]
    fold = read_fold(own, 3)
    assert (fold.number, fold.protocol) == (3, "prompt-disjoint")  # nobody has published folds of this table
    assert len(fold.train) + len(fold.val) + len(fold.test) == 60
    assert read_fold(own, 3) == fold
    assert read_fold(dataclasses.replace(own, fold_seed=43), 3).sha256 != fold.sha256
    assert read_fold(with_splits(own, protocol="random-image"), 3).protocol == "random-image"
    with pytest.raises(UserError, match=r"folds=11: .*table\.csv has folds 1, 2, .*, 10; choose"):
        read_fold(own, 11)


def test_written_folds_are_read_back_as_they_were_drawn(own: DataConfig, tmp_path: Path) -> None:
    samples = read_table(Path(str(own.table)), own)
    folder = tmp_path / "splits"
    write_folds(folder, samples, dataset="custom", protocol="prompt-disjoint", seed=42)
    data = with_splits(own, splits=str(folder), root=str(tmp_path), table=None)
    for number in range(1, 11):
        assert read_fold(data, number) == read_fold(own, number)
    record = json.loads((folder / "protocol.json").read_text())
    assert (record["dataset"], record["protocol"], record["seed"]) == ("custom", "prompt-disjoint", 42)
    again = write_folds(tmp_path / "other", samples[::-1], dataset="custom", protocol="prompt-disjoint", seed=42)
    assert json.loads((again / "protocol.json").read_text())["sha256"] == record["sha256"]
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()


def test_written_samples_are_read_back_to_the_letter_and_the_last_digit(tmp_path: Path) -> None:
    prompts = ['"a dog"', "two\nlines", "a\rb", "c\r\nd", " x, y ", "None", "ü"]
    samples = [Sample("a.png", tmp_path / "a.png", text, "sentence", {"quality": 1 / 3}) for text in prompts]
    (tmp_path / "a.png").touch()
    write_samples(tmp_path / "table.csv", samples)
    assert read_table(tmp_path / "table.csv", DataConfig(dataset="custom")) == samples


def test_hash_is_over_content_and_stays_what_it_is() -> None:
    one, other = sample("a.png", "ü", 0.1), sample("b.png", "x", 3.0)
    content = r"""["train", "a.png", "\u00fc", "sentence", [["quality", 0.1]]]
["train", "b.png", "x", "sentence", [["quality", 3.0]]]"""
    expected = hashlib.sha256(content.encode()).hexdigest()
    assert content_sha256({"train": [one, other], "val": [], "test": []}) == expected
    assert content_sha256({"train": [other, one]}) == expected
    moved = dataclasses.replace(one, image=Path("/elsewhere/a.png"))
    assert content_sha256({"train": [other, moved]}) == expected
    for changed in (
        *({"name": "c.png"}, {"prompt": "u"}, {"prompt_style": "hybrid"}),
        *({"targets": {"quality": 0.2}}, {"targets": {"overall": 0.1}}),
    ):
        assert content_sha256({"train": [dataclasses.replace(one, **changed), other]}) != expected
    assert content_sha256({"test": [one, other]}) != expected


def fold_folder(tmp_path: Path, own: DataConfig) -> tuple[Path, DataConfig]:
    samples = read_table(Path(str(own.table)), own)
    folder = write_folds(
        tmp_path / "splits" / "prompt-disjoint", samples, dataset="custom", protocol="prompt-disjoint", seed=1
    )
    return folder, with_splits(own, table=None, splits=str(folder), root=str(tmp_path))


def test_protocol_file_wins_over_the_config_and_without_it_the_config_holds(own: DataConfig, tmp_path: Path) -> None:
    folder, data = fold_folder(tmp_path, own)
    assert read_fold(data, 1).protocol == "prompt-disjoint"
    (folder / "protocol.json").unlink()
    assert read_fold(data, 1).protocol == "published"
    (folder / "protocol.json").write_text("{}")
    with pytest.raises(UserError, match=r"protocol\.json: not a readable record .*make the folds again"):
        read_fold(data, 1)
    (folder / "protocol.json").write_text('{"protocol": "random"}')
    with pytest.raises(UserError, match=r"protocol\.json: protocol is 'random'; write one of published, "):
        read_fold(data, 1)
    (folder / "protocol.json").write_text('{"protocol": "published", "dataset": "AGIQA-1K"}')
    with pytest.raises(UserError, match=r"folds of AGIQA-1K, not of AGIQA-3K; correct data\.splits"):
        read_fold(with_splits(data, dataset="AGIQA-3K"), 1)


def test_absent_folds_are_an_error_that_says_which_there_are(own: DataConfig, tmp_path: Path) -> None:
    folder, data = fold_folder(tmp_path, own)
    with pytest.raises(UserError, match=r"folds=12: .*prompt-disjoint has folds 1, 2, .*10; choose from these"):
        fold_numbers(data, [1, 12])
    with pytest.raises(UserError, match=r"published: no folds .*there is prompt-disjoint: set data\.protocol=prompt-d"):
        fold_numbers(with_splits(data, splits=None), [])
    with pytest.raises(UserError, match=r"nowhere: no folds of custom there; set data\.table .*README"):
        fold_numbers(with_splits(data, splits=str(tmp_path / "nowhere")), [])
    public = DataConfig(dataset="AGIQA-3K", root=str(tmp_path / "3k"))
    with pytest.raises(UserError, match=r"3k: no AGIQA-3K there; download it from https://github\.com/.*README"):
        fold_numbers(public, [])
    (tmp_path / "3k").mkdir()
    with pytest.raises(
        UserError,
        match=r"splits/published: no folds of AGIQA-3K there; run: .* AGIQA-3K --published FOLDER, or .*README",
    ):
        fold_numbers(public, [])
    with pytest.raises(UserError, match=r"run: python -m mgs prepare AGIQA-3K --protocol random-image; .*README"):
        fold_numbers(with_splits(public, protocol="random-image"), [])
    (folder / "2" / "val.csv").write_text("image,prompt,quality\n")
    with pytest.raises(UserError, match=r"2/val\.csv:1: no rows below the header"):
        read_fold(data, 2)
    (folder / "2" / "val.csv").write_text("image,prompt,overall\n1.png,x,1\n")
    with pytest.raises(UserError, match=r"2: fold 2 has no quality in its val set; give train, val and test"):
        read_fold(data, 2)


def test_table_that_cannot_be_used_is_an_error(own: DataConfig) -> None:
    with pytest.raises(
        UserError, match=r"data\.table=.*: for data\.dataset=custom; AGIQA-1K is read from data\.splits"
    ):
        fold_numbers(with_splits(own, dataset="AGIQA-1K"), [])
    with pytest.raises(UserError, match=r"data\.table: dataset custom needs a CSV, or .*data\.splits; .*README"):
        fold_numbers(DataConfig(dataset="custom"), [])
    Path(str(own.table)).write_text("image,prompt,quality\n1.png,x,1\n")
    with pytest.raises(UserError, match=r"table\.csv: 1 different prompts are too few"):
        read_fold(own, 1)


def split_rows(values: list[str], column: str = "split") -> str:
    rows = [f"{i}.png,{value},a dog,{i % 5}" for i, value in enumerate(values)]
    return "\n".join([f"image,{column},prompt,quality", *rows])


def test_a_division_under_another_name_is_refused_not_drawn_over(own: DataConfig) -> None:
    Path(str(own.table)).write_text(split_rows(["train"] * 10 + ["val", "test"], "subset"))
    with pytest.raises(UserError, match=r"column 'subset' says what is train, val and test; call it split to use it"):
        find_folds(own)


def test_the_users_own_division_makes_the_one_fold(own: DataConfig) -> None:
    table = Path(str(own.table))
    values = ["train", "Training", "val", "valid", "validation", "dev", "test", "TEST "]
    table.write_text(split_rows(values, "Split"))
    (fold,) = find_folds(own)
    assert (fold.number, fold.protocol) == (1, "own")
    assert [[s.name for s in part] for part in (fold.train, fold.val, fold.test)] == [
        ["0.png", "1.png"],
        ["2.png", "3.png", "4.png", "5.png"],
        ["6.png", "7.png"],
    ]
    with pytest.raises(UserError, match=r"folds=2: .*table\.csv has folds 1; choose"):
        read_fold(own, 2)
    with pytest.raises(UserError, match=r"column split .*leave data\.protocol out to use it, or rename the column"):
        find_folds(with_splits(own, protocol="random-image"))
    table.write_text(split_rows(["train", "test"]))
    with pytest.raises(UserError, match=r"table\.csv: fold 1 has an empty val set; give it rows"):
        find_folds(own)
    table.write_text(split_rows(["train", "fold 3"]))
    with pytest.raises(UserError, match=r"table\.csv:3: split is 'fold 3'; write train, val or test, or rename"):
        find_folds(own)


def test_a_dimension_that_a_subset_lacks_wholly_is_an_error(own: DataConfig) -> None:
    table = Path(str(own.table))
    rows = [
        f"{i}.png,{split},a dog,{i},{'' if split == 'val' else i}" for i, split in enumerate(("train", "val", "test"))
    ]
    table.write_text("\n".join(["image,split,prompt,quality,overall", *rows]))
    with pytest.raises(UserError, match=r"fold 1 has no overall in its val set; give .*MOS in some rows of each"):
        find_folds(own)


def test_all_folds_of_a_table_are_drawn_at_once(own: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(*args: Any) -> list[Sample]:
        calls.append(1)
        return read_table(*args)

    monkeypatch.setattr("mgs.datasets.folds.read_table", counted)
    folds, _ = read_pictures(find_folds(own), own, load=lambda paths: {})
    assert ([fold.number for fold in folds], len(calls)) == (list(range(1, 11)), 1)


@needs_shared
def test_published_folds_are_read_under_their_numbers_and_called_published() -> None:
    splits = SHARED / "published_splits" / "AGIQA-3K"
    data = DataConfig(dataset="AGIQA-3K", root=str(SHARED / "agiqa3k"), splits=str(splits))
    assert fold_numbers(data, []) == [1, 2, 3]
    folds = [read_fold(data, number) for number in (1, 2, 3)]
    assert {fold.protocol for fold in folds} == {"published"}
    assert [(len(f.train), len(f.val), len(f.test)) for f in folds] == [
        (2084, 298, 600),
        (2086, 298, 598),
        (2088, 299, 595),
    ]
    assert len({fold.sha256 for fold in folds}) == 3
