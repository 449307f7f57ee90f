"""Every kind of CLIP against the library that it comes from, on random weights that are large enough to tell apart."""

import copy
import json
import pickle
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from conftest import embed_views, score_views
from PIL import Image
from safetensors.torch import load_file, save_file

from mgs.backbones import huggingface
from mgs.backbones.architecture import OPENAI, Tower
from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.load_open_clip import options_for
from mgs.backbones.open_clip import OpenCLIPBackbone, is_stem
from mgs.backbones.openai import openai_clip
from mgs.backbones.packing import PackedTexts
from mgs.backbones.table import load_backbone, load_for_training
from mgs.cli.scorer_options import ScorerWords, open_scorer
from mgs.config import Config, ModelConfig
from mgs.dimensions import Prompt
from mgs.engine.engine import make_engine
from mgs.engine.halves import describe_key
from mgs.errors import UserError
from mgs.machine import Machine
from mgs.methods.table import make_method
from mgs.scoring.scorer import Scorer
from mgs.training.checkpoint import load_checkpoint, save_checkpoint

TEXTS = ["", "a cat", "A photo of bad quality that appears fairly realistic.", "word " * 100]
CLOSE = 1e-5
VISION = {"layers": 3, "width": 160, "head_width": 80, "patch_size": 16, "image_size": 48, "mlp_ratio": 4.3637}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@torch.no_grad()
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


def assert_far_off(backbone, images, texts):
    """Every embedding of both towers differs by a hundred times what is let pass elsewhere."""
    for found, truth in ((embed_views(backbone, some_views(backbone)), images), (embed_texts(backbone), texts)):
        assert (found - unit(truth)).abs().amax(-1).min() > 100 * CLOSE


def refused(path, **options):
    with pytest.raises(UserError) as caught:
        load_backbone(str(path), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def open_clip_model(*, quick_gelu, heads=4, **vision):
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    model = open_clip.CLIP(48, {**VISION, **vision}, {**TEXT, "heads": heads}, quick_gelu=quick_gelu)
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
    assert_far_off(other, *truth)
    assert other.sha256 != backbone.sha256


def test_a_width_that_openai_has_not_needs_the_activation_and_then_gets_its_heads(tmp_path):
    model = open_clip_model(quick_gelu=False, heads=1, width=1280, layers=1, mlp_ratio=1.0)
    path = tmp_path / "h14.safetensors"
    save_open_clip(model, tmp_path, path.name)
    assert "width 1280" in refused(path)
    backbone = load_backbone(str(path), activation="gelu")
    assert_same(backbone, *open_clip_truth(model, backbone))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("{", "not readable as JSON"),
        ("[1]", "holds no mapping"),
        ("[" * 100_000, "not readable as JSON"),
        ('{"model_cfg": {"quick_gelu": "yes"}}', "quick_gelu: must be true or false"),
        ('{"model_cfg": {"vision_cfg": [1]}}', "vision_cfg: must be a mapping"),
        ('{"model_cfg": {"vision_cfg": {"head_width": 1e999}}}', "head_width: must be a whole number"),
        ('{"model_cfg": {"vision_cfg": {"head_width": 7}}}', "no multiple of its heads' width"),
        ('{"model_cfg": {"vision_cfg": {"width": 768}}}', "vision_cfg.width: is 768, but the tensors have 160"),
        ('{"model_cfg": {"text_cfg": {"heads": 0}}}', "heads: must be a whole number"),
        ('{"model_cfg": {"text_cfg": {"no_causal_mask": true}}}', "text_cfg.no_causal_mask"),
        ('{"model_cfg": {"vision_cfg": {"timm_model_name": "vit"}}}', "say local-dir:"),
        ('{"model_cfg": {"embed_dim": 48}, "preprocess_cfg": {"mean": [NaN, 0, 0]}}', "mean: must be three numbers"),
        ('{"model_cfg": {"embed_dim": 48}, "preprocess_cfg": {"std": [0, 1, 1]}}', "std: must be three numbers"),
    ],
)
def test_a_json_file_that_is_wrong_is_one_line(tmp_path, small_open_clip, change, part):
    save_file(small_open_clip, tmp_path / "open_clip_model.safetensors")
    text = change
    if change.startswith('{"model_cfg"'):
        whole, changes = open_clip_json(quick_gelu=False), json.loads(change)
        for name, value in changes["model_cfg"].items():
            both = isinstance(value, dict) and isinstance(whole["model_cfg"].get(name), dict)
            whole["model_cfg"][name] = {**whole["model_cfg"][name], **value} if both else value
        whole["preprocess_cfg"] |= changes.get("preprocess_cfg", {})
        text = json.dumps(whole)
    (tmp_path / "open_clip_config.json").write_text(text)
    assert part in refused(tmp_path)


