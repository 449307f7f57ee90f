"""A CLIP's tensors out of a file, whatever project wrote it; no code in the file runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mgs.backbones.weights import as_tensors, is_torchscript, read_weights
from mgs.errors import UserError
from mgs.files import file_sha256

SCRIPT_CONSTANTS = ("input_resolution", "context_length", "vocab_size")  # which OpenAI's archives hold as tensors
WRAPPERS = ("model_state_dict", "params", "state_dict")  # of IPCE and LIQE, of IQA-PyTorch, of open_clip's training
CONVOLUTION = "visual.conv1.weight"  # of every CLIP; in ResNets there are more that end so
MARKS = (  # names that every CLIP of a kind has; what stands before them is a prefix
    "visual.layer1.0.conv1.weight",
    CONVOLUTION,
    "vision_model.embeddings.patch_embedding.weight",
)
INDEX = ".index.json"  # how the list of a model's several files ends
MOST_JSON, MOST_SHARDS = 1 << 26, 64  # bytes; files
StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds."""

    tensors: StateDict  # without what other projects put before the names, in the file's order
    script: bool = False  # a TorchScript archive, as OpenAI ships its CLIPs
    in_order: bool = False  # the order of the tensors may be that of modules, not of a list


def read_file(path: Path, source: str) -> Weights:
    """A CLIP file's tensors: TorchScript, `.pt` or `.bin` of tensors, `.safetensors`, or the index of several of these.

    `source` is what errors call it. Raises `UserError`.
    """
    if path.name.endswith(INDEX):
        return Weights(without_prefix(read_shards(path)))
    content = read_content(path, source)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = without_prefix(check_tensors(content, source))
    script = path.suffix != ".safetensors" and is_torchscript(path)
    return Weights(tensors, script, path.suffix != ".safetensors" and not script)


def read_state_dict(path: Path, source: str) -> StateDict:
    """A CLIP file's tensors by name. `source` is what errors call the file. Raises `UserError`."""
    return read_file(path, source).tensors


def read_content(path: Path, source: str) -> Any:
    """What a weights file holds, not checked yet."""
    try:
        return read_weights(path)
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror or error}); check the file") from None
    except Exception:  # readers of zip, pickle and safetensors each raise errors of their own
        raise UserError(
            f"{source}: not readable as CLIP weights: neither a TorchScript archive, nor a .pt with nothing "
            "but a dict of tensors, nor a .safetensors file; download it again"
        ) from None


def check_tensors(content: Any, source: str) -> StateDict:
    """The content as tensors that are what they claim to be."""
    try:
        return as_tensors(content)
    except ValueError as error:
        raise UserError(f"{source}: {error}; save the model's state_dict() alone") from None


def without_prefix(tensors: StateDict) -> StateDict:
    """The tensors of the one CLIP among them, by the names that they have in it."""
    for mark in MARKS:
        found = [name.removesuffix(mark) for name in tensors if name.endswith(mark)]
        if len(found) == 1:  # other projects save their CLIP as a part of a model
            prefix = found[0]
            own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            return {name: value for name, value in own.items() if name not in SCRIPT_CONSTANTS}
    return {name: value for name, value in tensors.items() if name not in SCRIPT_CONSTANTS}


def read_shards(index: Path) -> StateDict:
    """The tensors of all files that an index lists, which lie beside it."""
    tensors: StateDict = {}
    for file in shards(index):
        part = check_tensors(read_content(file, str(file)), str(file))
        if repeated := tensors.keys() & part.keys():
            raise UserError(f"{index}: {min(repeated)[:100]} is in two of its files; download the folder again")
        tensors |= part
    return tensors


def shards(index: Path) -> list[Path]:
    """The files that an index lists."""
    listed = read_json(index).get("weight_map")
    names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
    if not names or len(names) > MOST_SHARDS or any(name in ("", "..") or Path(name).name != name for name in names):
        raise UserError(f"{index}: must list the files of one model, all beside it; download the folder again")
    return [index.with_name(name) for name in names]


def weights_sha256(path: Path) -> str:
    """The SHA-256 of a file of weights; of an index, of its files' SHA-256s."""
    if not path.name.endswith(INDEX):
        return file_sha256(path)
    return hashlib.sha256(" ".join(map(file_sha256, shards(path))).encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's mapping. Raises `UserError` for anything else."""
    try:
        if path.stat().st_size > MOST_JSON:
            raise ValueError("larger than any such file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({' '.join(str(error).split())[:200]}); check it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no mapping; download it again")
    return content
