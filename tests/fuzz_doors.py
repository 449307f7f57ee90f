"""Coverage-guided fuzzing of the doors by which strangers' input enters: python tests/fuzz_doors.py DOOR --seconds 60

Each door may end in success or in its own error, told in one short line; anything else is a finding, as are ten
seconds or four gigabytes for one input. Findings of the same kind are one, kept as the shortest input that shows it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import traceback
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
LONGEST = 2000  # characters of an error's one line
SLOWEST, MOST_MEMORY = 10, 4096  # seconds and MB for one input
MOST_DATA = 4 << 20  # bytes of zeros behind a checkpoint's header
TOKEN = re.compile(rb'-?\d+(?:\.\d+)?|"[^"\n]*"|\w+|[^\w\s]')
SPECIAL = [
    *(b"0", b"-1", b"1e999", b"nan", b"true", b"null", b'""', b"[]", b"{}", b"9" * 30, b"4294967296", b"100000000"),
    *(b'"a\nb"', rb'"a\nb"', b'"' + b"x" * 3000 + b'"', b"a\nb", b"x" * 3000, b"${x}", b"../", b"\x00", b"\xff"),
    *(b"&a [1]", b"*a", b"F8_E4M3", b"BF16"),
]  # fmt: skip

Call = Callable[[bytes], object]


@dataclass(frozen=True)
class Door:
    """How to open it in an empty folder: the calls that each input is given to, and inputs to begin with."""

    open: Callable[[Path], tuple[list[Call], list[bytes]]]
    instrumented: tuple[str, ...] = ("mgs",)  # packages whose branches guide the search; torch would drown them
    longest: int = 8192  # bytes of an input
    text: bool = True  # whether exchanging words and numbers makes sense


def open_csv(folder: Path) -> tuple[list[Call], list[bytes]]:
    """Tables for training and for scoring; the folder has pictures, so that rows can be good."""
    from PIL import Image

    from mgs.config import DataConfig
    from mgs.datasets.read_table import read_table, to_samples
    from mgs.datasets.tables import iterate_csv, without_blank
    from mgs.sources.tables import TableOptions, TableReader

    for name in ("a.png", "deep/b.png", "glide_1.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    table = folder / "mos.csv"

    def in_memory(data: bytes) -> object:
        return to_samples(
            without_blank(list(iterate_csv(io.BytesIO(data), table))), table, DataConfig(mos_range=[1.0, 9.0])
        )

    def published(data: bytes) -> object:
        table.write_bytes(data)
        return read_table(table, DataConfig(dataset="AGIQA-3K", root=str(folder), on_bad_image="skip"))

    def to_score(data: bytes) -> object:
        table.write_bytes(data)
        return list(TableReader(str(table), TableOptions()))

    seeds = [
        b"image,prompt,quality\na.png,a cat,3\ndeep/b.png,None,4.5\n",
        b'\xef\xbb\xbfimage,prompt,quality,correspondence,prompt_style\r\na.png,"a ""big"", cat",3,2,hybrid\r\n',
        b'name,prompt,mos_quality,mos_align\nglide_1.png,"a\ncat",0.5,1\n',
        b"image,prompt\na.png,a cat\nmissing.png,a dog\n../c.png,x\n",
        b"image;prompt;quality\na.png;x;3\n",
        b"image,prompt,overall\n" + b"x" * 2100 + b".png," + b"y" * 2100 + b",10\n",
        b"image,prompt,quality,prompt_style\na.png,x,3," + b"x" * 2100 + b"\n",
    ]
    return [in_memory, published, to_score], seeds


def open_config(folder: Path) -> tuple[list[Call], list[bytes]]:
    """A YAML file with a command line's words behind it, each after a zero byte; and what a checkpoint holds."""
    from mgs.config import Config, flat_config
    from mgs.config_files import config_of, load_config
    from mgs.errors import UserError

    path = folder / "own.yaml"
    (folder / "base.yaml").write_text("train: {epochs: 3}\n")

    def from_file(data: bytes) -> object:
        content, *words = data.split(b"\0")
        path.write_bytes(content)
        return load_config(path, [os.fsdecode(word) for word in words])

    def from_metadata(data: bytes) -> object:
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            return None
        try:
            return config_of(content)
        except ValueError as error:  # which those who call it make a line of
            raise UserError(" ".join(str(error).split())) from error

    values = flat_config(Config(name="x")).items()
    seeds = [
        b"data: {table: mos.csv, mos_range: [1, 9]}\nmodel: {clip: demo}\ntrain: {epochs: 3, lr: 1e-3}\nfolds: [1]\n",
        b"base: base.yaml\nname: x\n\0train.lr=1e-3\0folds=[1,2]\0model.temperature=learned",
        b"method: mgs\noptions: {templates: separate}\n\0name=x\0options.temperature=2\0model.patches=false",
        b"name: x\n\0base=" + bytes(folder / "base.yaml"),
        b"name: ${oc.env:HOME}\ndata:\n  root: ${name}\n  table: &a x\n  splits: *a\n\0name=${data.root}",
        b"name: x\n\0" + b"\0".join(f"{key}={json.dumps(value)}".encode() for key, value in values),
        b'{"name": "x", "data": {"dataset": "demo"}, "options": {"temperature": "clip"}, "folds": [1], "seed": 3}',
        b"name: !!python/object/apply:os.getcwd []\n<<: {a: 1}\n? [1, 2]\n: 2024-01-01\n1: 0x10\nnull: !!set {a}\n",
    ]
    return [from_file, from_metadata], seeds