@pytest.fixture(scope="module")
def small_open_clip():
    return {key: value.detach().contiguous() for key, value in open_clip_model(quick_gelu=False).state_dict().items()}


def halved(state):
    """Half-precision weights beside float32 layer norms, as OpenAI saves them, and open_clip with precision=fp16."""
    return {key: value if "ln_" in key else value.half() for key, value in state.items()}


def test_a_file_that_does_not_say_its_activation_is_read_as_openais_and_that_is_said_once(tmp_path, small_clip, capsys):
    state = small_clip.state_dict()
    save_file(state, tmp_path / "clip.safetensors")
    save_file(halved(state), tmp_path / "half.safetensors")
    torch.save(load_file(tmp_path / "half.safetensors"), tmp_path / "saved-again.pt")  # by name: no modules' order
    torch.save(load_file(tmp_path / "clip.safetensors"), tmp_path / "whole-again.pt")
    names = ["clip.safetensors", "half.safetensors", "saved-again.pt", "whole-again.pt"]
    for name in (*names, *names):
        assert load_backbone(str(tmp_path / name)).architecture.image.activation == "quick_gelu"
    said = capsys.readouterr().err
    assert [said.count(f"{name}: does not say its activation") for name in names] == [1, 1, 1, 1]


def test_what_openai_clips_modules_saved_is_read_without_a_remark(tmp_path, small_clip, capsys):
    state = small_clip.state_dict()
    contents = [state, halved(state), {"model_state_dict": state}]
    contents.append({"params": {f"clip_model.{key}": value for key, value in state.items()}})
    for content in contents:
        torch.save(content, tmp_path / "clip.pt")
        assert load_backbone(str(tmp_path / "clip.pt")).architecture == OPENAI
    assert capsys.readouterr().err == ""


def test_what_was_saved_from_open_clips_safetensors_is_not_taken_for_openais(tmp_path):
    model = open_clip_model(quick_gelu=False)
    state = load_file(save_open_clip(model, tmp_path))
    for name in ("epoch_3.pt", "open_clip_pytorch_model.bin"):
        torch.save(state, tmp_path / name)
    assert "saved by open_clip" in refused(tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_json(quick_gelu=False)))
    backbone = load_backbone(str(tmp_path / "epoch_3.pt"))
    assert_same(backbone, *open_clip_truth(model, backbone))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
def test_widths_that_openai_has_not_are_refused_in_files_that_look_like_openais(tmp_path):
    model = open_clip_model(quick_gelu=False, heads=1, width=1280, layers=1, mlp_ratio=0.1)
    order = openai_clip().model.CLIP(8, 32, 1, 64, 16, 77, 9, 64, 1, 2).state_dict()
    torch.save({key: model.state_dict()[key] for key in order}, tmp_path / "h14.pt")
    assert "width 1280" in refused(tmp_path / "h14.pt")
    torch.jit.script(Holder(model)).save(str(tmp_path / "script.pt"))
    assert "width 1280" in refused(tmp_path / "script.pt")
    backbone = load_backbone(str(tmp_path / "script.pt"), activation="gelu")
    assert backbone.architecture.image == Tower("gelu", 80)


class Holder(torch.nn.Module):
    """A module's tensors in modules of the same names, for TorchScript, without their code."""

    def __init__(self, module):
        super().__init__()
        for name, value in module.named_parameters(recurse=False):
            self.register_parameter(name, value)
        for name, part in module.named_children():
            self.add_module(name, Holder(part))


def test_openais_names_leave_no_choice():
    assert "leave model.activation=gelu out" in refused("demo", activation="gelu")


