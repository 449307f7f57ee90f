"""Token maps: each patch's part against plain loops, merging against closed forms, and a drawn thing is pointed at."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import embed_views, random_backbone, random_clip
from PIL import Image, ImageDraw

from mgs import Scorer
from mgs.backbones.clip import CLIPBackbone
from mgs.scoring.score_maps import Box, ScoreMap


def normed(norm, x):
    return (x - x.mean()) / (x.var(correction=0) + norm.eps).sqrt() * norm.weight + norm.bias


def plain_attention(block, tokens):
    """Each head's and token's part in the class token's change, (H, L, W), of one view's tokens, by loops."""
    width, heads = tokens.shape[1], block.attn.num_heads
    wide = width // heads
    y = torch.stack([normed(block.ln_1, token) for token in tokens])
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    q, k, v = (y @ weight[i * width : (i + 1) * width].T + bias[i * width : (i + 1) * width] for i in range(3))
    parts = torch.zeros(heads, len(tokens), width, dtype=tokens.dtype)
    for head in range(heads):
        own = slice(head * wide, (head + 1) * wide)
        fit = torch.tensor([float(q[0, own] @ k[j, own]) / wide**0.5 for j in range(len(tokens))])
        share = fit.exp() / fit.exp().sum()
        for j in range(len(tokens)):
            parts[head, j] = share[j] * (block.attn.out_proj.weight[:, own] @ v[j, own])
    return parts


@torch.no_grad()
@pytest.mark.parametrize("shape", [{}, {"size": 64, "width": 64, "layers": 1, "embed": 32}])
def test_a_patchs_part_is_attention_times_the_slope_of_the_score(shape):
    clip = random_clip(**shape)
    backbone, views = (
        CLIPBackbone(clip, "test"),
        torch.randn(1, 2, 3, clip.visual.input_resolution, clip.visual.input_resolution),
    )
    text = F.normalize(torch.randn(clip.visual.output_dim), dim=0)
    started = backbone.start_images(views)
    embeddings, last = backbone.finish_with_tokens(started)
    assert torch.equal(embeddings, backbone.finish_images(started))
    found = last.read(lambda views: torch.stack([views @ text, 3 * (views @ text) ** 2], -1))
    side = clip.visual.input_resolution // 16
    assert found.shape == (2, 2, side, side)

    visual, block = clip.visual.double(), clip.visual.transformer.resblocks[-1]
    tokens = last.tokens[0].double()
    parts = plain_attention(block, tokens)

    def score(change):
        x = tokens[0] + change + block.attn.out_proj.bias
        x = x + block.mlp(normed(block.ln_2, x))
        return F.normalize(normed(visual.ln_post, x) @ visual.proj, dim=0) @ text.double()

    whole = parts.sum((0, 1))
    assert score(whole).item() == pytest.approx((embeddings[0, 0] @ text).item(), abs=1e-5)
    step = 1e-3
    for j in range(1, len(tokens)):
        part = parts[:, j].sum(0)
        slope = (score(whole + step * part) - score(whole - step * part)) / (2 * step)
        assert found[0, 0].flatten()[j - 1].item() == pytest.approx(slope.item(), abs=2e-6)
        squared = 6 * score(whole) * slope
        assert found[1, 0].flatten()[j - 1].item() == pytest.approx(squared.item(), abs=1e-5)


@torch.no_grad()
def test_a_patchs_embedding_is_its_value_carried_to_the_end_alone():
    clip = random_clip()
    backbone, visual, block = CLIPBackbone(clip, "test"), clip.visual, clip.visual.transformer.resblocks[-1]
    _, last = backbone.finish_with_tokens(backbone.start_images(torch.randn(1, 2, 3, 96, 96)))
    found, width = last.embed_patches(), last.tokens.shape[-1]
    assert found.shape == (2, 6, 6, 64)
    for j in range(36):
        value = (
            block.attn.in_proj_weight[2 * width :] @ block.ln_1(last.tokens[0, 1 + j])
            + block.attn.in_proj_bias[2 * width :]
        )
        alone = visual.ln_post(block.attn.out_proj(value)) @ visual.proj
        assert torch.allclose(found[0, j // 6, j % 6], alone / alone.norm(), atol=1e-5)


def test_parts_and_bias_are_the_class_tokens_change():
    backbone = random_backbone()
    with torch.no_grad():
        embeddings, last = backbone.finish_with_tokens(backbone.start_images(torch.randn(1, 3, 3, 96, 96)))
        change = last.parts().sum(1) + last.block.project_out.bias
        assert torch.allclose(last.embed(change), embeddings[0], atol=1e-6)


def test_in_inference_mode_and_in_bf16_the_maps_are_nearly_the_same():
    backbone, views = random_backbone().requires_grad_(False), torch.randn(1, 2, 3, 96, 96)
    text = F.normalize(torch.randn(64), dim=0)
    _, last = backbone.finish_with_tokens(backbone.start_images(views))
    exact = last.read(lambda views: views @ text[:, None])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        _, last = backbone.finish_with_tokens(backbone.start_images(views))
        rough = last.read(lambda views: views @ text[:, None])
    assert rough.dtype == torch.float32
    assert np.corrcoef(exact.flatten(), rough.flatten())[0, 1] > 0.99


def test_a_tower_of_another_kind_has_no_tokens(monkeypatch):
    monkeypatch.setattr(CLIPBackbone, "finish_with_tokens", lambda self, x: (x.mean(-2), None))
    backbone = random_backbone()
    assert embed_views(backbone, torch.randn(1, 2, 3, 96, 96)).shape == (1, 2, 128)


def test_one_view_over_the_whole_picture_is_resized_as_torch_resizes():
    views = torch.randn(1, 6, 6)
    merged = ScoreMap(views, [Box(0, 0, 300, 512)], (300, 512)).merge()
    assert torch.allclose(merged, F.interpolate(views[None], (300, 512), mode="bilinear")[0, 0], atol=1e-5)


def test_where_views_overlap_a_pixel_has_their_mean():
    views = torch.tensor([1.0, 3.0, 8.0])[:, None, None].expand(3, 4, 4)
    merged = ScoreMap(views, [Box(0, 0, 400, 500), Box(0, 0, 384, 384), Box(0, 100, 384, 384)], (400, 500)).merge()
    assert merged.shape == (400, 500)
    for (y, x), value in {(10, 10): 2, (10, 200): 4, (10, 450): 4.5, (390, 10): 1, (383, 99): 2, (384, 99): 1}.items():
        assert merged[y, x].item() == pytest.approx(value)


def test_a_large_pictures_map_is_coarser_and_keeps_its_places():
    views = torch.tensor([0.0, 2.0])[:, None, None]
    merged = ScoreMap(views, [Box(0, 0, 2000, 4000), Box(1000, 2000, 1000, 2000)], (2000, 4000)).merge()
    assert merged.shape == (256, 512)
    assert merged[128:, 256:].unique().tolist() == [1]
    assert merged[:128].unique().tolist() == merged[:, :256].unique().tolist() == [0]


@pytest.mark.parametrize("centre", [(150, 150), (360, 170), (256, 350)])
def test_one_thing_on_a_plain_ground_is_pointed_at(centre):
    scorer = Scorer.zero_shot("demo")
    picture = Image.new("RGB", (512, 512), (190, 190, 180))
    x, y = centre
    ImageDraw.Draw(picture).ellipse((x - 90, y - 90, x + 90, y + 90), fill=(214, 40, 40))
    explanation = scorer.explain(picture, "a red circle, a plain wall")
    row, column = divmod(int(explanation.maps.fragments[0].merge().argmax()), 512)
    assert np.hypot(row - y, column - x) < 90
    assert explanation.maps.whole.merge().shape == explanation.maps.quality.merge().shape == (512, 512)


def test_without_a_prompt_there_are_maps_of_quality_and_authenticity_alone():
    maps = Scorer.zero_shot("demo").explain(Image.new("RGB", (600, 512), "teal")).maps
    assert maps.whole is None
    assert maps.fragments == []
    assert maps.quality.merge().shape == maps.authenticity.merge().shape