def open_checkpoint(folder: Path) -> tuple[list[Call], list[bytes]]:
    """Weights files; an input's first letter says which part of which kind of file the rest of it is.

    h: a checkpoint's metadata and, after a zero byte, its header, with zeros for tensors. r: a whole .safetensors.
    s: the pickle of a TorchScript archive. t: after a letter that chooses one, of a saved dict. z: a whole .pt.
    """
    import torch
    from safetensors.torch import save

    from mgs.backbones.clip import CLIPBackbone
    from mgs.backbones.openai import openai_clip
    from mgs.backbones.table import load_backbone
    from mgs.config import Config
    from mgs.methods.table import make_method
    from mgs.training.checkpoint import copy_for_checkpoint, load_checkpoint
    from mgs.training.import_original import read_original

    clip = openai_clip().model.CLIP(16, 8, 1, 64, 4, 8, 8, 64, 1, 1).eval()
    model = make_method(CLIPBackbone(clip, "mine", "0"), Config(name="x"))
    facts = {"dataset": "custom", "protocol": "published", "fold": 1, "epoch": 1, "val": {"quality": {"srcc": 0.5}}}
    tensors, metadata = copy_for_checkpoint(model, Config(name="x"), facts)
    whole = save(tensors)
    header = whole[8 : 8 + int.from_bytes(whole[:8], "little")].strip()
    scripted, saved = (
        script_archive(torch),
        [saved_archive({"model_state_dict": {"w": v}}, torch) for v in values(torch)],
    )

    def make(data: bytes) -> Path:
        kind, rest = chr(data[0]) if data else "", data[1:]
        path = folder / ("w.safetensors" if kind in "hr" else "w.pt")
        if kind == "h":
            about, _, parts = rest.partition(b"\0")
            text = json.dumps({"mgs": about.decode("utf-8", "replace")}).encode()
            parts = b'{"__metadata__":' + text + b"," + parts.removeprefix(b"{")
            ends = [int(end) for end in re.findall(rb'"data_offsets":\[\d+,(\d{1,9})\]', parts)]
            zeros = bytes(min(max(ends, default=0), MOST_DATA))
            path.write_bytes(len(parts).to_bytes(8, "little") + parts + zeros)
        elif kind in ("s", "t"):
            members = scripted if kind == "s" else saved[(rest or b"\0")[0] % len(saved)]
            pickled = rest if kind == "s" else rest[1:]
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in members.items():
                    archive.writestr(name, pickled if name.endswith("/data.pkl") else content)
        else:
            path.write_bytes(rest)
        return path

    def load_ours(data: bytes) -> object:
        return load_checkpoint(make(data)) if data[:1] in (b"h", b"r") else None

    def load_clip(data: bytes) -> object:
        return load_backbone(str(make(data)))

    def load_original(data: bytes) -> object:
        return read_original(make(data))

    small = {name: value for name, value in tensors.items() if value.numel() < 100}
    strange = save({**small, "f8": torch.zeros(2).to(torch.float8_e4m3fn), "n": torch.ones(2, dtype=torch.int64)})
    about = json.dumps(metadata).encode()
    older = b"h" + about.replace(b"mgs-2", b"mgs-1") + b"\0" + header.replace(b"backbone.", b"clip.")
    bare = b"h" + about + b"\0" + header.replace(b"backbone.", b"")
    seeds = [b"h" + about + b"\0" + header, older, bare, b"r" + strange]
    seeds += [b"s" + content for name, content in scripted.items() if name.endswith("/data.pkl")]
    seeds += [b"t" + bytes([i]) + members["archive/data.pkl"] for i, members in enumerate(saved)]
    torch.save({"module.w": torch.ones(3)}, buffer := io.BytesIO(), _use_new_zipfile_serialization=False)
    return [load_ours, load_clip, load_original], [*seeds, b"z" + buffer.getvalue()]