def hugging_face_model(activation):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    shape = {"num_hidden_layers": 2, "hidden_act": activation}
    config = transformers.CLIPConfig(
        text_config={**shape, "hidden_size": 48, "intermediate_size": 100, "num_attention_heads": 3},
        vision_config={
            **shape, "hidden_size": 80, "intermediate_size": 120, "num_attention_heads": 2, "image_size": 48,
            "patch_size": 16,
        },
        projection_dim=40,
    )  # fmt: skip
    return enlarge(transformers.CLIPModel(config))


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_hugging_faces_folder_is_read_without_its_library(tmp_path, activation):
    model = hugging_face_model(activation)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0, 0.1, 0.2], "image_std": [1, 0.5, 0.3]}')
    backbone = load_backbone(str(tmp_path))
    tokens = openai_clip().tokenize(TEXTS, truncate=True)
    images = model.visual_projection(model.vision_model(some_views(backbone)).pooler_output)
    rows = model.text_model(tokens).last_hidden_state
    truth = images, model.text_projection(rows[torch.arange(len(TEXTS)), tokens.argmax(1)])
    assert_same(backbone, *truth)
    assert backbone.mean.flatten().tolist() == pytest.approx([0, 0.1, 0.2])
    assert backbone.visual.transformer.resblocks[0].attn.num_heads == 2
    parts = tmp_path / "parts"
    model.save_pretrained(parts, max_shard_size="5MB")
    assert (parts / "model.safetensors.index.json").is_file()
    torch.testing.assert_close(embed_texts(load_backbone(str(parts))), embed_texts(backbone), atol=0, rtol=0)
    (tmp_path / "config.json").unlink()
    assert "does not say its activation" in refused(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    assert "model_type: is siglip" in refused(tmp_path)
    for silent in ({}, {"model_type": "clip"}, {"vision_config": {}, "text_config": None}):
        (tmp_path / "config.json").write_text(json.dumps(silent))
        assert "does not say its activation" in refused(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {}, "text_config": {"hidden_act": ["gelu"]}}))
    assert "hidden_act" in refused(tmp_path)


def test_hugging_faces_older_form_of_a_towers_description_counts_as_a_whole_as_in_its_library():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    plain = {"hidden_act": "gelu", "hidden_size": 96, "num_attention_heads": 3}
    content = {"text_config": {**plain}, "vision_config": {**plain}, "text_config_dict": {"hidden_size": 128}}
    content["vision_config_dict"] = {"hidden_act": "gelu_new", "num_attention_heads": 4}
    truth = transformers.CLIPConfig(**copy.deepcopy(content))
    found, sizes = huggingface.read_description(content)
    for tower, config in ((found.text, truth.text_config), (found.image, truth.vision_config)):
        assert tower.activation == huggingface.ACTIVATIONS[config.hidden_act]
        assert tower.head_width == config.hidden_size // config.num_attention_heads
    assert sizes["text_cfg.width"] == 128
    del content["text_config"], content["vision_config"]
    assert not huggingface.is_silent(content)


def test_pixels_that_are_not_normalized_and_what_is_wrong_with_them(tmp_path):
    hugging_face_model("gelu").save_pretrained(tmp_path)
    pixels = tmp_path / "preprocessor_config.json"
    pixels.write_text('{"do_normalize": false, "image_mean": [0.1, 0.1, 0.1]}')
    backbone = load_backbone(str(tmp_path))
    assert (*backbone.mean.flatten().tolist(), *backbone.std.flatten().tolist()) == (0, 0, 0, 1, 1, 1)
    for wrong in ('{"image_std": [0, 1, 1]}', '{"do_normalize": "no"}'):
        pixels.write_text(wrong)
        assert f"{pixels}: " in (message := refused(tmp_path))
        assert "choose another model" in message


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_an_index_names_files_beside_it(tmp_path, name):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"logit_scale": name}}))
    assert "must list the files of one model" in refused(index)


@pytest.fixture(scope="module")
def resnet():
    with torch.no_grad():
        torch.manual_seed(0)
        model = openai_clip().model.CLIP(32, 64, (1, 2, 1, 1), 8, None, 77, 49408, 64, 1, 2)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
        return model.eval()


def test_a_resnet_equals_openais_and_never_trains(tmp_path, resnet):
    save_file(resnet.state_dict(), tmp_path / "rn.safetensors")
    backbone = load_backbone(str(tmp_path / "rn.safetensors"))
    truth = resnet.encode_image(some_views(backbone)), resnet.encode_text(openai_clip().tokenize(TEXTS, truncate=True))
    assert_same(backbone.train(), *truth)
    backbone.freeze(0, stem=False)
    assert not backbone.trainable
    with pytest.raises(UserError, match="a ResNet is not trained here; choose a ViT"):
        load_for_training(str(tmp_path / "rn.safetensors"))
    assert load_for_training(str(tmp_path / "rn.safetensors"), trains=False).size == 64
    assert not any(weight.requires_grad for weight in backbone.parameters())
    assert embed_views(backbone, some_views(backbone)[None]).shape == (1, 3, 32)


