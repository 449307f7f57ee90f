"""Keys of configs of older versions, read under their names of today."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from mgs.errors import UserError

MOVED = {  # keys of older versions -> of today
    "model.templates": "options.templates",
    "model.correspondence": "options.correspondence",
    "model.temperature": "options.temperature",
}


def with_new_names(source: str, layer: DictConfig) -> DictConfig:
    """A layer, which errors call `source`, whose keys of older versions have their names of today."""
    model = layer.get("model")
    sections = [layer.get(section) for section in ("options", "views")]
    if not OmegaConf.is_dict(model) or not all(section is None or OmegaConf.is_dict(section) for section in sections):
        return layer
    for old, new in MOVED.items():
        if (key := old.partition(".")[2]) in model:
            value = model.pop(key)
            if OmegaConf.select(layer, new) is None:
                OmegaConf.update(layer, new, value, force_add=True)
    if model.get("patches") is False:
        OmegaConf.update(layer, "views.layout", "none", force_add=True)
    elif model.get("patches") is True and OmegaConf.select(layer, "views.layout") is None:
        raise UserError(f"{source}: model.patches=true: say views.layout=grid")
    if isinstance(model.get("patches"), bool):
        model.pop("patches")
    return layer