def script_archive(torch) -> dict[str, bytes]:
    """The members of a small TorchScript archive."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    torch.jit.save(torch.jit.script(module), buffer := io.BytesIO())
    return members_of(buffer)


def saved_archive(content: object, torch) -> dict[str, bytes]:
    """The members of a saved dict's archive."""
    torch.save(content, buffer := io.BytesIO())
    return members_of(buffer)


def members_of(buffer: io.BytesIO) -> dict[str, bytes]:
    """A zip's members by name."""
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def values(torch) -> list[object]:
    """What a saved dict may hold: ordinary weights, and tensors and things of every other kind."""
    one = torch.ones(2, 2)
    return [
        *(one, torch.nn.Parameter(one), one.to_sparse(), one.to("meta"), one.to(torch.float8_e4m3fn), one.half()),
        *(one.to(torch.complex64).conj(), torch.nested.nested_tensor([one, one]), one.expand(9, 2, 2), one[:0], 3, "x"),
        *(torch.quantize_per_tensor(one, 0.1, 0, torch.qint8), {"a": [1, {2}]}, torch.Size([1]), one.to_sparse_csr()),
    ]


def open_image(folder: Path) -> tuple[list[Call], list[bytes]]:
    """Pictures. Pillow's Python is instrumented; its decoders in C are not, and run all the same."""
    from PIL import Image

    from mgs.images import decode as images
    from mgs.images import fit

    # what is above these limits is refused or below them enlarged just as with the real ones, but sooner
    images.MAX_PIXELS = fit.MAX_PIXELS = 1 << 20
    Image.MAX_IMAGE_PIXELS = 1 << 20
    Image.init()

    def decode(data: bytes) -> object:
        return images.decode_image(data, folder / "x.png", fit.Fit(16))

    return [decode], image_seeds(Image, images.FORMATS)


