import copy
import re
import subprocess
import sys
import warnings

import pytest
import torch
from conftest import random_clip
from safetensors.torch import save_file

from benchmarks.plain import openai_module, plain_texts, plain_views
from mgs.backbones import openai
from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.describe_parameters import describe_parameters
from mgs.backbones.openai import NAMES, RESNETS, openai_clip
from mgs.backbones.table import is_published, load_backbone
from mgs.config import Config
from mgs.errors import UserError
from mgs.methods.table import make_method


def save_jit(clip, path):
    """Write a CLIP the way OpenAI does: TorchScript, half-precision weights, the sizes stored beside them."""
    archive = copy.deepcopy(clip)
    del archive.context_length, archive.vocab_size  # plain attributes, which OpenAI's archives hold as tensors
    for name, value in (("input_resolution", 96), ("context_length", 77), ("vocab_size", 49408)):
        archive.register_buffer(name, torch.tensor(value))
    openai_clip().model.convert_weights(archive)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A reader of weights never runs the code, and half precision need not run on a CPU: trace something trivial.
        archive.forward = lambda text: archive.token_embedding(text)
        torch.jit.save(torch.jit.trace(archive, torch.zeros(1, 77, dtype=torch.long)), path)


def same_embeddings(backbone, other, *, tolerance):
    one = openai_module(backbone.state_dict())  # whose names are OpenAI's
    views = torch.rand(2, 3, 96, 96)
    texts = ["a red circle", "a blue star"]
    with torch.no_grad():
        torch.testing.assert_close(plain_views(one, views), plain_views(other, views), atol=tolerance, rtol=0)
        torch.testing.assert_close(plain_texts(one, texts), plain_texts(other, texts), atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", ["clip.pt", "clip.safetensors", "jit.pt"])
def test_a_local_file_gives_back_the_clip_that_was_saved(tmp_path, small_clip, kind):
    path = tmp_path / kind
    if kind == "jit.pt":
        save_jit(small_clip, path)
    elif kind == "clip.pt":
        torch.save(small_clip.state_dict(), path)
    else:
        save_file(small_clip.state_dict(), path)
    loaded = load_backbone(str(path))
    same_embeddings(loaded, small_clip, tolerance=5e-3 if kind == "jit.pt" else 0)  # half-precision weights
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not loaded.published
    assert len(loaded.sha256) == 64


def test_shapes_tell_the_architecture(tmp_path):
    clip = random_clip(size=64, patch=8, width=192, layers=5, embed=32, text_width=128, text_layers=1)
    torch.save(clip.state_dict(), tmp_path / "odd.pt")
    loaded = load_backbone(str(tmp_path / "odd.pt"))
    assert (loaded.size, loaded.context) == (64, 77)
    assert (len(loaded.visual.transformer.resblocks), len(loaded.transformer.resblocks)) == (5, 1)
    assert loaded.visual.transformer.resblocks[0].attn.num_heads == 3
    assert loaded.transformer.resblocks[0].attn.num_heads == 2


def test_an_openai_name_reads_the_file_that_openai_clip_keeps(tmp_path, small_clip, monkeypatch):
    import hashlib

    torch.save(small_clip.state_dict(), tmp_path / "ViT-B-32.pt")
    digest = hashlib.sha256((tmp_path / "ViT-B-32.pt").read_bytes()).hexdigest()
    monkeypatch.setattr(openai, "DOWNLOADS", tmp_path)
    monkeypatch.setitem(openai_clip().clip._MODELS, "ViT-B/32", f"https://127.0.0.1:9/{digest}/ViT-B-32.pt")
    loaded = load_backbone("ViT-B/32")
    same_embeddings(loaded, small_clip, tolerance=0)
    assert loaded.published
    assert loaded.name == "ViT-B/32"
    assert loaded.sha256 == digest


def test_weights_that_cannot_be_fetched_name_url_path_and_key(tmp_path, monkeypatch):
    url = "https://127.0.0.1:9/abc/ViT-B-16.pt"  # nothing listens there
    monkeypatch.setattr(openai, "DOWNLOADS", tmp_path)
    monkeypatch.setitem(openai_clip().clip._MODELS, "ViT-B/16", url)
    with pytest.raises(UserError) as caught:
        load_backbone("ViT-B/16")
    for part in ("model.clip=ViT-B/16", url, str(tmp_path / "ViT-B-16.pt"), "demo"):
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir())


def write_text(path):
    path.write_text("not weights")


def write_other_model(path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)


def write_pickled_code(path):
    torch.save({"weights": subprocess.Popen}, path)


def write_resnet(path):
    torch.save({"visual.layer1.0.conv1.weight": torch.zeros(1)}, path)


def write_truncated(path):
    torch.save(random_clip(layers=1).state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])


def write_wrong_shape(path):
    state = random_clip(layers=1).state_dict()
    state["ln_final.weight"] = torch.zeros(3)
    torch.save(state, path)


@pytest.mark.parametrize(
    ("write", "part"),
    [
        (write_text, "not readable"),
        (write_other_model, "no tensor 'visual.conv1.weight'"),
        (write_pickled_code, "not readable"),
        (write_resnet, "ResNet"),
        (write_truncated, "not readable"),
        (write_wrong_shape, "ln_final.weight"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_no_clip_is_one_line_naming_the_file(tmp_path, write, part, suffix):
    path = tmp_path / f"bad{suffix}"
    write(path)
    with pytest.raises(UserError) as caught:
        load_backbone(str(path))
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert part in message or suffix == ".safetensors"  # none of these is a safetensors file


def test_an_absent_file_lists_what_would_do():
    with pytest.raises(UserError, match=r"model\.clip=nowhere/clip\.pt: no such file.*ViT-B/16.*demo"):
        load_backbone("nowhere/clip.pt")


def test_every_published_clip_is_known_by_name_and_by_its_kind():
    published = set(openai_clip().clip._MODELS)
    assert set(NAMES) == {name for name in published if name.startswith("ViT")}
    assert set(RESNETS) == published - set(NAMES)
    assert all(map(is_published, published))


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ({"clip/__init__.py": "version = '0.2.0'"}, "pip uninstall clip"),
        ({"clip/__init__.py": "import no_such_thing"}, "pip install openai-clip"),
        (
            {
                "clip/__init__.py": "import pkg_resources",
                "pkg_resources.py": "raise ModuleNotFoundError(name='pkg_resources')",
            },
            "setuptools<81",
        ),
    ],
)
def test_a_wrong_clip_package_is_one_line_with_the_remedy(tmp_path, monkeypatch, files, part):
    openai_clip()  # so that it is there to be put back
    for name in [name for name in sys.modules if name.split(".")[0] == "clip"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "pkg_resources", raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=re.escape(part)) as caught:
        openai_clip.__wrapped__()  # without what it remembers
    assert "\n" not in str(caught.value)


def test_the_log_counts_what_trains_and_what_is_frozen(small_clip):
    model = make_method(CLIPBackbone(small_clip, "test"), Config())
    table = describe_parameters(model)
    trains = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    last = table.splitlines()[-1].split()
    assert last == ["all", f"{trains:,}", f"{frozen:,}"]
