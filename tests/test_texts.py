"""Texts are encoded once while the weights stand still, and again as soon as they move."""

import pytest
import torch
from conftest import random_clip

from benchmarks.plain import plain_texts
from mgs.backbones import texts as module
from mgs.backbones.texts import TextEncoder
from mgs.config import ModelConfig
from mgs.methods.mgs import MGS


@pytest.fixture
def counted(monkeypatch):
    """How many texts each call to the tower encoded."""
    calls = []
    finish = module.finish_texts

    def count(clip, x, lengths, start):
        calls.append(len(lengths))
        return finish(clip, x, lengths, start)

    monkeypatch.setattr(module, "finish_texts", count)
    return calls


def test_without_gradients_a_text_is_encoded_once(small_clip, counted):
    encode = TextEncoder(small_clip, 0)
    with torch.inference_mode():
        first = encode(["a", "b"])
        again = encode(["b", "c"])
    assert counted == [2, 1]
    assert torch.equal(first[1], again[0])
    torch.testing.assert_close(again, plain_texts(small_clip, ["b", "c"]), atol=1e-6, rtol=0)


def test_with_gradients_nothing_stale_is_served(small_clip, counted):
    encode = TextEncoder(small_clip, 0)
    assert encode(["a"]).requires_grad
    assert encode(["a"]).requires_grad
    assert counted == [1, 1]


def change_by_step(clip):
    optimizer = torch.optim.AdamW(clip.parameters(), lr=0.1)
    TextEncoder(clip, 0)(["a cat"]).sum().backward()
    optimizer.step()


def change_by_loading(clip):
    clip.load_state_dict(random_clip(seed=5).state_dict())


def change_after_moving(clip):
    clip.double()
    clip.float()
    torch.nn.init.normal_(clip.text_projection)


@pytest.mark.parametrize("change", [change_by_step, change_by_loading, change_after_moving])
def test_a_change_of_weights_forgets_what_was_kept(small_clip, change):
    encode = TextEncoder(small_clip, 0)
    with torch.no_grad():
        before = encode(["a cat"])
    change(small_clip)
    with torch.no_grad():
        after = encode(["a cat"])
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, plain_texts(small_clip, ["a cat"]).detach(), atol=1e-6, rtol=0)


def test_switching_to_evaluation_forgets_what_a_fused_optimiser_changed_without_telling(small_clip):
    model = MGS(small_clip, ModelConfig())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    with torch.no_grad():
        before = model.encode_texts(["a cat"])
    model.encode_texts(["a cat"]).square()[:, 0].sum().backward()
    optimizer.step()
    model.eval()
    with torch.no_grad():
        after = model.encode_texts(["a cat"])
    assert not torch.allclose(before, after, atol=1e-3)


def test_another_precision_is_computed_again(small_clip):
    encode = TextEncoder(small_clip, 0)
    with torch.no_grad():
        exact = encode(["a cat"])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = encode(["a cat"])
        assert not torch.equal(exact, rough)
        assert torch.equal(exact, encode(["a cat"]))


def test_a_frozen_text_tower_is_run_once_while_the_image_tower_trains(small_clip, counted):
    model = MGS(small_clip, ModelConfig())
    for parameter in model.encode_texts.embeddings.weights:
        parameter.requires_grad_(False)
    with torch.inference_mode():
        model.encode_texts(["a", "b"])
    found = model.encode_texts(["a", "b"])  # outside: must be fit to meet a gradient
    (found * torch.ones(1, requires_grad=True)).sum().backward()
    assert counted == [2]


def test_the_constant_part_is_run_once_while_the_rest_trains(monkeypatch):
    clip = random_clip(text_layers=4)
    model = MGS(clip, ModelConfig(freeze_stem=True))
    calls = []
    start = module.start_texts

    def count(clip, tokens, stop=0):
        calls.append((len(tokens), stop))
        return start(clip, tokens, stop)

    monkeypatch.setattr(module, "start_texts", count)
    for texts in (["a", "b"], ["b", "c"]):
        torch.testing.assert_close(model.encode_texts(texts), plain_texts(clip, texts), atol=1e-6, rtol=0)
    assert calls == [(1, 2)] * 3  # "a", "b" and "c", each alone


def test_what_is_kept_is_bounded_in_bytes_and_what_is_asked_for_most_stays(small_clip, monkeypatch, counted):
    one = 64 * 4  # bytes of an embedding
    monkeypatch.setattr(module, "MOST_KEPT", 4 * one)
    encode = TextEncoder(small_clip, 0)
    with torch.no_grad():
        for i in range(10):
            encode(["in every call", f"text {i}", f"other {i}"])
            assert sum(tensor.untyped_storage().nbytes() for tensor in encode.embeddings.tensors.values()) <= 4 * one
        assert counted == [3] + [2] * 9
        many = [f"more {i}" for i in range(9)]  # than fit: all come back, and few stay
        torch.testing.assert_close(encode(many), plain_texts(small_clip, many), atol=1e-6, rtol=0)
    assert list(encode.embeddings.tensors) == many[-4:]


def test_nothing_is_kept_halfway_where_nothing_trains():
    model = MGS(random_clip(text_layers=4), ModelConfig(freeze_stem=True)).eval()
    with torch.inference_mode():
        found = model.encode_texts(["a", "b"])
    assert not model.encode_texts.halfway.tensors
    torch.testing.assert_close(found, plain_texts(model.clip, ["a", "b"]), atol=1e-6, rtol=0)