def image_seeds(Image, formats: list[str]) -> list[bytes]:
    """A small picture in every format and mode that Pillow writes, and what some formats have besides."""
    colour = Image.linear_gradient("L").resize((18, 17)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    seeds = []

    def add(picture, kind: str, **options) -> None:
        try:
            picture.save(buffer := io.BytesIO(), kind, **options)
        except (OSError, ValueError, KeyError):  # not every format has every mode and option
            return
        seeds.append(buffer.getvalue())

    for kind in formats:
        for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I", "I;16", "F", "YCbCr"):
            add(colour.convert("L").convert(mode) if mode.startswith(("I", "F")) else colour.convert(mode), kind)
        add(colour, kind, exif=exif)
        add(colour.convert("P"), kind, transparency=0)
        add(colour, kind, save_all=True, append_images=[colour.rotate(90)], duration=9)
    for options in ({"progressive": True}, {"icc_profile": b"x" * 30, "comment": b"y"}, {"subsampling": 2}):
        add(colour, "JPEG", **options)
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4", "raw"):
        add(colour.convert("1") if compression == "group4" else colour, "TIFF", compression=compression, exif=exif)
    return list(dict.fromkeys(seeds))


SOURCES = (".tar", ".tgz", ".zip", ".parquet", ".arrow", ".jsonl", ".json")


def open_sources(folder: Path) -> tuple[list[Call], list[bytes]]:
    """What images lie in; an input's first byte says which of `SOURCES` the rest of it is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mgs.sources.find import find_sources
    from mgs.sources.tables import TableOptions

    def read(data: bytes) -> object:
        file = folder / f"x{SOURCES[(data or bytes(1))[0] % len(SOURCES)]}"
        file.write_bytes(data[1:])
        return [len(item.data or item.place) for item in find_sources([str(file)], TableOptions()).items()]

    members = {"a.png": b"picture", "a.txt": b"a fox", "b.png": b"picture", "b.json": b'{"caption": "a fox"}'}
    rows = pa.table({"image": [{"bytes": b"picture", "path": "a.png"}] * 3, "prompt": ["a fox", None, ""]})
    found: dict[str, bytes] = {}
    for suffix, mode in ((".tar", "w"), (".tgz", "w:gz")):
        with tarfile.open(fileobj=(buffer := io.BytesIO()), mode=mode) as tar:
            for name, content in members.items():
                header = tarfile.TarInfo(name)
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
        found[suffix] = buffer.getvalue()
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    found[".zip"] = buffer.getvalue()
    pq.write_table(rows, buffer := io.BytesIO())
    found[".parquet"] = buffer.getvalue()
    with pa.ipc.new_stream(buffer := io.BytesIO(), rows.schema) as stream:
        stream.write_table(rows)
    found[".arrow"] = buffer.getvalue()
    found[".jsonl"] = b'{"image": "a.png", "prompt": "a fox"}\n{"file_name": ["b.png", "c.png"], "text": null}\n'
    seeds = [bytes([SOURCES.index(suffix)]) + content for suffix, content in found.items()]
    parts = (b'[{"path1": "a.png", "path2": "b.png", "prompt": "x"}]', b'{"a.png": {"p": "a fox", "se": 1}}')
    return [read], seeds + [bytes([SOURCES.index(".json")]) + content for content in parts]


FORM = "multipart/form-data; boundary=y"


def open_requests(folder: Path) -> tuple[list[Call], list[bytes]]:
    """Bodies of a server's requests, as the pickle, the JSON and the form that each of its addresses may get."""
    import asyncio
    import pickle

    from starlette.requests import Request

    from mgs.serve import contracts, schemas
    from mgs.serve.bodies import as_items, check, read_content, take_images
    from mgs.serve.limits import Limits
    from mgs.serve.pickles import read_pickle

    limits = Limits(images=4)

    def content_of(data: bytes, kind: str) -> dict:
        async def receive() -> dict:
            return {"type": "http.request", "body": data, "more_body": False}

        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode())]}
        return asyncio.run(read_content(Request(scope, receive), limits))

    def own(data: bytes, kind: str) -> object:
        content = content_of(data, kind)
        images, options = take_images(content), check(schemas.ScoreOptions, content)
        return json.dumps([item.image for item in as_items(images, options.prompts, limits)])

    calls = [
        lambda data: own(data, FORM),
        lambda data: own(data, "application/json"),
        lambda data: check(contracts.UniRLBody, content_of(data, "application/json")),
        lambda data: check(contracts.ComputeBody, content_of(data, "application/json")),
        read_pickle,
        lambda data: contracts.pickled_items(data, limits),
    ]
    turn = {"history": [{"text": "a fox", "image_b64": "eHg="}], "required_rewards": ["mgs"], "metadata": None}
    form = b'--y\r\ncontent-disposition: form-data; name="images"; filename="a.png"\r\n\r\npicture\r\n'
    field = b'--y\r\ncontent-disposition: form-data; name="prompts"\r\n\r\na fox\r\n--y--\r\n'
    asked = {"images": [b"picture"], "prompts": ["a fox"], "metadata": {"a": [1, 2.5, None, True, [1, 2]]}}
    words = {"images": ["eHg=", "data:image/png;base64,eHg="], "prompts": ["a fox", None], "dimensions": ["quality"]}
    seeds = [pickle.dumps(asked, protocol) for protocol in (2, 3, 4, 5)]
    seeds += [json.dumps(one).encode() for one in (words, {"requests": [turn]}, {"image": ["eHg="], "prompt": ["x"]})]
    return calls, [*seeds, form + field]


DOORS = {
    "csv": Door(open_csv),
    "config": Door(open_config, ("mgs", "omegaconf", "yaml")),
    "checkpoint": Door(open_checkpoint, ("mgs", "pickle"), longest=16_384),
    "image": Door(open_image, ("mgs", "PIL"), text=False),
    "requests": Door(open_requests, ("mgs", "pickle", "pickletools", "python_multipart")),
    "sources": Door(open_sources, ("mgs", "tarfile", "zipfile"), longest=16_384, text=False),
}


def problem_of(call: Call, data: bytes) -> tuple[str, str] | None:
    """The kind of finding that an input is, with its place in our code, and the traceback; None where all is well."""
    from mgs.errors import UserError
    from mgs.images.decode import BadImage

    try:
        call(data)
    except (UserError, BadImage) as error:
        shown = str(error)
        if "\n" not in shown and len(shown) < LONGEST:
            return None
        kind, caught = "lines" if "\n" in shown else "long", error
    except Exception as error:
        kind, caught = type(error).__name__, error
    else:
        return None
    ours = [f for f in traceback.extract_tb(caught.__traceback__) if f"{os.sep}mgs{os.sep}" in f.filename]
    place = f"{Path(ours[-1].filename).stem}-{ours[-1].lineno}" if ours else "elsewhere"
    return f"{kind}-{place}", "".join(traceback.format_exception(caught))