def test_a_resnet_with_a_negative_variance_is_refused(tmp_path, resnet):
    state = {key: value.clone() for key, value in resnet.state_dict().items()}
    state["visual.bn1.running_var"][3] = -1
    save_file(state, tmp_path / "rn.safetensors")
    assert "running_var below 0" in refused(tmp_path / "rn.safetensors")


def test_a_resnet_without_positions_takes_pictures_of_any_size(tmp_path, resnet):
    save_file(resnet.state_dict(), tmp_path / "rn.safetensors")
    backbone = load_backbone(str(tmp_path / "rn.safetensors"))
    views = torch.randn(2, 3, 100, 70)
    with pytest.raises(RuntimeError, match="size of tensor"):
        embed_views(backbone, views)
    assert not backbone.any_size
    backbone.allow_any_size()
    assert backbone.any_size
    positions = resnet.visual.attnpool.positional_embedding
    kept = positions.clone()
    positions.data = torch.zeros(1 + 3 * 2, len(kept[0]))
    try:
        truth = unit(resnet.encode_image(views))
    finally:
        positions.data = kept
    torch.testing.assert_close(embed_views(backbone, views), truth, atol=CLOSE, rtol=0)


@torch.enable_grad()
def test_learned_words_are_read_like_texts_and_get_gradients(small_clip):
    backbone = CLIPBackbone(enlarge(small_clip), "test").requires_grad_(False)
    texts = ["a cat", "the dog"]
    numbers = torch.tensor([backbone.tokenize(text) for text in texts])
    words = backbone.word_vectors(numbers).requires_grad_()
    found = backbone.embed_words(words)
    torch.testing.assert_close(found, embed_texts(backbone, texts), atol=1e-6, rtol=0)
    found[:, 0].sum().backward()
    assert words.grad.abs().amax(-1).min() > 0


