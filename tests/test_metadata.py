"""Prompts inside image files: each tool's form is found, generators' commands are cut, and no file does harm."""

import csv
import io
import json
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from mgs.cli import app
from mgs.errors import UserError
from mgs.images import metadata, text_fields
from mgs.images.comfyui import MAX_STEPS, Graph
from mgs.images.generator_syntax import clean_generator_syntax
from mgs.images.metadata import READERS, Metadata, find_prompt, read_metadata
from mgs.images.text_fields import MAX_TEXT, MAX_TEXTS, parse_exif, unpack
from mgs.scoring.score import columns
from mgs.sources.find_prompt import FINDERS, choose_prompts, fill_prompt
from mgs.sources.item import Item

PICTURE = Image.new("RGB", (8, 8))
INFOTEXT = "a red fox,\nsnow\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Size: 8x8, Version: f2.0"
A1111 = Metadata("a red fox,\nsnow", "dog", "AUTOMATIC1111")
FOX = {"prompt": "a red fox", "negative_prompt": "dog"}
USER_COMMENT, DESCRIPTION, MAKE, MODEL, SOFTWARE = 0x9286, 0x010E, 0x010F, 0x0110, 0x0131
NOVEL = {"prompt": "a red fox", "uc": "dog", "steps": 28}
V4 = {"caption": {"base_caption": "a red fox", "char_captions": [{"char_caption": "a girl"}, {"char_caption": ""}]}}
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XMP = (
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/">{}</rdf:Description>'
    "</rdf:RDF></x:xmpmeta>"
).replace("{}", "%s")


def xmp(tag, text):
    return XMP % f'<{tag}><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt></{tag}>'


def saved(kind, picture=PICTURE, **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def png(packed=False, **texts):
    """A PNG with texts: tEXt, or zTXt where they are packed; iTXt where they are not Latin."""
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key.replace("_", "-") if key == "sd_metadata" else key, text, zip=packed)
    return saved("PNG", pnginfo=info)


def exif(tags=(), comment=None, kind="JPEG", **options):
    """A JPEG or WebP with EXIF texts in the first folder, and a comment in the second."""
    data = Image.Exif()
    data.update(dict(tags))
    if comment is not None:
        data.get_ifd(0x8769)[USER_COMMENT] = comment
    return saved(kind, exif=data.tobytes(), **options)  # PNG's writer passes over an object with a comment only


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(kind, data, end=True):
    """A PNG with a chunk of one's own, behind the pixels or before them."""
    plain = saved("PNG")
    at = plain.index(b"IEND" if end else b"IDAT") - 4
    return plain[:at] + chunk(kind, data) + plain[at:]


def graph(**nodes):
    """A ComfyUI graph: name -> (class, inputs); "5" is a sampler of 6 and 7, the output 9."""
    basic = {
        "5": ("KSampler", {"positive": ["6", 0], "negative": ["7", 0], "model": ["1", 0]}),
        "1": ("CheckpointLoaderSimple", {"ckpt_name": "x.safetensors"}),
        "6": ("CLIPTextEncode", {"text": "a red fox", "clip": ["1", 1]}),
        "7": ("CLIPTextEncode", {"text": "dog", "clip": ["1", 1]}),
        "8": ("VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        "9": ("SaveImage", {"images": ["8", 0]}),
    }
    changed = {name.strip("_"): node for name, node in nodes.items()}
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in (basic | changed).items()}


def encode(text):
    return ("CLIPTextEncode", {"text": text})


