"""Weights and checkpoints from strangers: what they claim is checked, and nothing in them is run."""

import copy
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import random_clip
from safetensors.torch import load_file, save_file
from test_openai import save_jit

from mgs.backbones.table import load_backbone
from mgs.backbones.weights import as_tensors, read_torchscript, read_weights
from mgs.config import Config, ModelConfig, ViewsConfig
from mgs.config_files import config_of
from mgs.errors import UserError
from mgs.methods.mgs import MGSOptions
from mgs.methods.table import make_method
from mgs.training.checkpoint import load_checkpoint, read_metadata, save_checkpoint

KEPT = {  # what a checkpoint's config has set
    "name": "x",
    "model": ModelConfig(clip="mine"),
    "options": MGSOptions(),
    "views": ViewsConfig("grid", antialias=False),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory, own_set):
    """A sound checkpoint's tensors and metadata."""
    path = tmp_path_factory.mktemp("sound") / "best.safetensors"
    backbone = load_backbone(str(own_set / "clip.safetensors"))
    config = Config(**KEPT)
    facts = {"dataset": "custom", "protocol": "published", "fold": 1, "epoch": 1, "val": {"quality": {"srcc": 0.5}}}
    save_checkpoint(path, make_method(backbone, config), config, facts)
    return load_file(path), read_metadata(path)


def write(path, tensors, metadata):
    save_file(tensors, path, metadata={"mgs": metadata if isinstance(metadata, str) else json.dumps(metadata)})
    return path


def refused(path):
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


ALPHA = torch.zeros(())


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"alpha": torch.tensor(float("nan"))}, "alpha: holds numbers that are not finite"),
        (
            {"backbone.visual.proj": torch.full((64, 32), float("inf"))},
            "backbone.visual.proj: holds numbers that are not",
        ),
        ({"alpha": torch.zeros((), dtype=torch.float16)}, "alpha: torch.float16 where checkpoints hold torch.float32"),
        ({"alpha": torch.zeros((), dtype=torch.int64)}, "alpha: torch.int64"),
        ({"alpha": torch.zeros(3)}, "alpha"),
        ({"backbone.visual.proj": torch.zeros(64, 16)}, "visual.proj"),
        ({"backbone.ln_final.weight": torch.zeros(3)}, "ln_final.weight"),
        ({"extra": ALPHA}, "extra"),
        ({"alpha": None}, "alpha"),
        ({"backbone.ln_final.weight": None}, "ln_final.weight"),
        ({"backbone.positional_embedding": torch.zeros(5000, 64)}, "5000 tokens of text"),
        ({"backbone.visual.positional_embedding": torch.zeros(1 + 200**2, 64)}, "pictures of 3200 pixels"),
    ],
)
def test_a_wrong_tensor_is_named(tmp_path, sound, changes, part):
    tensors = {name: value for name, value in {**sound[0], **changes}.items() if value is not None}
    assert part in refused(write(tmp_path / "c.safetensors", tensors, sound[1]))


def changed(metadata, keys, value):
    metadata = copy.deepcopy(metadata)
    inner = metadata
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return metadata


@pytest.mark.parametrize(
    ("keys", "value", "part"),
    [
        (["config", "name"], "../../elsewhere", "name: must be"),
        (["config", "name"], "a\x1b[31mb", "name: must be"),
        (["config"], {"name": "x", "model": {"temperature": -1}}, "options.temperature: must be"),  # an older name
        (["config", "options", "temperature"], -1, "options.temperature: must be"),
        (["config", "model", "frozen_blocks"], "all", "frozen_blocks"),
        (["config", "data", "root"], "${oc.env:HOME}", "data.root: refers to something outside"),
        (["config", "nothing"], 1, "nothing"),
        (["config", "options", "nothing"], 1, "nothing"),
        (["config", "method"], "guess", "no such method"),
        (["config", "method"], ["mgs"], "no such method"),
        (["config"], [], "config: must be of type dict"),
        (["backbone"], "demo", "backbone: must be of type dict"),
        (["backbone", "embedded"], 0, "embedded: must be of type bool"),
        (["backbone", "std"], [0.2, 0.0, 0.2], "std: must be three numbers"),
        (["backbone", "mean"], [0.2, "a"], "mean: must be three numbers"),
        (["sentences"], {"a": 1}, "sentences: must be of type list"),
        (["fold"], "1", "fold: must be of type int"),
        (["fold"], True, "fold: must be of type int"),
        (["val"], {"beauty": {}}, "beauty is no dimension"),
        (["format"], "mgs-9", "in format mgs-9, this version reads mgs-2"),
        (["format"], ["mgs-2"], "this version reads mgs-2"),
    ],
)
def test_metadata_is_validated_like_a_config(tmp_path, sound, keys, value, part):
    path = write(tmp_path / "c.safetensors", sound[0], changed(sound[1], keys, value))
    with pytest.raises(UserError) as caught:
        read_metadata(path)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "3", '"mgs-2"', "{}", "[" * 100_000, '{"format": "mgs-1"}', '{"format": "mgs-2"}']
)
def test_metadata_that_is_none_of_ours_is_one_line(tmp_path, sound, text):
    assert "not an MGS checkpoint" in refused(write(tmp_path / "c.safetensors", sound[0], text))


def test_a_checkpoint_cannot_name_a_file_of_ours_as_its_backbone(tmp_path, sound, own_set):
    weights = own_set / "clip.safetensors"
    metadata = changed(sound[1], ["backbone"], {"name": str(weights), "sha256": "0", "embedded": False})
    assert "none that can be fetched by name" in refused(write(tmp_path / "c.safetensors", sound[0], metadata))


