import csv

import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgs.methods.fragments import STYLES, split_prompt
from mgs.prompts import clean_prompt


@pytest.mark.parametrize(
    ("style", "prompt", "fragments"),
    [
        ("keywords", "cat, driving car, wild, anime style", ["cat", "driving car", "wild", "anime style"]),
        ("keywords", "cat on a mat, in the wild", ["cat on a mat", "in the wild"]),
        ("keywords", "cat,dog , ,bird,", ["cat", "dog", "bird"]),
        ("hybrid", "statue of a man", ["statue", "of a man"]),
        ("hybrid", "Portrait: a king by night, close-up", ["Portrait", "a king", "by night", "close-up"]),
        ("hybrid", "a mountain made of cake. long-shot", ["a mountain made", "of cake. long-shot"]),
        ("sentence", "A dog. In the sun, next to a house", ["A dog", "In the sun", "next to a house"]),
        ("sentence", "a man by the sea as a king", ["a man by the sea as a king"]),
        ("sentence", "a sign 'on sale' there", ["a sign", "on sale' there"]),
        ("sentence", "a cat Next  To a dog", ["a cat", "Next To a dog"]),
        (
            "sentence",
            "a walk through walls into rooms without doors",
            ["a walk", "through walls", "into rooms", "without doors"],
        ),
    ],
)
def test_each_style_cuts_where_its_row_says(style, prompt, fragments):
    assert split_prompt(prompt, style) == fragments


@pytest.mark.parametrize(
    ("prompt", "counts"),
    [
        ("一只猫，坐在垫子上、油画。猫。阳光：明亮", (3, 4, 5)),
        ("１２，３４５ 只猫", (1, 1, 1)),
        ("قطة على سجادة، لوحة زيتية؛ ضوء", (3, 3, 3)),
        ("ایک بلی۔ دھوپ", (1, 1, 2)),
    ],
)
def test_other_scripts_are_cut_at_their_own_punctuation(prompt, counts):
    assert tuple(len(split_prompt(prompt, style)) for style in ("keywords", "hybrid", "sentence")) == counts


@pytest.mark.parametrize("word", ["head-on", "made-of-gold", "4.5mm", "3,000", "16:9", "J.R.R.", "inside-out", ".5"])
@pytest.mark.parametrize("style", ["hybrid", "sentence"])
def test_hyphenated_words_numbers_and_initials_are_never_cut(word, style):
    assert any(word.strip(".") in fragment for fragment in split_prompt(f"a cat {word} painting, wild", style))
    assert len(split_prompt(f"a cat {word} painting, wild", style)) == 2


@pytest.mark.parametrize("word", ["online", "Tom", "often", "Ina", "ontology", "basin"])
def test_prepositions_are_whole_words(word):
    assert split_prompt(f"a {word} picture", "hybrid") == [f"a {word} picture"]


@pytest.mark.parametrize(
    ("prompt", "clean"),
    [
        ('"a bench"', "a bench"),
        ("“a bench”", "a bench"),
        ("'it's a dog'", "it's a dog"),
        ("\"the word 'HELLO' on a girl's face\"", "the word 'HELLO' on a girl's face"),
        ('"a dog saying "I see what you did there""', 'a dog saying "I see what you did there"'),
        ("“a dog saying “hm””", "a dog saying “hm”"),
        ("“yes” and “no”", "“yes” and “no”"),
        ('"yes" and "no"', '"yes" and "no"'),
        ('"', '"'),
        ("  two   spaces ", "two spaces"),
    ],
)
def test_only_quotation_marks_around_the_whole_prompt_go(prompt, clean):
    assert clean_prompt(prompt) == clean


@pytest.mark.parametrize(
    ("prompt", "fragments"),
    [
        ("from inside a box", ["from inside a box"]),
        ("a cat, in, red", ["a cat", "in red"]),
        ("come on", ["come on"]),
        ("a view from inside", ["a view", "from inside"]),
        ("on", ["on"]),
    ],
)
def test_a_lone_preposition_joins_its_neighbour(prompt, fragments):
    assert split_prompt(prompt, "hybrid") == fragments


@pytest.mark.parametrize("prompt", ["", "...", "null", "None", "猫,犬", "🙂"])
@pytest.mark.parametrize("style", STYLES)
def test_every_prompt_has_at_least_one_fragment(prompt, style):
    assert split_prompt(prompt, style)


@given(st.text(), st.sampled_from(sorted(STYLES)))
def test_cutting_loses_no_letter_and_no_digit(prompt, style):
    kept = "".join("".join(split_prompt(prompt, style)).split())
    assert [c for c in kept if c.isalnum()] == [c for c in prompt if c.isalnum()]


@pytest.mark.parametrize(
    ("dataset", "column", "style"),
    [("AGIQA-1K", "Prompt", "keywords"), ("AGIQA-3K", "prompt", "hybrid"), ("AIGCIQA2023", "prompt", "sentence")],
)
def test_real_prompts_are_cut_as_by_a_second_implementation(shared, dataset, column, style):
    prompts = set()
    for subset in ("train", "val", "test"):
        with (shared / "published_splits" / dataset / "1" / f"{subset}.csv").open(encoding="utf-8") as file:
            prompts.update(row[column] for row in csv.DictReader(file))
    assert len(prompts) >= 100
    for prompt in prompts:
        text, fragments = oracle.fragments_of(prompt, style)
        assert split_prompt(prompt, style) == [" ".join(f.split()) for f in fragments], prompt
        assert clean_prompt(prompt) == " ".join(text.split())