EDITOR = {
    "nodes": [
        {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["a red fox"]},
        {"id": 4, "type": "CLIPTextEncode", "widgets_values": ["cat"], "mode": 4, "inputs": [{"name": "t", "link": 4}]},
        {"id": 7, "type": "CLIPTextEncode", "widgets_values": ["dog"], "inputs": [{"name": "text", "link": None}]},
        {"id": 5, "type": "KSampler", "widgets_values": [7, "x"], "inputs": [
            {"name": "positive", "link": 1}, {"name": "negative", "link": 2}]},
        {"id": 8, "type": "KSampler", "mode": 4, "inputs": [
            {"name": "positive", "link": 5}, {"name": "samples", "link": 3}]},
        {"id": 9, "type": "SaveImage", "inputs": [{"name": "images", "link": 6}]},
    ],
    "links": [
        *([1, 4, 0, 5, 1, "C"], [2, 7, 0, 5, 2, "C"], [3, 5, 0, 8, 0, "I"], [4, 6, 0, 4, 0, "C"]),
        *([5, 7, 0, 8, 0, "C"], [6, 8, 0, 9, 0, "I"]),
    ],
}  # fmt: skip
GRAPHS = {
    "simple": (graph(), "a red fox", "dog"),
    "SDXL": (graph(_6=("CLIPTextEncodeSDXL", {"text_g": "a red fox", "text_l": "snow"})), "a red fox, snow", "dog"),
    "SDXL, twice the same": (graph(_6=("CLIPTextEncodeSDXL", {"text_g": "fox", "text_l": "fox"})), "fox", "dog"),
    "Flux": (
        graph(
            _5=("SamplerCustomAdvanced", {"guider": ["20", 0], "sampler": ["23", 0], "noise": ["24", 0]}),
            _20=("BasicGuider", {"model": ["1", 0], "conditioning": ["21", 0]}),
            _21=("FluxGuidance", {"guidance": 3.5, "conditioning": ["22", 0]}),
            _22=("CLIPTextEncodeFlux", {"clip_l": "fox", "t5xxl": "a red fox in the snow", "guidance": 3.5}),
            _23=("KSamplerSelect", {"sampler_name": "euler"}),
        ),
        "a red fox in the snow",
        "",
    ),
    "combined and rerouted": (
        graph(
            _5=("KSampler", {"positive": ["20", 0], "negative": ["25", 0]}),
            _20=("ControlNetApplyAdvanced", {"positive": ["21", 0], "negative": ["7", 0], "image": ["26", 0]}),
            _21=("ConditioningCombine", {"conditioning_1": ["22", 0], "conditioning_2": ["23", 0]}),
            _22=("Reroute", {"": ["6", 0]}),
            _23=encode("snow"),
            _25=("ConditioningZeroOut", {"conditioning": ["6", 0]}),
            _26=encode("wrong"),
        ),
        "a red fox, snow",
        "",
    ),
    "text of other nodes": (
        graph(
            _6=encode(["20", 0]),
            _20=("StringConcatenate", {"string_a": ["21", 0], "string_b": ["22", 0], "delimiter": " and "}),
            _21=("PrimitiveStringMultiline", {"value": "a fox"}),
            _22=("ComfySwitchNode", {"switch": True, "on_true": ["23", 0], "on_false": ["7", 0]}),
            _23=("ShowText|pysssss", {"text": ["24", 0], "text_0": "snow"}),
            _24=("TextGenerate", {"prompt": "write a prompt"}),
        ),
        "a fox and snow",
        "dog",
    ),
    "loader with texts": (
        graph(
            _5=("KSampler (Efficient)", {"positive": ["20", 1], "negative": ["20", 2]}),
            _20=("Efficient Loader", {"positive": "a red fox", "negative": "dog", "ckpt_name": "x"}),
        ),
        "a red fox",
        "dog",
    ),
    "the sampler nearest to the output": (
        graph(
            _5=("KSampler", {"positive": ["6", 0], "latent_image": ["20", 0]}),
            _20=("KSampler", {"positive": ["7", 0]}),
        ),
        "a red fox",
        "",
    ),
    "circle beside a text": (
        graph(
            _5=("KSampler", {"positive": ["20", 0]}),
            _20=("ConditioningCombine", {"conditioning_1": ["20", 0], "conditioning_2": ["6", 0]}),
        ),
        "a red fox",
        "",
    ),
    "no sampler known": (graph(_5=("Magic", {}), _7=("Other", {})), "a red fox", ""),
    "editor": (EDITOR, "a red fox", "dog"),
}
LOST = {
    "circle of conditioning": graph(_6=("Reroute", {"": ["20", 0]}), _20=("Reroute", {"": ["6", 0]}), _7=("No", {})),
    "circle of texts": graph(_6=encode(["20", 0]), _20=("Join", {"text_a": ["20", 0], "text_b": ["20", 0]}),
        _7=("", {})),
    "text that holds itself": graph(_6=encode(["20", 0]), _20=("Join", {"text_a": ["20", 0], "text_b": "fox"})),
    "texts without a way": graph(_5=("Magic", {})),
    "odd types": {"1": {"class_type": ["KSampler"], "inputs": {"positive": [{}, 0], "text": 3}}, "2": None, "3": {}},
    "odd editor": {"nodes": [3, {"inputs": 4}, {"id": {}, "inputs": [5]}], "links": [[[], 1, 2, 3, 4], 7]},
}  # fmt: skip
FILES = {
    "tEXt": (png(parameters=INFOTEXT), A1111),
    "zTXt": (png(True, parameters=INFOTEXT), A1111),
    "iTXt": (png(parameters=f"狐 {INFOTEXT}"), Metadata("狐 a red fox,\nsnow", "dog", "AUTOMATIC1111")),
    "packed iTXt": (png(True, parameters="狐"), Metadata("狐", "", "AUTOMATIC1111")),
    "UTF-8 in tEXt": (with_chunk(b"tEXt", b"parameters\0" + "狐".encode()), Metadata("狐", "", "AUTOMATIC1111")),
    "Latin-1 in tEXt": (with_chunk(b"tEXt", b"parameters\0caf\xe9", end=False), Metadata("café", "", "AUTOMATIC1111")),
    "EXIF in PNG": (exif(comment=b"UNICODE\0" + INFOTEXT.encode("utf-16-be"), kind="PNG"), A1111),
    "JPEG, big endian": (exif(comment=b"UNICODE\0" + INFOTEXT.encode("utf-16-be")), A1111),
    "JPEG, little endian": (exif(comment=b"UNICODE\0" + INFOTEXT.encode("utf-16-le")), A1111),
    "JPEG, byte order mark": (exif(comment=b"UNICODE\0" + INFOTEXT.encode("utf-16")), A1111),
    "JPEG, ASCII": (exif(comment=b"ASCII\0\0\0" + INFOTEXT.encode()), A1111),
    "JPEG, no name": (exif(comment=INFOTEXT.encode()), A1111),
    "WebP": (exif(comment=b"UNICODE\0" + INFOTEXT.encode("utf-16-be"), kind="WEBP"), A1111),
    "GIF": (saved("GIF", comment=INFOTEXT.encode()), A1111),
    "ComfyUI": (png(prompt=json.dumps(graph()) + "\0"), Metadata("a red fox", "dog", "ComfyUI")),
    "ComfyUI, not JSON by the book": (
        png(prompt=json.dumps(graph(_1=("X", {"x": float("nan")})))), Metadata("a red fox", "dog", "ComfyUI")
    ),
    "ComfyUI, behind the pixels": (
        with_chunk(b"comf", b"prompt\0" + json.dumps(graph()).encode()), Metadata("a red fox", "dog", "ComfyUI")
    ),
    "ComfyUI, edited only": (png(workflow=json.dumps(EDITOR)), Metadata("a red fox", "dog", "ComfyUI")),
    "ComfyUI, WebP": (
        exif({MODEL: f"prompt:{json.dumps(graph())}", MAKE: f"workflow:{json.dumps(EDITOR)}"}, kind="WEBP"),
        Metadata("a red fox", "dog", "ComfyUI"),
    ),
    "ComfyUI, comment": (exif(comment=json.dumps({"prompt": graph()}).encode()),
        Metadata("a red fox", "dog", "ComfyUI")),
    "InvokeAI": (
        png(invokeai_metadata=json.dumps({"positive_prompt": "a red fox", "negative_prompt": "dog"})),
        Metadata("a red fox", "dog", "InvokeAI"),
    ),
    "InvokeAI 2": (
        png(sd_metadata=json.dumps({"image": {"prompt": [{"prompt": "a red fox [dog]", "weight": 1}]}})),
        Metadata("a red fox", "dog", "InvokeAI"),
    ),
    "InvokeAI 1": (png(Dream='"a red fox [dog]" -s 30 -S 1'), Metadata("a red fox", "dog", "InvokeAI")),
    "NovelAI": (
        png(Software="NovelAI", Description="a red fox", Comment=json.dumps(NOVEL)),
        Metadata("a red fox", "dog", "NovelAI"),
    ),
    "NovelAI 4": (
        png(Software="NovelAI", Comment=json.dumps(NOVEL | {"v4_prompt": V4})),
        Metadata("a red fox, a girl", "dog", "NovelAI"),
    ),
    "NovelAI, WebP": (
        exif(comment=b"ASCII\0\0\0" + json.dumps({"Comment": json.dumps(NOVEL)}).encode(), kind="WEBP"),
        Metadata("a red fox", "dog", "NovelAI"),
    ),
    "Fooocus": (
        png(parameters=json.dumps(FOX | {"base_model": "x"}), fooocus_scheme="fooocus"),
        Metadata("a red fox", "dog", "Fooocus"),
    ),
    "Fooocus, JPEG": (
        exif({USER_COMMENT: json.dumps(FOX | {"base_model": "x"}), SOFTWARE: "Fooocus v2"}),
        Metadata("a red fox", "dog", "Fooocus"),
    ),
    "SwarmUI": (
        png(parameters=json.dumps({"sui_image_params": {"prompt": "a red fox", "negativeprompt": "dog"}})),
        Metadata("a red fox", "dog", "SwarmUI"),
    ),
    "SwarmUI, JPEG": (
        exif(comment=b"UNICODE\0" + json.dumps({"sui_image_params": {"prompt": "狐"}}).encode("utf-16-le")),
        Metadata(b"\\u72d0".decode("unicode_escape"), "", "SwarmUI"),
    ),
    "Draw Things": (
        png(**{"XML:com.adobe.xmp": xmp("exif:UserComment", json.dumps({"c": "a red fox", "uc": "dog"}))}),
        Metadata("a red fox", "dog", "Draw Things"),
    ),
    "Midjourney": (
        png(Description="a red fox --ar 2:1 --v 6 Job ID: 12-ab", Author="x"),
        Metadata("a red fox --ar 2:1 --v 6", "", "Midjourney"),
    ),
    "Easy Diffusion": (png(**{"Prompt": "a red fox", "Negative Prompt": "dog"}),
        Metadata("a red fox", "dog", "prompt field")),
    "diffusers": (png(prompt="a red fox"), Metadata("a red fox", "", "prompt field")),
    "half a character": (
        png(parameters=json.dumps({"prompt": "a \ud800 fox"})),
        Metadata("a ? fox", "", "prompt field"),
    ),
    "TensorArt": (png(generation_data=json.dumps({"prompt": "a red fox"}) + "\0"),
        Metadata("a red fox", "", "prompt field")),
    "EXIF description": (exif({DESCRIPTION: "a red fox"}), Metadata("a red fox", "", "image description")),
    "XMP description": (
        saved("WEBP", xmp=xmp("dc:description", "a red &amp; black fox").encode()),
        Metadata("a red & black fox", "", "image description"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_each_tool_s_files_are_read(name):
    data, expected = FILES[name]
    assert read_metadata(data) == expected


def test_every_reader_has_a_file():
    assert {found.tool for _, found in FILES.values()} == set(READERS)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_prompt_is_found_in_a_graph(name):
    content, positive, negative = GRAPHS[name]
    assert Graph(content).prompts() == (positive, negative)


@pytest.mark.parametrize("name", LOST)
def test_a_graph_without_a_way_to_one_text_gives_none(name):
    assert Graph(LOST[name]).prompts() is None


@pytest.mark.parametrize(
    "data",
    [
        saved("PNG"),
        b"",
        png(parameters=""),
        png(parameters='{"prompt": "a fox", '),
        png(prompt='{"6": {"class_type": "CLIPText'),
        png(parameters="Steps: 20, Sampler: Euler a, Seed: 3"),
        png(Software="GIMP", Comment="Created with GIMP", Title="x"),
        exif({DESCRIPTION: "OLYMPUS DIGITAL CAMERA", MAKE: "OLYMPUS"}),
        exif({DESCRIPTION: "image"}),
        exif(comment=b"ASCII\0\0\0taken at the lake"),
        saved("WEBP", xmp=b"<?xml version='1.0' encoding='foo'?>" + xmp("dc:description", "a b").encode()),
        saved("WEBP", xmp=b"<!DOCTYPE x [<!ENTITY e 'a fox'>]>" + xmp("dc:description", "&e; b").encode()),
        png(prompt='{"a":' * 100_000, invokeai_metadata='{"a":' * 100_000, Comment="{"),
        png(parameters="x" * (metadata.MAX_PROMPT + 1)),
    ],
)
def test_other_files_have_no_prompt(data):
    assert read_metadata(data) is None


def test_what_is_no_file_has_no_prompt(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("none.png", "pipe.png", ".", "a\0b.png"):
        assert read_metadata(tmp_path / name) is None


def peak_memory(work):
    """Bytes that a function needs at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_bombs_do_not_fill_the_memory():
    assert len(unpack(zlib.compress(bytes(MAX_TEXT - 1)))) == MAX_TEXT - 1
    bomb = zlib.compress(bytes(8 * MAX_TEXT), 9)
    tags = b"".join(struct.pack("<HHII", DESCRIPTION, 2, 1 << 20, 0) for _ in range(60_000))
    for kind, data in {
        b"zTXt": b"parameters\0\0" + bomb,
        b"iTXt": b"parameters\0\1\0\0\0" + bomb,
        b"eXIf": b"II*\0" + struct.pack("<IH", 8, 60_000) + tags,
    }.items():
        file = with_chunk(kind, data)
        assert peak_memory(lambda file=file: read_metadata(file)) < 4 * MAX_TEXT
    assert unpack(bomb) == b""
    assert len(list(parse_exif(data))) == 1


def test_the_texts_of_a_file_are_counted(monkeypatch):
    plain, unpacked = saved("PNG"), []
    file = plain[:33] + 3 * MAX_TEXTS * chunk(b"zTXt", b"same\0\0x") + plain[33:]
    monkeypatch.setattr(text_fields, "unpack", lambda data: unpacked.append(data) or b"x")
    assert read_metadata(file) is None
    assert len(unpacked) == MAX_TEXTS
    unpacked.clear()
    monkeypatch.setattr(text_fields, "unpack", lambda data: unpacked.append(data) or bytes(MAX_TEXT))
    read_metadata(file)
    assert len(unpacked) == 3


def test_a_bad_text_does_not_cost_the_others():
    good = chunk(b"tEXt", b"parameters\0a red fox")
    bad = chunk(b"zTXt", b"x\0\0junk") + chunk(b"iTXt", b"y\0") + chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff")
    plain = saved("PNG")
    at = plain.index(b"IDAT") - 4
    assert read_metadata(plain[:at] + bad + good + plain[at:]).prompt == "a red fox"


def test_graphs_that_never_end_do():
    doubling = {f"{i}": ("Join", {"text_a": [str(i + 1), 0], "text_b": [str(i + 1), 0]}) for i in range(100, 160)}
    both = {f"{i}": ("Combine", {"cond1": [str(i + 1), 0], "cond2": [str(i + 1), 0]}) for i in range(100, 5000)}
    wide = {f"{i}": ("KSampler", {"positive": ["99", 0]} | dict.fromkeys("abcdef", 1)) for i in range(100, 3000)}
    for nodes in ({"_6": encode(["100", 0])} | doubling, {"_6": ("Reroute", {"": ["100", 0]})} | both, wide):
        found = Graph(graph(**nodes))
        found.prompts()
        assert found.steps <= MAX_STEPS + 1


def test_deep_and_repeated_xmp_is_read_once():
    deep = XMP % ("<dc:description>" * 20_000 + "</dc:description>" * 20_000)
    assert read_metadata(saved("WEBP", xmp=deep.encode())) is None


NAMES = (
    *("nodes", "links", "inputs", "class_type", "type", "positive", "text", "prompt", "image", "switch", "mode", "id"),
    *(
        "sui_image_params",
        "v4_prompt",
        "caption",
        "char_captions",
        "base_model",
        "_meta",
        "link",
        "widgets_values",
        "6",
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.sampled_from(["6", "a fox", "", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
KEYS = ["prompt", "workflow", "parameters", "Comment", "sd-metadata", "invokeai_metadata", "exif:UserComment", "Dream"]


@given(st.dictionaries(st.sampled_from(KEYS), JSON.map(json.dumps) | st.text(), min_size=1))
def test_no_text_raises(fields):
    found = find_prompt(fields)
    if found:
        found.prompt.encode()
        clean_generator_syntax(found.prompt)


@given(st.sampled_from([*(data for data, _ in FILES.values())]), st.data())
def test_no_damage_raises(data, draw):
    at = draw.draw(st.integers(0, len(data)))
    read_metadata(data[:at])
    read_metadata(data[:at] + draw.draw(st.binary(max_size=8)) + data[at + 4 :])


@given(st.binary(max_size=60), st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"comf"]))
def test_no_chunk_raises(data, kind):
    read_metadata(with_chunk(kind, data))
    read_metadata(data)


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("a (red:1.3) fox", "a red fox"),
        ("((red)) fox, (smile), [snow]", "red fox, smile, snow"),
        ("{{red}} fox", "red fox"),
        ("1.3::red fox::, snow", "red fox, snow"),
        ("[cat:dog:0.5], [cat|dog], [fox::5]", "cat dog, cat dog, fox"),
        ("<lora:a:0.8> fox , <lora:b:1>, snow", "fox, snow"),
        ("<random:<x:y>,b> fox", "fox"),
        ("embedding:good, (embedding:bad:1.2) fox", "fox"),
        ("a fox BREAK snow", "a fox, snow"),
        ("a cat :1.2 AND a dog", "a cat, a dog"),
        ("a __color__ {big|small} fox", "a fox"),
        ("a red fox --ar 3:2 --no text, dog --v 6", "a red fox"),
        ("hot:: dog::2", "hot, dog"),
        ("https://a.b/c.png a fox", "a fox"),
        ("miku \\(vocaloid\\), (smile), :)", "miku (vocaloid), smile, :)"),
        ("<lora:a:1>", ""),
    ],
)
def test_generators_commands_are_cut(prompt, read):
    assert clean_generator_syntax(prompt) == read


@pytest.mark.parametrize(
    "prompt",
    [
        *("a man (smiling) at 16:9", " two  spaces ,, kept,", "a sign :)", "((fox", "BLACK AND WHITE", "TV AND radio"),
        *(
            "a fox -- red",
            "std::cout",
            "(see John 3:16)",
            'a sign "BREAK"',
            '{"a": ["b", "c"]}',
            "x < y > z",
            "a\n\nb",
            "",
        ),
    ],
)
def test_prose_stays_as_it_is(prompt):
    assert clean_generator_syntax(prompt) == prompt


def test_no_prompt_of_a_dataset_is_changed(shared):
    tables = [shared / "agiqa3k" / "data.csv", *shared.glob("published_splits/*/*/*.csv")]
    columns = [pd.read_csv(table).rename(columns=str.lower)["prompt"] for table in tables]
    prompts = {prompt for column in columns for prompt in column.astype(str)}
    assert len(prompts) > 1000
    assert [prompt for prompt in prompts if clean_generator_syntax(prompt) != prompt] == []


@pytest.mark.parametrize(
    "part",
    ["(", "[", "{", "\\(", "<a:", "__a", "1.1::", "a AND ", "(a:1.2)", " --", "[a|", "http://a ", " ", ", ", "<a["],
)
def test_cleaning_takes_time_in_proportion(part):
    """Where it took the square of the length, these would take hours."""
    clean_generator_syntax(part * (metadata.MAX_PROMPT // len(part)))
    find_prompt({"parameters": part * 200_000, "Description": "Job ID:" + part * 200_000 + "."})


@pytest.fixture
def folder(own_set, tmp_path, monkeypatch):
    """A folder with a picture of each kind: with a prompt inside, without, in its name, and in a file beside it."""
    (tmp_path / "clip.safetensors").write_bytes((own_set / "clip.safetensors").read_bytes())
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with Image.open(own_set / "3.png") as picture:
        info = PngInfo()
        info.add_text("parameters", "=a (red:1.2) \x1bfox\nSteps: 20, Sampler: Euler a, Seed: 1")
        picture.save(pictures / "a.png", pnginfo=info)
        picture.save(pictures / "00012-a_grey_wall-3141592653.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mgs(*words):
    words = ["score", *map(str, words), "--clip", "clip.safetensors"]
    return CliRunner().invoke(app, words)


def rows(text):
    return {Path(row["image"]).name: row for row in csv.DictReader(io.StringIO(text))}


def test_a_folder_is_scored_by_the_prompts_in_its_files(folder):
    result = mgs("pictures")
    assert result.exit_code == 0, result.output
    plain, own = rows(result.stdout).values()
    assert (own["prompt"], own["prompt_read"]) == ("'=a (red:1.2) ␛fox", "'=a red ␛fox")
    assert own["status"].endswith("; prompt from the file (AUTOMATIC1111)")
    assert "syntax" not in own["status"]
    assert (plain["prompt"], plain["prompt_read"], plain["correspondence"]) == ("", "", "")
    given = mgs("pictures", "--prompt", "=a red \x1bfox")
    given = rows(given.stdout)["a.png"]
    assert "prompt_read" not in given
    assert "prompt from" not in given["status"]
    assert float(own["correspondence"]) == pytest.approx(float(given["correspondence"]), abs=1e-5)
    shown = mgs("pictures/a.png").stdout
    assert "\x1b" not in shown
    assert "prompt read     =a red \\x1bfox" in shown
    explained = CliRunner().invoke(app, ["explain", "pictures/a.png", "--clip", "clip.safetensors", "--out", "a.html"])
    assert "; prompt from the file (AUTOMATIC1111)" in explained.stdout
    assert ">=a red" in Path("a.html").read_text()
    none = rows(mgs("pictures", "--prompt-from", "none").stdout)["a.png"]
    assert "prompt_read" not in none
    assert none["correspondence"] == ""


def test_resuming_knows_where_prompts_are_from(folder, monkeypatch):
    monkeypatch.setattr("mgs.scoring.jobs.write_rows", lambda *args: 1 / 0)
    assert isinstance(mgs("pictures", "--out", "o.jsonl").exception, ZeroDivisionError)
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    (folder / "pictures" / "a.txt").write_text("=a (red:1.2) \x1bfox")  # the same prompt, of which more is read
    for source in ("none", "filename", "sidecar"):
        refused = mgs("pictures", "--out", "o.jsonl", "--resume", "--prompt-from", source)
        assert "of another job" in str(refused.exception)
    assert mgs("pictures", "--out", "o.jsonl", "--resume").exit_code == 0
    first, second = map(json.loads, (folder / "o.jsonl").read_text().splitlines())
    assert list(first) == list(second) == columns(prompt_read=True)
    assert (first["prompt_read"], second["prompt_read"]) == (None, "=a red \x1bfox")
    told = rows(mgs("pictures", "--prompt", "=a red \x1bfox").stdout)["a.png"]
    assert second["correspondence"] == pytest.approx(float(told["correspondence"]), abs=1e-5)


def found(path, source):
    item = fill_prompt(Item(str(path), str(path)), FINDERS[source], path.read_bytes() if path.exists() else None)
    return item.prompt, item.text


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("00012-a_grey_wall-3141592653.png", "a grey wall"),
        ("00012-314159-a red fox.png", "a red fox"),
        ("user_a_red_fox_12345678-abcd-abcd-abcd-1234567890ab.png", "user a red fox"),
        ("a-red-fox-2.png", "a red fox"),
        ("ComfyUI_00001_.png", "ComfyUI"),
        ("3 cats (2).png", "3 cats"),
        ("2_dogs-on-a_wall_1.png", "2 dogs-on-a wall"),
    ],
)
def test_a_name_is_read_as_words(name, read):
    assert found(Path(name), "filename") == (Path(name).stem, read)


def test_a_name_of_numbers_says_nothing():
    assert found(Path("00012-314159.png"), "filename") == (None, None)


def test_files_beside_the_images(tmp_path):
    image = tmp_path / "a.png"
    assert found(image, "sidecar") == (None, None)
    (tmp_path / "a.json").write_text('{"caption": "a (red:1.2) fox"}')
    assert found(image, "sidecar") == ("a (red:1.2) fox",) * 2
    (tmp_path / "a.txt").write_text(INFOTEXT.replace("red", "(red:1.2)"))
    assert found(image, "sidecar") == ("a (red:1.2) fox,\nsnow", "a red fox, snow")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "a.json").write_text("[" * 10_000)
    assert found(image, "sidecar") == (None, None)
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.txt").write_text("secret words")
    (tmp_path / "in" / "a.txt").symlink_to(tmp_path / "secret.txt")
    assert found(tmp_path / "in" / "a.png", "sidecar") == (None, None)


def test_a_prompt_that_is_given_stays():
    for prompt in ("x", ""):
        assert fill_prompt(Item("a b.png", "a b.png", prompt), FINDERS["filename"], None).prompt == prompt
    assert choose_prompts(None, wanted=False, needed=True) is None
    with pytest.raises(UserError, match="all images have prompts already"):
        choose_prompts("filename", wanted=False, needed=True)
    with pytest.raises(UserError, match="choose from none, metadata, filename, sidecar"):
        choose_prompts("name", wanted=True, needed=True)


def test_a_method_that_reads_no_prompt_looks_for_none():
    assert choose_prompts(None, wanted=True, needed=True) == "metadata"
    assert choose_prompts(None, wanted=True, needed=False) is None
    assert choose_prompts("metadata", wanted=True, needed=False) == "metadata"
    assert choose_prompts("none", wanted=True, needed=True) is None
