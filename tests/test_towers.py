"""The lean towers against openai-clip's own, embeddings and gradients, and the whole model against the plain way."""

import copy
import pickle

import pytest
import torch
from conftest import embed_views, random_backbone, random_clip, score_views
from torch import nn

from benchmarks.plain import Plain, plain_texts, plain_views
from mgs.backbones.casts import Casts
from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.packing import ROW_TOKENS, ROWS_AT_ONCE, TEXTS_AT_ONCE, PackedTexts
from mgs.config import Config, ModelConfig
from mgs.dimensions import Prompt
from mgs.methods.table import make_method

TEXTS = [
    "",
    "a cat",
    "A photo of bad quality that appears fairly realistic.",
    "a bench",
    "word " * 100,
    "cafés über 北京",
]
PROMPTS = [
    Prompt("a river in a forest: painted by J.R.R. Tolkien, close-up, baroque style", "hybrid"),
    Prompt("statue", "hybrid"),
    Prompt("On a hill, without trees, a dog behind a red door"),
]
PROMPTS_AS_TEXTS = [prompt.text for prompt in PROMPTS]
SHAPES = {
    "demo": {},
    "ViT-B/16": {"size": 224, "width": 768, "layers": 12, "embed": 512, "text_width": 512, "text_layers": 12},
}


FULL = pytest.param("ViT-B/16", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["demo", FULL])
def clip(request):
    model = random_clip(**SHAPES[request.param])
    for parameter in model.parameters():  # biases and norms start at 0 and 1, where a lost one would not show
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    return model


def backbone_of(clip, share=0.0, *, stem=False):
    """A backbone of a CLIP that is trainable throughout but for what is frozen here."""
    for parameter in clip.parameters():
        parameter.requires_grad_(True).grad = None
    backbone = CLIPBackbone(clip, "test")
    backbone.freeze(share, stem=stem)
    return backbone


def pack(backbone, texts, **options):
    return PackedTexts.of([backbone.tokenize(text) for text in texts], **options)


def encode_texts(backbone, texts, **options):
    """Texts through the constant part, each alone, and then together through the rest."""
    halves = [backbone.start_text(torch.tensor(backbone.tokenize(text))) for text in texts]
    return backbone.embed_texts(pack(backbone, texts, **options), halves)


def some_views(clip, *shape):
    size = clip.visual.input_resolution
    return torch.randn(*shape, 3, size, size, generator=torch.Generator().manual_seed(1))


def shares(blocks):
    """Shares that freeze none, one, all but one and all of a tower's blocks."""
    return [0, 1 / blocks + 1e-6, 1 - 1 / blocks + 1e-6, 1]


@torch.no_grad()
def test_view_embeddings_equal_openai_clips_from_whatever_block_they_are_taken_up(clip):
    views, blocks = some_views(clip, 2), len(clip.visual.transformer.resblocks)
    truth = plain_views(clip, views)
    for share, constant in zip(shares(blocks), (0, 1, blocks - 1, blocks - 1), strict=True):
        backbone = backbone_of(clip, share, stem=True)
        assert backbone.constant_image_blocks == constant
        torch.testing.assert_close(embed_views(backbone, views), truth, atol=1e-6, rtol=0)
    assert embed_views(backbone, views[None]).shape == (1, *truth.shape)


@torch.no_grad()
def test_text_embeddings_equal_openai_clips_at_77_tokens_from_whatever_block_they_are_taken_up(clip):
    truth, blocks = plain_texts(clip, TEXTS), len(clip.transformer.resblocks)
    for share, constant in zip(shares(blocks), (0, 1, blocks - 1, blocks - 1), strict=True):
        backbone = backbone_of(clip, share, stem=True)
        assert backbone.constant_text_blocks == constant
        torch.testing.assert_close(encode_texts(backbone, TEXTS), truth, atol=1e-6, rtol=0)
    torch.testing.assert_close(backbone.embed_texts(pack(backbone, TEXTS)), truth, atol=1e-6, rtol=0)
    padded = nn.utils.rnn.pad_sequence([torch.tensor(backbone.tokenize(text)) for text in TEXTS], batch_first=True)
    torch.testing.assert_close(backbone.embed_padded(padded), truth, atol=1e-6, rtol=0)
    many = [f"number {i}, " + "word " * (i % 60) for i in range(40)]  # more than a row holds
    torch.testing.assert_close(encode_texts(backbone, many), plain_texts(clip, many), atol=1e-6, rtol=0)


