"""How the demo CLIP is pre-trained: views and their labels, the encoders, Muon."""

import numpy as np
import torch
import torch.nn.functional as F
from clip.model import CLIP

from mgs.backbones.architecture import MEAN, STD
from mgs.backbones.clip import CLIPBackbone
from mgs.demo.drawing import draw
from mgs.demo.faults import Damage
from mgs.demo.generators import Drawn
from mgs.demo.prompts import COLOURS, Group
from mgs.demo.things.table import THINGS
from scripts.demo_captions import WHOLE
from scripts.demo_views import EMPTY, UNCLEAR, label_patches
from scripts.muon import orthogonal
from scripts.pretrain_demo_clip import ARCHITECTURE, encode_image, encode_text, first_of_few


@torch.no_grad()
def test_the_encoders_are_clips_and_patches_are_read_as_explanations_read_them():
    import clip

    torch.manual_seed(0)
    model = CLIP(**ARCHITECTURE).float().eval()
    pixels = torch.randint(0, 256, (3, 96, 96, 3), dtype=torch.uint8)
    views = ((pixels.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    images, patches = encode_image(model, pixels)
    assert torch.allclose(images, F.normalize(model.encode_image(views), dim=-1), atol=1e-6)
    texts = ["a red cow", "two boats below a house, fog", "sharp"]
    plain = F.normalize(model.encode_text(clip.tokenize(texts)), dim=-1)
    assert torch.allclose(encode_text(model, texts), plain, atol=1e-6)

    backbone = CLIPBackbone(model, "test")
    _, last = backbone.finish_with_tokens(backbone.start_images(views[None]))
    assert torch.allclose(patches, last.embed_patches().flatten(1, 2), atol=1e-5)


def test_a_patch_is_labelled_with_what_covers_it():
    picture = draw(
        Drawn((Group("red", "house"), Group("blue", "apple", 2)), "left of"), Damage(), np.random.default_rng(0)
    )
    for top, left, side in (WHOLE, (40, 100, 300)):
        things, colours = label_patches(picture, (top, left, side))
        owners = [picture.mask(group)[top : top + side, left : left + side] for group in (0, 1)]
        for patch in range(64):
            row, column = divmod(patch, 8)
            rows, columns = (slice(round(i * side / 8), round((i + 1) * side / 8)) for i in (row, column))
            shares = [mask[rows, columns].mean() for mask in owners]
            if things[patch] == EMPTY:
                assert max(shares) < 0.03
            elif things[patch] != UNCLEAR:
                colour, thing = (("red", "house"), ("blue", "apple"))[int(np.argmax(shares))]
                assert max(shares) > 0.35
                assert things[patch] == 1 + list(THINGS).index(thing)
                assert colours[patch] == list(COLOURS).index(colour)
        assert len(set(things)) == 4
        assert set(colours[things <= 0]) == {UNCLEAR}


def test_the_first_of_a_views_few_texts_is_the_right_one():
    images, texts = torch.randn(4, 6), torch.randn(9, 6)
    few = [["a", "b", "c"], [], ["d"], ["e", "f", "g", "h", "i"]]
    first = F.cross_entropy((texts[:3] @ images[0])[None], torch.tensor([0]))
    last = F.cross_entropy((texts[4:] @ images[3])[None], torch.tensor([0]))
    assert torch.allclose(first_of_few(images, texts, few), (first + last) / 2)
    assert first_of_few(images[:2], texts[:1], [["d"], []]) == 0
    assert first_of_few(images[:2], texts[:0], [[], []]) == 0


def test_muon_makes_steps_about_orthogonal():
    for shape in ((64, 64), (128, 512), (512, 128)):
        random = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        u, _, v = torch.linalg.svd(random, full_matrices=False)
        stretched = u * torch.linspace(0.1, 1, min(shape)) @ v
        _, step = orthogonal(torch.stack([random, stretched]))
        made = u.T @ step @ v.T  # about the identity
        assert (made.diag() - 1).abs().max() < 0.35
        assert (made - made.diag().diag()).abs().max() < 1e-3