def test_a_checkpoint_of_a_resnet_holds_its_statistics(tmp_path, resnet):
    save_file(resnet.state_dict(), tmp_path / "rn.safetensors")
    backbone = load_backbone(str(tmp_path / "rn.safetensors"))
    config = Config(name="x", method="clip-iqa", model=ModelConfig(clip="mine"))
    facts = {"dataset": "custom", "protocol": "published", "fold": 1, "epoch": 0, "val": {"quality": {"srcc": 0.5}}}
    save_checkpoint(tmp_path / "best.safetensors", make_method(backbone, config), config, facts)
    found = load_checkpoint(tmp_path / "best.safetensors").model.backbone
    views = some_views(backbone)
    torch.testing.assert_close(embed_views(found, views), embed_views(backbone, views), atol=0, rtol=0)


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory):
    """A folder in open_clip's form, of a small model like SigLIP: a text is read at its last place, after padding."""
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    folder = tmp_path_factory.mktemp("siglip")
    vision = {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none", "image_size": 160}
    text = {"context_length": 24, "width": 64, "heads": 2, "layers": 2, "no_causal_mask": True, "pool_type": "last"}
    config = {"embed_dim": 64, "custom_text": True, "init_logit_bias": -10, "vision_cfg": vision, "text_cfg": text}
    sizes = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    (folder / "open_clip_config.json").write_text(json.dumps(sizes))
    with torch.no_grad():
        model = enlarge(open_clip.create_model(f"local-dir:{folder}"))
    save_open_clip(model, folder)
    return folder, model


def test_a_clip_of_another_kind_is_run_by_open_clip_itself(siglip_folder):
    import open_clip

    folder, model = siglip_folder
    backbone = load_backbone(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    truth = model.encode_image(some_views(backbone)), model.encode_text(tokens)
    assert_same(backbone.train(), *truth)
    assert (backbone.size, backbone.context, backbone.published) == (160, 24, False)
    assert backbone.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    torch.testing.assert_close(embed_texts(backbone, fixed=True), unit(truth[1]), atol=CLOSE, rtol=0)
    assert [backbone.is_too_long(f"{'word ' * count}") for count in (22, 23)] == [False, True]
    assert backbone.logit_scale.shape == ()
    copied = copy.deepcopy(backbone)  # as for every fold
    copied.freeze(0.5, stem=True)
    trains = {name: parameter.requires_grad for name, parameter in copied.clip.named_parameters()}
    assert not any(trains[name] for name in ("logit_scale", "logit_bias", "visual.trunk.patch_embed.proj.weight"))
    assert not trains["visual.trunk.blocks.0.attn.qkv.weight"]
    assert trains["visual.trunk.blocks.5.attn.qkv.weight"]
    assert not trains["text.transformer.resblocks.0.attn.in_proj_weight"]
    assert trains["text.transformer.resblocks.1.attn.in_proj_weight"]
    assert not trains["text.token_embedding.weight"]
    with pytest.raises(UserError, match="checkpoints cannot hold"):
        load_for_training(f"local-dir:{folder}")
    with pytest.raises(UserError, match="cannot learn prompts"):
        backbone.word_vectors(torch.zeros(1, 3, dtype=torch.int64))


class Tokenizer:
    """As Hugging Face's: numbers of words, cut to leave room for an end; it stands only one caller at a time."""

    context_length = 6
    busy = False

    def __init__(self, end, padding):
        self.end, self.padding = end, padding

    def __call__(self, texts, context_length):
        assert not self.busy
        self.busy = True
        time.sleep(0.002)
        numbers = [*(10 + len(word) for word in texts[0].split()[: context_length - 1]), self.end]
        self.busy = False
        return torch.tensor([numbers + [self.padding] * (context_length - len(numbers))])


class MeanTower(torch.nn.Module):
    """As open_clip's with Hugging Face's text towers: the mean over what is no padding, of many more places."""

    context_length = 514

    def __init__(self):
        super().__init__()
        self.visual, self.table = torch.nn.Identity(), torch.nn.Embedding(40, 8)
        self.visual.image_size = 16
        self.text = SimpleNamespace(context_length=0)

    def encode_text(self, rows):
        mask = (rows != 1).unsqueeze(-1)
        return (self.table(rows) * mask).sum(1) / mask.sum(1)


def mean_backbone(end=2, padding=1):
    pixels = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    return OpenCLIPBackbone(MeanTower(), Tokenizer(end, padding), "local-dir:x", "", pixels)


@torch.enable_grad()
def test_spare_rows_leave_gradients_finite_and_the_context_is_what_open_clip_cuts_at():
    backbone = mean_backbone()
    assert backbone.context == 6
    texts = ["a", "a fox and"]
    plain, fixed = (embed_texts(backbone, texts, fixed=fixed) for fixed in (False, True))
    torch.testing.assert_close(fixed, plain, atol=0, rtol=0)
    fixed[:, 0].sum().backward()
    assert backbone.clip.table.weight.grad.isfinite().all()
    packed = PackedTexts.of([backbone.tokenize(text) for text in texts], fixed=True)
    assert len(backbone.embed_texts(packed)) == len(packed.ends)


def test_a_text_that_is_cut_is_told_also_where_padding_is_the_end_token():
    for padding in (1, 2):
        backbone = mean_backbone(padding=padding)
        assert [backbone.is_too_long("fox " * words) for words in (0, 1, 4, 5, 6, 20)] == [False] * 4 + [True] * 2


def test_threads_take_turns_with_a_tokenizer():
    backbone = pickle.loads(pickle.dumps(copy.deepcopy(mean_backbone())))
    failures = []

    def tokenize(thread):
        try:
            for words in range(5):
                backbone.tokenize(f"thread{'s' * thread} " * words + f"number {thread}")
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=tokenize, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("pixels", [{"mean": [0.5, 0.5]}, {"mean": ["a", "b", "c"]}, {"std": 0}])
def test_pixels_that_no_model_has_are_one_line_for_a_clip_of_another_kind(siglip_folder, tmp_path, pixels):
    folder, _ = siglip_folder
    content = json.loads((folder / "open_clip_config.json").read_text())
    content["preprocess_cfg"] |= pixels
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    (tmp_path / "open_clip_model.safetensors").symlink_to(folder / "open_clip_model.safetensors")
    assert "open_clip_config.json" in refused(f"local-dir:{tmp_path}")


def test_a_plain_clip_of_open_clips_is_run_by_our_own_towers(tmp_path):
    model = open_clip_model(quick_gelu=False)
    save_open_clip(model, tmp_path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_json(quick_gelu=False)))
    backbone = load_backbone(f"local-dir:{tmp_path}")
    assert isinstance(backbone, CLIPBackbone)
    assert_same(backbone, *open_clip_truth(model, backbone))
    assert backbone.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("open_clip:ViT-B-32/guess", "open_clip:ViT-B-32/laion2b_s34b_b79k"),
        ("open_clip:ViT-B-32", "open_clip:ViT-B-32/laion2b_s34b_b79k"),
        ("open_clip:ViT-Z/laion2b", "no model ViT-Z"),
        ("local-dir:nowhere", "not to be had from open_clip"),
    ],
)
def test_a_name_that_open_clip_does_not_know_is_one_line(name, part):
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    assert part in refused(name)
    assert "leave model.activation=gelu out" in refused(name, activation="gelu")