@pytest.mark.parametrize("fixed", [False, True])
def test_texts_lie_in_rows_without_touching_one_another(fixed):
    lengths = [3, 77, 20, 5, 5, 60, 77, 77, 31]
    tokens = [[100 * i + j for j in range(length)] for i, length in enumerate(lengths)]
    rows = PackedTexts.of(tokens, fixed=fixed)
    count, longest = rows.shape
    assert count == (ROWS_AT_ONCE if fixed else -(-sum(lengths) // ROW_TOKENS))
    assert longest == ROW_TOKENS if fixed else longest <= ROW_TOKENS
    assert sorted(rows.places.tolist()) == list(range(count * longest))  # each place once
    taken = rows.places[: sum(lengths)]
    ends = taken[torch.tensor(lengths).cumsum(0) - 1].tolist()
    assert rows.ends.tolist() == ends + [0] * (len(rows.ends) - len(ends))
    assert len(rows.ends) == (TEXTS_AT_ONCE if fixed else len(lengths))
    assert rows.numbers.tolist() == [number for text in tokens for number in text] + [0] * rows.padding
    assert rows.positions.tolist() == [j for length in lengths for j in range(length)] + [0] * rows.padding
    looked_at = rows.mask()[:, 0].flatten(0, 1).sum(-1)  # itself and all before it in its own text
    assert looked_at[taken].tolist() == [i + 1 for length in lengths for i in range(length)]
    assert looked_at.min() > 0  # padding looks at padding: a row of a softmax over nothing would be NaN
    laid = rows.lay(rows.numbers[:, None].float())
    assert torch.equal(laid.flatten()[taken], rows.numbers[: sum(lengths)].float())


@torch.no_grad()
def test_texts_in_rows_of_fixed_shape_have_the_same_embeddings(clip):
    backbone = backbone_of(clip, 0.5, stem=True)
    batches = [TEXTS, ["a cat"], [f"number {i}, " + "word " * (i % 20) for i in range(30)]]
    shapes = set()
    for texts in batches:
        packed = pack(backbone, texts, fixed=True)
        shapes.add((packed.shape, *(tuple(tensor.shape) for tensor in packed.tensors().values())))
        loose = backbone.embed_texts(pack(backbone, texts))
        assert loose.shape[0] == len(texts)
        for fixed in (backbone.embed_texts(packed), encode_texts(backbone, texts, fixed=True)):
            assert fixed.isfinite().all()
            torch.testing.assert_close(fixed[: len(texts)], loose, atol=1e-6, rtol=0)
    assert len(shapes) == 1  # so that a GPU sees one shape, whatever the texts are


@pytest.mark.parametrize(("lengths", "rows"), [([77] * 65, 24), ([51] * 20, 4), ([77] * 13, 8), ([300, 3], 4)])
def test_rows_of_fixed_length_become_more_rather_than_longer(lengths, rows):
    packed = PackedTexts.of([range(length) for length in lengths], fixed=True)
    assert packed.shape == (rows, 512 if max(lengths) > ROW_TOKENS else ROW_TOKENS)
    assert len(packed.ends) == (2 if len(lengths) > TEXTS_AT_ONCE else 1) * TEXTS_AT_ONCE


def test_padding_has_no_part_in_any_gradient():
    backbone = random_backbone()
    found = []
    for fixed in (False, True):
        backbone.zero_grad()
        embeddings = backbone.embed_texts(pack(backbone, PROMPTS_AS_TEXTS, fixed=fixed))[: len(PROMPTS_AS_TEXTS)]
        (embeddings * torch.arange(embeddings.numel()).view_as(embeddings).cos()).sum().backward()
        found.append(gradients(backbone))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-5)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def loss_of(scores):
    targets = torch.tensor([1.0, 4.0, 2.5])
    return sum(((scores[d] - targets) ** 2).mean() for d in ("quality", "authenticity", "correspondence"))


@pytest.mark.parametrize(
    ("clip", "freeze_stem"),
    [("demo", False), ("demo", True), pytest.param("ViT-B/16", False, marks=pytest.mark.slow)],
    indirect=["clip"],
)
def test_scores_and_every_gradient_equal_the_plain_ways(clip, freeze_stem, two_threads):
    config = Config(model=ModelConfig(freeze_stem=freeze_stem))
    model = make_method(backbone_of(clip), config)
    plain = Plain(clip, model.alpha)
    views = some_views(clip, 3, 4)  # of any number of patches, but at least the three that a fragment is scored on
    truth = plain(views, PROMPTS)
    loss_of(truth).backward()
    expected = gradients(plain)
    model.zero_grad()
    ours = score_views(model, views, PROMPTS)
    loss_of(ours).backward()
    found = {name.removeprefix("backbone."): gradient for name, gradient in gradients(model).items()}
    expected = {name.removeprefix("clip."): gradient for name, gradient in expected.items()}
    assert ours.keys() == truth.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], truth[name], atol=1e-5, rtol=0)
    assert found.keys() == expected.keys()
    assert len(found) > 20
    for name, gradient in expected.items():
        error = (found[name] - gradient).norm() / gradient.norm().clamp(min=1e-8)
        assert error < 1e-4, (name, error)


