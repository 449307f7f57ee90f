import pytest
import torch

from mgs.methods.templates import LEVELS, joint_probability, read_levels, sentences

ONE = torch.tensor(1.0)
SCALE = torch.tensor(LEVELS)
SHARP = torch.tensor(200.0)  # turns the softmax into a choice


def test_the_joint_sentences_are_the_papers_twenty_five():
    made = sentences("joint")
    assert len(set(made)) == 25
    assert made[0] == "A photo of bad quality that appears unrealistic."
    assert made[1] == "A photo of bad quality that appears slightly unrealistic."
    assert made[-1] == "A photo of perfect quality that appears highly realistic."


@pytest.mark.parametrize("level", range(5))
def test_each_quality_word_moves_quality_and_leaves_authenticity_in_the_middle(level):
    word = ("bad", "poor", "fair", "good", "perfect")[level]
    similarity = torch.tensor([[float(f"of {word} quality" in sentence) for sentence in sentences("joint")]])
    quality, authenticity = read_levels(similarity, "joint", SHARP, SCALE)
    assert quality.item() == pytest.approx(LEVELS[level])
    assert authenticity.item() == pytest.approx(2.5)


@pytest.mark.parametrize("level", range(5))
def test_each_authenticity_word_moves_authenticity_and_leaves_quality_in_the_middle(level):
    phrase = ("unrealistic", "slightly unrealistic", "fairly realistic", "realistic", "highly realistic")[level]
    similarity = torch.tensor([[float(s.endswith(f"appears {phrase}.")) for s in sentences("joint")]])
    quality, authenticity = read_levels(similarity, "joint", SHARP, SCALE)
    assert quality.item() == pytest.approx(2.5)
    assert authenticity.item() == pytest.approx(LEVELS[level])


@pytest.mark.parametrize("chosen", range(10))
def test_each_separate_sentence_moves_its_own_dimension(chosen):
    similarity = torch.zeros(1, 10)
    similarity[0, chosen] = 1
    scores = [one.item() for one in read_levels(similarity, "separate", SHARP, SCALE)]
    expected = [2.5, 2.5]
    expected[chosen // 5] = LEVELS[chosen % 5]
    assert scores == pytest.approx(expected)


def test_equal_similarities_give_the_middle_and_a_probability():
    assert [s.item() for s in read_levels(torch.zeros(1, 25), "joint", ONE, SCALE)] == pytest.approx([2.5, 2.5])
    assert joint_probability(torch.rand(3, 25), ONE).sum((1, 2)).tolist() == pytest.approx([1, 1, 1])