def exchange(data: bytes, longest: int, seed: int) -> bytes:
    """An input changed: by libFuzzer, or by a word or number exchanged, which keeps JSON, YAML and CSV whole."""
    import atheris

    draw = random.Random(seed)
    if draw.random() < 0.5 or not TOKEN.search(data):
        return atheris.Mutate(data, longest)
    return exchange_word(data, draw)[:longest]


def exchange_word(data: bytes, draw: random.Random) -> bytes:
    """The input with a word or number of it exchanged for another of its own or a special one."""
    tokens = list(TOKEN.finditer(data))
    if not tokens:
        return data
    start, end = draw.choice(tokens).span()
    new = draw.choice(tokens)[0] if draw.random() < 0.3 else draw.choice(SPECIAL)
    return data[:start] + new + data[end:]


def fuzz(door: Door, folder: Path, corpus: Path, findings: Path, seconds: int) -> None:
    """Fuzz in this process, which libFuzzer ends."""
    import atheris
    import torch  # before instrumentation begins

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in sys.modules.keys() & set(door.instrumented):
        del sys.modules[name]  # so that it is imported again, which is when it is instrumented
    with atheris.instrument_imports(include=list(door.instrumented)):
        calls, seeds = door.open(folder)
        from mgs.images import decode  # noqa: F401 - for `problem_of`
    for i, seed in enumerate(seeds):
        (corpus / f"seed{i}").write_bytes(seed)

    def try_out(data: bytes) -> None:
        for call in calls:
            if problem := problem_of(call, data):
                kept = findings / problem[0]
                if not kept.exists() or len(data) < kept.stat().st_size:
                    kept.write_bytes(data)

    options = {"max_total_time": seconds, "timeout": SLOWEST, "rss_limit_mb": MOST_MEMORY, "max_len": door.longest}
    options |= {"print_final_stats": 1, "artifact_prefix": f"{findings}/"}
    mutator = {"custom_mutator": exchange} if door.text else {}
    atheris.Setup(
        [sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)], try_out, **mutator
    )
    atheris.Fuzz()


def replay(door: Door, folder: Path, data: bytes) -> int:
    """Give one input to the door, and print what comes of it; 1 for a finding."""
    problems = [problem for call in door.open(folder)[0] if (problem := problem_of(call, data))]
    for kind, trace in problems:
        print(f"{trace}{kind}")
    return bool(problems)


def supervise(name: str, seconds: int, corpus: Path | None) -> int:
    """Fuzz in a child, since libFuzzer ends its process, and print what it found; 1 where that is anything."""
    work = Path(tempfile.mkdtemp(prefix=f"fuzz_{name}_"))
    corpus, findings = corpus or work / "corpus", work / "findings"
    for folder in (corpus, findings, work / "files"):
        folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        sys.argv[0],
        name,
        "--seconds",
        str(seconds),
        "--corpus",
        str(corpus),
        "--child",
        str(work),
    ]
    log = work / "log.txt"
    with log.open("wb") as stream:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    text = log.read_text(errors="replace")
    ran, covered = (re.findall(p, text) for p in (r"number_of_executed_units: +(\d+)", r"cov: (\d+ ft: \d+ corp: \d+)"))
    found = sorted(findings.iterdir())
    if done.returncode and not found:
        print(text[-3000:])
    for path in found:
        print(f"{path} ({path.stat().st_size} bytes): python {sys.argv[0]} {name} --replay {path}")
    print(f"coverage: {covered[-1] if covered else 'none'}; log: {log}" if found else f"coverage: {covered[-1:]}")
    print(f"{name}: {ran[-1] if ran else 0} executions in {seconds} s, {len(found)} findings")
    failed = bool(found or done.returncode or not ran)
    if not failed:
        shutil.rmtree(work)
    return int(failed)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("door", choices=DOORS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="inputs to begin with, and where new ones are kept")
    parser.add_argument("--replay", type=Path, help="a finding to look at")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    door = DOORS[words.door]
    if words.replay:
        with tempfile.TemporaryDirectory() as folder:
            return replay(door, Path(folder), words.replay.read_bytes())
    if words.child:
        fuzz(door, words.child / "files", words.corpus, words.child / "findings", words.seconds)
    return supervise(words.door, words.seconds, words.corpus)


if __name__ == "__main__":
    sys.exit(main())
