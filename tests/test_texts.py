"""Texts are encoded once while the weights stand still, and again as soon as they move."""

from pathlib import Path

import pytest
import torch
from conftest import encoder_of, random_backbone, random_clip

from benchmarks.plain import openai_module, plain_texts
from mgs.backbones import texts as module
from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.packing import PackedTexts
from mgs.config import Config
from mgs.datasets.samples import Sample
from mgs.engine.engine import make_engine
from mgs.engine.loader import Loader
from mgs.images.cache import ImageCache
from mgs.machine import Machine
from mgs.methods.table import make_method
from mgs.training.trainer import Trainer


@pytest.fixture
def counted(monkeypatch):
    """How many texts each call to the tower encoded."""
    calls = []
    embed = CLIPBackbone.embed_texts

    def count(backbone, packed, halves=None):
        calls.append(len(packed.lengths))
        return embed(backbone, packed, halves)

    monkeypatch.setattr(CLIPBackbone, "embed_texts", count)
    return calls


@pytest.fixture
def backbone(small_clip):
    """The small CLIP as a backbone; the two share their weights."""
    return CLIPBackbone(small_clip, "test")


def test_without_gradients_a_text_is_encoded_once(small_clip, backbone, counted):
    encode = encoder_of(backbone)
    with torch.inference_mode():
        first = encode(["a", "b"])
        again = encode(["b", "c"])
    assert counted == [2, 1]
    assert torch.equal(first[1], again[0])
    torch.testing.assert_close(again, plain_texts(small_clip, ["b", "c"]), atol=1e-6, rtol=0)


def test_with_gradients_nothing_stale_is_served(backbone, counted):
    encode = encoder_of(backbone)
    assert encode(["a"]).requires_grad
    assert encode(["a"]).requires_grad
    assert counted == [1, 1]


def change_by_step(backbone):
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=0.1)
    encoder_of(backbone)(["a cat"]).sum().backward()
    optimizer.step()


def change_by_loading(backbone):
    backbone.load_state_dict(random_backbone(seed=5).state_dict())


def change_after_moving(backbone):
    backbone.double()
    backbone.float()
    torch.nn.init.normal_(backbone.text_projection)


@pytest.mark.parametrize("change", [change_by_step, change_by_loading, change_after_moving])
def test_a_change_of_weights_forgets_what_was_kept(small_clip, backbone, change):
    encode = encoder_of(backbone)
    with torch.no_grad():
        before = encode(["a cat"])
    change(backbone)
    with torch.no_grad():
        after = encode(["a cat"])
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, plain_texts(small_clip, ["a cat"]).detach(), atol=1e-6, rtol=0)


def test_a_training_step_forgets_what_a_fused_optimiser_changed_without_telling(backbone):
    config = Config(name="x")
    config.train.lr = config.train.final_lr = 0.1
    engine = make_engine(make_method(backbone, config), config, Machine.choose("cpu", "fp32"))
    samples = [Sample(p, p, p, "sentence", {"quality": 4.0}) for p in ("a bench", "a red bus")]
    trainer = Trainer(Loader(engine, ImageCache(Path("unused"))), samples, config)
    before = engine.embed_texts(["a cat"])
    pictures = [torch.randint(0, 256, (3, 512, 512), dtype=torch.uint8) for _ in samples]
    assert trainer.step(trainer.loader.stage(samples, pictures)).isfinite()
    after = engine.embed_texts(["a cat"])
    assert not torch.allclose(before, after, atol=1e-3)
    truth = plain_texts(openai_module(backbone.state_dict()), ["a cat"])
    torch.testing.assert_close(after, truth.detach(), atol=1e-6, rtol=0)


def test_another_precision_is_computed_again(backbone):
    encode = encoder_of(backbone)
    with torch.no_grad():
        exact = encode(["a cat"])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = encode(["a cat"])
        assert not torch.equal(exact, rough)
        assert torch.equal(exact, encode(["a cat"]))


def test_a_frozen_text_tower_is_run_once_while_the_image_tower_trains(backbone, counted):
    for parameter in backbone.text_weights():
        parameter.requires_grad_(False)
    encode = encoder_of(backbone)
    with torch.inference_mode():
        encode(["a", "b"])
    found = encode(["a", "b"])  # outside: must be fit to meet a gradient
    (found * torch.ones(1, requires_grad=True)).sum().backward()
    assert counted == [2]


def test_the_constant_part_is_run_once_while_the_rest_trains(monkeypatch):
    clip = random_clip(text_layers=4)
    backbone = CLIPBackbone(clip, "test")
    backbone.freeze(0.5, stem=True)
    assert backbone.constant_text_blocks == 2
    encode, calls = encoder_of(backbone), []
    start = backbone.start_text

    def count(numbers):
        calls.append(tuple(numbers.tolist()))
        return start(numbers)

    monkeypatch.setattr(backbone, "start_text", count)
    for texts in (["a", "b"], ["b", "c"]):
        torch.testing.assert_close(encode(texts), plain_texts(clip, texts), atol=1e-6, rtol=0)
    assert calls == [backbone.tokenize(text) for text in "abc"]  # each alone


@pytest.mark.parametrize("stem", [False, True])
@pytest.mark.parametrize("texts", [["a"], ["a", "word " * 100, "b"]])
def test_texts_that_were_packed_ahead_have_the_same_embeddings_and_gradients(stem, texts):
    backbone = random_backbone(text_layers=2)
    backbone.freeze(0.5, stem=stem)
    encode, found = encoder_of(backbone), []
    for packed in (None, encode.pack(texts), PackedTexts.of([backbone.tokenize(text) for text in texts], fixed=True)):
        backbone.zero_grad()
        embeddings = encode(texts, packed)[: len(texts)]
        embeddings[:, 0].sum().backward()
        found.append((embeddings.detach(), backbone.text_projection.grad.clone()))
    for others in found[1:]:
        torch.testing.assert_close(others, found[0], atol=1e-6, rtol=1e-5)


def test_what_is_kept_is_bounded_in_bytes_and_what_is_asked_for_most_stays(small_clip, backbone, monkeypatch, counted):
    one = 64 * 4  # bytes of an embedding
    monkeypatch.setattr(module, "MOST_KEPT", 4 * one)
    encode = encoder_of(backbone)
    with torch.no_grad():
        for i in range(10):
            encode(["in every call", f"text {i}", f"other {i}"])
            assert sum(tensor.untyped_storage().nbytes() for tensor in encode.embeddings.tensors.values()) <= 4 * one
        assert counted == [3] + [2] * 9
        many = [f"more {i}" for i in range(9)]  # than fit: all come back, and few stay
        torch.testing.assert_close(encode(many), plain_texts(small_clip, many), atol=1e-6, rtol=0)
    assert list(encode.embeddings.tensors) == many[-4:]


def test_nothing_is_kept_halfway_where_nothing_trains():
    clip = random_clip(text_layers=4)
    backbone = CLIPBackbone(clip, "test")
    backbone.freeze(0.5, stem=True)
    encode = encoder_of(backbone)
    with torch.inference_mode():
        found = encode(["a", "b"])
    assert not encode.halves.tensors
    torch.testing.assert_close(found, plain_texts(clip, ["a", "b"]), atol=1e-6, rtol=0)