def test_the_activation_is_that_of_the_weights_and_not_of_the_model_that_open_clip_lists_them_under():
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    assert options_for(open_clip, "ViT-B-32", "openai", {}, "x") == {"force_quick_gelu": True}
    assert options_for(open_clip, "ViT-B-32", "laion2b_s34b_b79k", {}, "x") == {}
    with pytest.raises(UserError, match="without -quickgelu"):
        options_for(open_clip, "ViT-B-32", "laion2b_s34b_b79k", {"quick_gelu": True}, "x")


def test_a_folder_that_wants_its_own_code_to_be_run_is_refused(tmp_path):
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    wanted = open_clip_json(quick_gelu=False)
    wanted["model_cfg"]["text_cfg"] = {**TEXT, "tokenizer_kwargs": {"trust_remote_code": True}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(wanted))
    assert "never done" in refused(f"local-dir:{tmp_path}")


def test_without_open_clip_the_remedy_is_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert "pip install 'open_clip_torch" in refused("hf-hub:timm/ViT-B-16-SigLIP2")


def test_a_checkpoint_keeps_what_the_tensors_do_not_show(tmp_path, small_clip):
    save_file(enlarge(small_clip).state_dict(), tmp_path / "clip.safetensors")
    backbone = load_backbone(str(tmp_path / "clip.safetensors"), activation="gelu")
    config = Config(name="x", model=ModelConfig(clip="mine", activation="gelu"))
    facts = {"dataset": "custom", "protocol": "published", "fold": 1, "epoch": 1, "val": {"quality": {"srcc": 0.5}}}
    save_checkpoint(tmp_path / "best.safetensors", make_method(backbone, config), config, facts)
    found = load_checkpoint(tmp_path / "best.safetensors").model.backbone
    assert found.architecture == backbone.architecture
    torch.testing.assert_close(embed_texts(found), embed_texts(backbone), atol=0, rtol=0)
    plain = load_backbone(str(tmp_path / "clip.safetensors"))
    assert plain.sha256 != backbone.sha256
    engines = [
        make_engine(make_method(one, config), config, Machine.choose("cpu", "fp32")) for one in (plain, backbone)
    ]
    assert len({describe_key(engine, torch.float32) for engine in engines}) == 2


def test_an_image_is_scored_and_gradients_flow_through_a_clip_of_another_kind(siglip_folder):
    backbone = load_backbone(f"local-dir:{siglip_folder[0]}")
    scorer = pickle.loads(pickle.dumps(Scorer.of_backbone(backbone, device="cpu")))
    picture = Image.linear_gradient("L").resize((600, 520)).convert("RGB")
    assert scorer.score(picture, "a grey wall, brighter below").status.startswith("ok")
    method = make_method(backbone.requires_grad_(True), Config()).train()
    with torch.enable_grad():
        scores = score_views(method, some_views(backbone)[None, :2], [Prompt("a cat, a dog", "keywords")])
        sum(scores.values()).sum().backward()
    moved = {name for name, parameter in backbone.clip.named_parameters() if parameter.grad is not None}
    assert {"visual.trunk.blocks.5.mlp.fc1.weight", "text.transformer.resblocks.1.mlp.c_fc.weight"} <= moved
    assert "visual.trunk.blocks.0.mlp.fc1.weight" not in moved


def test_scoring_can_say_the_activation_of_a_bare_clip_and_of_nothing_else(tmp_path, small_clip):
    save_file(small_clip.state_dict(), tmp_path / "clip.safetensors")
    settings = ("model.activation=gelu", "device=cpu")
    scorer = open_scorer(ScorerWords(settings=settings, clip=str(tmp_path / "clip.safetensors")))
    assert scorer.model.backbone.architecture.text.activation == "gelu"
    for options in ({}, {"clip": "demo", "settings": ("model.clip=x",)}, {"clip": "demo"}):
        with pytest.raises(UserError, match=r"model\.(activation|clip)"):
            open_scorer(ScorerWords(**{"settings": settings, **options}))


def test_what_lies_below_the_blocks_is_told_by_its_name():
    names = ["patch_embed.proj.weight", "pos_embed", "blocks.3.conv1.weight", "visual.conv1.weight", "norm.weight"]
    assert [is_stem(name) for name in names] == [True, True, False, False, False]