def saved_bytes(function):
    """Bytes that autograd keeps for the backward pass, weights aside, each storage once."""
    storages = {}

    def note(tensor):
        if not isinstance(tensor, nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = function()
    assert result.requires_grad
    return sum(storages.values())


def test_nothing_is_kept_for_a_backward_pass_below_the_lowest_trainable_weight():
    backbone = random_backbone(layers=4, text_layers=4)
    views, numbers = some_views(backbone, 4), torch.tensor(backbone.tokenize("a cat"))
    backbone.freeze(0.5, stem=True)
    assert not backbone.start_images(views).requires_grad
    assert not backbone.start_text(numbers).requires_grad
    started = backbone.start_images(views)
    whole = saved_bytes(lambda: backbone.finish_images(backbone.start_images(views)))
    upper = saved_bytes(lambda: backbone.finish_images(started))
    assert whole == upper


def test_fewer_activations_are_kept_than_the_plain_towers_keep():
    clip = random_clip(layers=4, text_layers=4)
    views, backbone = some_views(clip, 4), CLIPBackbone(clip, "test")
    plain = saved_bytes(lambda: clip.encode_image(views))
    lean = saved_bytes(lambda: embed_views(backbone, views))
    assert lean < 0.8 * plain, lean / plain


def test_frozen_weights_under_autocast_are_cast_once_to_the_bits_of_autocasts_own_cast():
    casts, inputs = Casts(), torch.randn(5, 8)
    frozen, trained = (nn.Parameter(torch.randn(4, 8), requires_grad=trains) for trains in (False, True))
    assert casts(frozen) is frozen
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept = casts(frozen)
        assert kept.dtype == torch.bfloat16
        assert torch.equal(kept, frozen.bfloat16())
        assert torch.equal(nn.functional.linear(inputs, kept), nn.functional.linear(inputs, frozen))
        assert casts(frozen) is kept
        with torch.inference_mode():
            assert casts(frozen) is kept
        assert casts(trained) is trained
    assert casts(frozen) is frozen
    with torch.autocast("cpu", dtype=torch.float16):
        assert torch.equal(casts(frozen), frozen.half())


def test_a_cast_follows_a_weight_that_is_changed_loaded_moved_or_thawed_and_is_not_shared_by_copies():
    casts, layer = Casts(), nn.Linear(8, 4).requires_grad_(False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = casts(layer.weight)
        layer.weight.add_(1)
        assert torch.equal(casts(layer.weight), layer.weight.bfloat16())
        assert not torch.equal(casts(layer.weight), before)
        layer.load_state_dict(nn.Linear(8, 4).state_dict())
        assert torch.equal(casts(layer.weight), layer.weight.bfloat16())
        layer.weight.data = torch.randn(4, 8)  # as moving a module does
        assert torch.equal(casts(layer.weight), layer.weight.bfloat16())
        for _ in range(20):  # others in its place, perhaps at the same address
            layer.weight = nn.Parameter(torch.randn(4, 8), requires_grad=False)
            assert torch.equal(casts(layer.weight), layer.weight.bfloat16())
        layer.weight.requires_grad_(True)
        assert casts(layer.weight) is layer.weight
    for copied in (copy.deepcopy(casts), pickle.loads(pickle.dumps(casts))):
        assert copied.kept == {}


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_casts_of_frozen_weights_change_neither_embeddings_nor_gradients(monkeypatch, share):
    backbone = random_backbone(layers=2, text_layers=2)
    backbone.freeze(share, stem=True)
    views, found = some_views(backbone, 2), []
    for own in (True, False):
        if not own:
            monkeypatch.setattr(backbone, "casts", lambda weight: weight)
        backbone.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            images, texts = embed_views(backbone, views), encode_texts(backbone, PROMPTS_AS_TEXTS)
        (images.square()[:, 0].sum() + texts.square()[:, 0].sum()).backward()
        found.append((images, texts, gradients(backbone)))
    for ours, autocasts in zip(found[0][:2], found[1][:2], strict=True):
        assert torch.equal(ours, autocasts)
    assert found[0][2].keys() == found[1][2].keys()
    assert all(torch.equal(gradient, found[1][2][name]) for name, gradient in found[0][2].items())
