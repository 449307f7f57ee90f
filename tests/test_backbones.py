"""Every kind of CLIP against the library that it comes from, on random weights that are large enough to tell apart."""

import json

import pytest
import torch
from conftest import embed_views
from safetensors.torch import save_file

from mgs.backbones.openai import openai_clip
from mgs.backbones.packing import PackedTexts
from mgs.backbones.table import load_backbone
from mgs.errors import UserError

TEXTS = ["", "a cat", "A photo of bad quality that appears fairly realistic.", "word " * 100]
CLOSE = 1e-5
VISION = {"layers": 3, "width": 160, "head_width": 80, "patch_size": 16, "image_size": 48, "mlp_ratio": 4.3637}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def enlarge(model, seed=0):
    """Random weights of which every part shows in the embeddings."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        elif "logit" not in name:
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def unit(embeddings):
    return torch.nn.functional.normalize(embeddings.float(), dim=-1)


def some_views(backbone):
    return torch.randn(3, 3, backbone.size, backbone.size, generator=torch.Generator().manual_seed(1))


def embed_texts(backbone, texts=TEXTS, **options):
    packed = PackedTexts.of([backbone.tokenize(text) for text in texts], **options)
    return backbone.embed_texts(packed)[: len(texts)]


def assert_same(backbone, images, texts):
    """Its embeddings are those that its library gave."""
    torch.testing.assert_close(embed_views(backbone, some_views(backbone)), unit(images), atol=CLOSE, rtol=0)
    torch.testing.assert_close(embed_texts(backbone), unit(texts), atol=CLOSE, rtol=0)


def far_off(backbone, images, texts):
    """Whether every embedding of both towers is another."""
    found = embed_views(backbone, some_views(backbone)), embed_texts(backbone)
    worst = [(one * unit(other)).sum(-1).max() for one, other in zip(found, (images, texts), strict=True)]
    return max(worst) < 0.995


def refused(path, **options):
    with pytest.raises(UserError) as caught:
        load_backbone(str(path), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def open_clip_model(*, quick_gelu, **vision):
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    model = open_clip.CLIP(48, {**VISION, **vision}, TEXT, quick_gelu=quick_gelu)
    return enlarge(model)


def open_clip_json(*, quick_gelu, **vision):
    return {
        "model_cfg": {"embed_dim": 48, "quick_gelu": quick_gelu, "vision_cfg": {**VISION, **vision}, "text_cfg": TEXT},
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    }


def save_open_clip(model, folder, name="open_clip_model.safetensors"):
    if name.endswith(".safetensors"):
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / name)
    elif name.endswith(".bin"):
        torch.save(model.state_dict(), folder / name)
    else:  # as its training does
        state = {f"module.{key}": value for key, value in model.state_dict().items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"state": {}}}, folder / name)
    return folder / name


def open_clip_truth(model, backbone):
    import open_clip

    return model.encode_image(some_views(backbone)), model.encode_text(open_clip.tokenize(TEXTS))


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "epoch_3.pt"])
def test_open_clips_file_is_read_as_the_json_beside_it_says(tmp_path, quick_gelu, file):
    model = open_clip_model(quick_gelu=quick_gelu)
    path = save_open_clip(model, tmp_path, file)
    assert "activation" in refused(path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_json(quick_gelu=quick_gelu)))
    backbone = load_backbone(str(path if file.startswith("epoch") else tmp_path))
    truth = open_clip_truth(model, backbone)
    assert_same(backbone, *truth)
    assert backbone.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert backbone.visual.transformer.resblocks[0].attn.num_heads == 2
    other = load_backbone(str(path), activation="gelu" if quick_gelu else "quick_gelu")
    assert far_off(other, *truth)
    assert other.sha256 != backbone.sha256