@pytest.mark.parametrize("length", [2**62, 10**9, 200])
def test_a_header_that_lies_about_its_length_is_refused(tmp_path, sound, length):
    path = write(tmp_path / "c.safetensors", sound[0], sound[1])
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    refused(path)


def test_every_value_of_a_config_survives_the_metadata_check(sound):
    assert config_of(sound[1]["config"]) == Config(**KEPT)


@pytest.mark.parametrize("content", ["0", "name: x", "a: b: c", 0, None, [], ["name=x"]])
def test_what_is_no_mapping_is_no_config(content):
    with pytest.raises(ValueError, match="mapping"):
        config_of(content)


def test_an_archive_gives_the_tensors_that_torch_itself_reads(tmp_path):
    save_jit(random_clip(), path := tmp_path / "jit.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.jit.load(path).state_dict()
    found = read_torchscript(path)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


class Attack(torch.nn.Module):
    """Its code writes a file when torch.jit.load rebuilds it."""

    def __init__(self, target):
        super().__init__()
        self.target = target

    @torch.jit.export
    def __getstate__(self):
        return (self.target, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.target = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), state[0])

    def forward(self):
        return torch.zeros(1)


def test_code_in_an_archive_is_never_run(tmp_path):
    target = tmp_path / "written"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Attack(str(target))), tmp_path / "evil.pt")
        torch.jit.load(tmp_path / "evil.pt")
    assert target.exists()  # the attack works where the code is run
    target.unlink()
    with pytest.raises(UserError, match="evil"):
        load_backbone(str(tmp_path / "evil.pt"))
    assert not target.exists()


def repack(path, out, **changes):
    """The archive with members replaced, or left out where the replacement is None."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = changes.get(name.split("/", 1)[1], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return out


def global_call(module, name):
    """A pickle that would call a function of that name, without arguments."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b")R."


@pytest.mark.parametrize(
    "data",
    [
        global_call("os", "getcwd"),
        global_call("builtins", "print"),
        global_call("torch.jit", "load"),
        pickle.dumps(os.system),
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo that the unpickler in C would reserve 16 GB for
        b"",
        b"garbage",
    ],
)
def test_an_archives_pickle_can_name_nothing_but_tensors(tmp_path, data):
    save_jit(random_clip(layers=1, text_layers=1), tmp_path / "jit.pt")
    path = repack(tmp_path / "jit.pt", tmp_path / "bad.pt", **{"data.pkl": data})
    with pytest.raises(UserError, match=r"model\.clip=.*bad\.pt"):
        load_backbone(str(path))


def test_a_missing_or_compressed_storage_is_refused(tmp_path):
    save_jit(random_clip(layers=1, text_layers=1), tmp_path / "jit.pt")
    with pytest.raises(UserError, match="not readable"):
        load_backbone(str(repack(tmp_path / "jit.pt", tmp_path / "bad.pt", **{"data/0": None})))
    with (
        zipfile.ZipFile(tmp_path / "jit.pt") as old,
        zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UserError, match="not readable"):
        load_backbone(str(tmp_path / "z.pt"))


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (torch.zeros(()).expand(10**6, 10**6), "claims more numbers than the file holds"),
        (torch.tensor([1.0, float("nan")]), "not finite"),
        (torch.zeros(2, 2).to_sparse(), "not an ordinary tensor"),
        (torch.zeros(2, dtype=torch.complex64), "not an ordinary tensor"),
        ("text", "a str, not a tensor"),
    ],
)
def test_a_tensor_that_is_not_what_it_claims_is_named_from_any_file(tmp_path, value, part):
    torch.save({"weight": value}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=f"weight: {part}|weight: .*{part}"):
        as_tensors(read_weights(tmp_path / "w.pt"))


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"visual.conv1.weight": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "bare.pt"):
        with pytest.raises(UserError, match="not readable"):
            load_backbone(str(tmp_path / name))
    buffer = io.BytesIO()
    pickle.dump(Evil(), buffer)
    pickle.loads(buffer.getvalue())
    assert (tmp_path / "ran").exists()  # the attack works where it is unpickled


def test_a_state_for_a_tensor_of_torchs_own_reserves_nothing(tmp_path):
    """`Tensor.__setstate__` would resize an empty storage to whatever the file says."""
    save_jit(random_clip(layers=1, text_layers=1), tmp_path / "jit.pt")
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x00tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x00\x85K\x01\x85\x89}tR"
    state = b"(" + storage + b"K\x00J\x00\x00\x00\x40\x85K\x01\x85t"
    data = b"\x80\x02c__torch__\nM\n)\x81}X\x01\x00\x00\x00w" + tensor + state + b"bsb."
    path = repack(tmp_path / "jit.pt", tmp_path / "bad.pt", **{"data.pkl": data, "data/0": b""})
    with pytest.raises(pickle.UnpicklingError, match="a state for what is no module"):
        read_torchscript(path)


def test_compressed_weights_are_refused_before_they_unpack(tmp_path):
    torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "plain.pt")
    packed = zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pt") as old, packed as z:
        for name in old.namelist():
            z.writestr(name, old.read(name))
    assert (tmp_path / "z.pt").stat().st_size < 100_000
    with pytest.raises(ValueError, match="compressed parts"):
        read_weights(tmp_path / "z.pt")
