"""Hugging Face's `CLIPModel`: its names for the weights, and its config.json; read without transformers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mgs.backbones.architecture import MEAN, STD, Activation, Architecture, Tower, section, whole_number

CONFIG, PIXELS = "config.json", "preprocessor_config.json"
MARK = "vision_model.embeddings.patch_embedding.weight"
ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
NAMES = {  # OpenAI's name -> Hugging Face's
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    **{f"ln_final.{kind}": f"text_model.final_layer_norm.{kind}" for kind in ("weight", "bias")},
    **{f"visual.ln_pre.{kind}": f"vision_model.pre_layrnorm.{kind}" for kind in ("weight", "bias")},  # they spell it so
    **{f"visual.ln_post.{kind}": f"vision_model.post_layernorm.{kind}" for kind in ("weight", "bias")},
}
TURNED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
BLOCK |= {"attn.out_proj": "self_attn.out_proj"}
TOWERS = {"visual.transformer": "vision_model.encoder", "transformer": "text_model.encoder"}
UNUSED = "position_ids"  # older versions saved these numbers among the weights


def with_openai_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by OpenAI's names. `KeyError` where one is missing, `ValueError` where one is too many."""
    left = {name: value for name, value in tensors.items() if not name.endswith(UNUSED)}
    found = {ours: left.pop(theirs) for ours, theirs in NAMES.items()}
    found |= {ours: left.pop(theirs).T for ours, theirs in TURNED.items()}
    for ours, theirs in TOWERS.items():
        block = 0
        while f"{theirs}.layers.{block}.layer_norm1.weight" in left:
            to, of = f"{ours}.resblocks.{block}", f"{theirs}.layers.{block}"
            for kind in ("weight", "bias"):
                parts = [left.pop(f"{of}.self_attn.{part}_proj.{kind}") for part in "qkv"]
                found[f"{to}.attn.in_proj_{kind}"] = torch.cat(parts)
                found |= {f"{to}.{name}.{kind}": left.pop(f"{of}.{other}.{kind}") for name, other in BLOCK.items()}
            block += 1
    if left:
        raise ValueError(f"{min(left)[:100]} has no place in a CLIP")
    return found


def is_silent(content: Mapping[str, Any]) -> bool:
    """Whether a config.json describes no towers, and so says no more than none."""
    towers = ("vision_config", "text_config")
    described = all(any(content.get(name + form) is not None for form in ("", "_dict")) for name in towers)
    return content.get("model_type", "clip") == "clip" and not described


def read_description(content: Mapping[str, Any]) -> tuple[Architecture, dict[str, Any]]:
    """The architecture, with OpenAI's mean and std, and the sizes by open_clip's names for them, of a config.json.

    `ValueError` for what is no CLIP.
    """
    kind = content.get("model_type", "clip")
    if kind != "clip":
        raise ValueError(f"model_type: is {str(kind)[:50]}, not clip; only models of that type can be read")
    vision, text = tower_section(content, "vision_config"), tower_section(content, "text_config")
    sizes = {
        "embed_dim": content.get("projection_dim"),
        "vision_cfg.image_size": vision.get("image_size"),
        "vision_cfg.patch_size": vision.get("patch_size"),
        "vision_cfg.width": vision.get("hidden_size"),
        "vision_cfg.layers": vision.get("num_hidden_layers"),
        "text_cfg.width": text.get("hidden_size"),
        "text_cfg.layers": text.get("num_hidden_layers"),
    }
    towers = read_tower("vision_config", vision, 768, 12), read_tower("text_config", text, 512, 8)
    return Architecture(*towers), sizes


def with_pixels(architecture: Architecture, content: Mapping[str, Any]) -> Architecture:
    """The architecture with the mean and std of a preprocessor_config.json; `ValueError` for what cannot be."""
    pixels = section(content, "image_processor") or content  # as newer versions save it
    normalizes = pixels.get("do_normalize", True)
    if not isinstance(normalizes, bool):
        raise ValueError("do_normalize: must be true or false")
    mean, std = pixels.get("image_mean") or MEAN, pixels.get("image_std") or STD
    if not normalizes:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return dataclasses.replace(architecture, mean=mean, std=std)


def tower_section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What describes a tower: old files may hold it twice, and transformers takes the whole of the older form then."""
    older = f"{name}_dict"
    return section(content, name if content.get(older) is None else older)


def read_tower(name: str, content: Mapping[str, Any], width: int, heads: int) -> Tower:
    """One tower's part of config.json; `width` and `heads` are what Hugging Face takes where it says nothing."""
    activation = content.get("hidden_act", "quick_gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"{name}.hidden_act: must be one of {', '.join(ACTIVATIONS)}")
    width = whole_number(f"{name}.hidden_size", content.get("hidden_size", width))
    heads = whole_number(f"{name}.num_attention_heads", content.get("num_attention_heads", heads))
    if width % heads:
        raise ValueError(f"{name}: a width of {width} is no multiple of {heads} heads")
    epsilon = content.get("layer_norm_eps", 1e-5)
    return Tower(ACTIVATIONS[activation], width // heads, epsilon)
