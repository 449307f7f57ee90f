"""open_clip's description of a model, as `open_clip_config.json` holds it: whether our towers compute it, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgs.backbones.architecture import MEAN, STD, Activation, Architecture, Tower, section, whole_number
from mgs.backbones.skeleton import Clip, VisionTransformer

CONFIG = "open_clip_config.json"
SIZES = ("width", "layers", "patch_size", "image_size", "context_length", "vocab_size")
# Without a part in what our towers compute: read elsewhere, of training alone, or seen in the tensors' shapes.
IGNORED = {"head_width", "heads", "mlp_ratio", "patch_dropout", "output_tokens", "pad_id", "eos_id"}
IGNORED |= {"attn_pooler_queries", "attn_pooler_heads", "timm_pool", "timm_proj", "hf_proj_type", "hf_pooler_type"}
PLAIN = {  # anything else that a tower's description has must be off
    "pos_embed_type": "learnable",
    "proj_type": "linear",
    "block_type": "default",
}
POOLING = {"vision_cfg": "tok", "text_cfg": "argmax"}


class NotPlain(ValueError):
    """A model that our towers do not compute."""


def read_description(content: Mapping[str, Any]) -> tuple[Architecture, dict[str, Any]]:
    """The architecture, and the sizes by the names of `sizes_of`. Raises `NotPlain`, else `ValueError`."""
    model, pixels = section(content, "model_cfg"), section(content, "preprocess_cfg")
    if not model:
        raise ValueError("model_cfg: is missing")
    vision, text = section(model, "vision_cfg"), section(model, "text_cfg")
    refuse_other_towers({"vision_cfg": vision, "text_cfg": text})
    if model.get("multimodal_cfg"):
        raise NotPlain("multimodal_cfg")
    quick = model.get("quick_gelu", False)
    if not isinstance(quick, bool):
        raise ValueError("model_cfg.quick_gelu: must be true or false")
    activation: Activation = "quick_gelu" if quick else "gelu"
    width, heads = whole_number("text_cfg.width", text.get("width", 512)), whole_number("heads", text.get("heads", 8))
    architecture = Architecture(
        Tower(activation, whole_number("vision_cfg.head_width", vision.get("head_width", 64))),
        Tower(activation, width // heads),
        pixels.get("mean") or MEAN,
        pixels.get("std") or STD,
    )
    sizes = {f"vision_cfg.{key}": vision[key] for key in SIZES if key in vision}
    sizes |= {f"text_cfg.{key}": text[key] for key in SIZES if key in text}
    return architecture, sizes | {"embed_dim": model.get("embed_dim")}


def refuse_other_towers(towers: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `NotPlain`, naming the key, where a tower has a part that ours do not have."""
    for name, tower in towers.items():
        neutral = PLAIN | {"pool_type": POOLING[name]}
        for key, value in tower.items():
            if key not in SIZES and key not in IGNORED and value and value != neutral.get(key):
                raise NotPlain(f"{name}.{key}")


def refuse_other_sizes(sizes: Mapping[str, Any], clip: Clip) -> None:
    """Raise `ValueError` where a description is not of these tensors."""
    found = sizes_of(clip)
    for key, said in sizes.items():
        value = list(said) if isinstance(said, list) else said
        if key == "vision_cfg.image_size" and isinstance(value, list):
            value = value[0] if len(set(map(str, value))) == 1 else value
        if key in found and value is not None and value != found[key]:
            raise ValueError(f"{key}: is {str(said)[:50]}, but the tensors have {found[key]}")


def sizes_of(clip: Clip) -> dict[str, Any]:
    """What the tensors show, by open_clip's names for it."""
    visual, width = clip.visual, clip.text_projection.shape
    sizes = {
        "embed_dim": width[1],
        "vision_cfg.image_size": visual.input_resolution,
        "text_cfg.width": width[0],
        "text_cfg.layers": len(clip.transformer.resblocks),
        "text_cfg.context_length": clip.context_length,
        "text_cfg.vocab_size": clip.token_embedding.num_embeddings,
    }
    if isinstance(visual, VisionTransformer):
        sizes |= {
            "vision_cfg.width": len(visual.class_embedding),
            "vision_cfg.patch_size": visual.conv1.kernel_size[0],
            "vision_cfg.layers": len(visual.transformer.resblocks),
        }
    return sizes
