"""Sources: the same images and prompts, whatever they lie in, with their names as they are; damage is told."""

import contextlib
import csv
import gzip
import io
import json
import shutil
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import openpyxl
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from mgs.cli import app
from mgs.errors import UserError
from mgs.images.decode import BadImage
from mgs.sources.find import find_sources
from mgs.sources.item import FEWEST, shard_size
from mgs.sources.read_ahead import read_ahead
from mgs.sources.tables import TableOptions

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet")

PROMPTS = {f"{i:03}.png": f'a wall, number "{i}"' for i in range(1, 7)}


@pytest.fixture
def pictures(own_set, tmp_path, monkeypatch):
    """Six pictures in a folder, and the folder around it to work in."""
    (tmp_path / "pictures").mkdir()
    for i, name in enumerate(PROMPTS):
        shutil.copy(own_set / f"{i}.png", tmp_path / "pictures" / name)
    shutil.copy(own_set / "clip.safetensors", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pictures"


def found(*words, table=None, **options):
    """The items, twice: a source can be read again."""
    source = find_sources(words, TableOptions(**options), table=table)
    items = list(source.items())
    assert list(source.items()) == items
    assert source.count in (None, len(items))
    return items


def assert_all_there(items, pictures, *, prompts=PROMPTS):
    """Every picture once, in order, with its bytes and its prompt."""
    assert [Path(item.image).stem for item in items] == [Path(name).stem for name in prompts]
    for item, (name, prompt) in zip(items, prompts.items(), strict=True):
        assert item.read() == (pictures / name).read_bytes()
        assert item.prompt == prompt


def content(pictures):
    return {name: (pictures / name).read_bytes() for name in PROMPTS}


def add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_tar(path, pictures, *, mode="w", text=".txt"):
    """A WebDataset or img2dataset shard."""
    with tarfile.open(path, mode) as tar:
        for name, data in content(pictures).items():
            stem = name.removesuffix(".png")
            add(tar, f"{stem}.png", data)
            if text == ".txt":
                add(tar, f"{stem}.txt", PROMPTS[name].encode())
            facts = {"caption": PROMPTS[name], "url": "http://x", "key": stem, "status": "success"}
            add(tar, f"{stem}.json", json.dumps(facts).encode())
    return path


# tables


def write_text(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def as_csv(separator=",", header=("image", "prompt"), folder=""):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator)
    writer.writerows([header, *[(folder + name, prompt) for name, prompt in PROMPTS.items()]])
    return text.getvalue()


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [
        ("a.csv", as_csv(), "utf-8"),
        ("b.csv", as_csv(";", ("Image", "PROMPT")), "utf-8-sig"),
        ("c.tsv", as_csv("\t"), "utf-16"),
        ("d.csv", as_csv(header=("file_name", "caption")), "utf-8"),
        ("e.csv", as_csv(folder=".\\").replace("\r\n", "\n"), "utf-8"),
        ("f.jsonl", "\n".join(json.dumps({"Image": k, "Prompt": v}) for k, v in PROMPTS.items()), "utf-8-sig"),
        ("g.json", json.dumps([{"img_path": k, "text": v} for k, v in PROMPTS.items()]), "utf-8"),
        ("h.json", json.dumps({k: {"p": v, "se": 1} for k, v in PROMPTS.items()}), "utf-8"),
    ],
)
def test_tables_of_any_kind(pictures, name, text, encoding):
    table = str(write_text(pictures / name, text, encoding))
    assert_all_there(found(table), pictures)
    assert_all_there(found(table=table), pictures)
    elsewhere = str(shutil.move(table, pictures.parent / name))
    assert_all_there(found(elsewhere, images="pictures"), pictures)


def test_a_sheet_and_stdin(pictures, monkeypatch):
    book = openpyxl.Workbook()
    for row in [("Image", "Prompt"), *PROMPTS.items()]:
        book.active.append(row)
    book.save(pictures / "a.xlsx")
    assert_all_there(found("pictures/a.xlsx"), pictures)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(as_csv().encode())))
    assert_all_there(found("-", images="pictures"), pictures)


def test_names_and_prompts_that_look_like_numbers_or_nothing_survive(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [("001", "null"), ("1e5", "NA"), ("None", "None"), ("1.0", "007")]
    write_text(tmp_path / "a.csv", "image,prompt\n" + "".join(f"{a},{b}\n" for a, b in rows))
    write_text(tmp_path / "a.jsonl", "".join(json.dumps({"image": a, "prompt": b}) + "\n" for a, b in rows))
    pq.write_table(pa.table({"image": [a for a, _ in rows], "prompt": [b for _, b in rows]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert [(item.image, item.prompt) for item in found(name)] == rows


def test_columns_are_chosen_by_the_user_or_said(pictures, capsys):
    table = str(write_text(pictures / "a.csv", as_csv(header=("Left", "What it shows"))))
    with pytest.raises(UserError, match=r"a\.csv: found columns left, what it shows; .*--columns image=COLUMN"):
        found(table)
    assert capsys.readouterr().err == ""
    assert_all_there(found(table, columns={"image": "left", "prompt": "What it Shows"}), pictures)
    with pytest.raises(UserError, match=r"no column 'right'; found columns left"):
        found(table, columns={"image": "right"})
    found(str(write_text(pictures / "b.csv", as_csv(header=("file_name", "text")))))
    assert capsys.readouterr().err.endswith(
        "b.csv: image from 'file_name', prompt from 'text'; --columns says otherwise\n"
    )


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "image,prompt\n001.png,x,y\n", r"a\.csv:2: 3 fields where the header has 2"),
        ("a.csv", "image\n../b.png\n", r"a\.csv:2: \.\./b\.png leads out of pictures"),
        ("a.csv", "", r"a\.csv: no rows"),
        ("a.csv", "image\n\n001.png\n\xff\n", r"a\.csv:4: not UTF-8"),
        ("a.jsonl", '{"image": "001.png"}\n{"image": \n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", '{"image": {"x": 1}}\n', r"a\.jsonl:1: image: a dict; write text"),
        ("a.jsonl", "3\n", r"a\.jsonl:1: no object"),
        ("a.json", "3", r"a\.json: no list of images"),
        ("a.parquet", "PAR1 no Parquet", r"a\.parquet: cannot be read"),
    ],
)
def test_a_mistake_in_a_table_is_one_line_with_its_place(pictures, name, text, told):
    write_text(pictures / name, text, "latin-1")
    with pytest.raises(UserError, match=told) as caught:
        found(f"pictures/{name}")
    assert "\n" not in str(caught.value)


# Parquet


def test_parquet_with_bytes_with_structs_and_with_paths(pictures):
    data = list(content(pictures).values())
    names, prompts = list(PROMPTS), list(PROMPTS.values())
    structs = [{"bytes": one, "path": name} for one, name in zip(data, names, strict=True)]
    apart = [{"bytes": None if i % 2 else one["bytes"], "path": one["path"]} for i, one in enumerate(structs)]
    tables = {
        "hugging_face": {"image": structs, "text": prompts},
        "apart": {"image": apart, "prompt": prompts},
        "img2dataset": {"png": data, "txt": prompts, "key": [Path(name).stem for name in names]},
        "paths": {"path": names, "Caption": pa.array(prompts).dictionary_encode()},
    }
    for name, table in tables.items():
        pq.write_table(pa.table(table), pictures / f"{name}.parquet", row_group_size=4)
        assert_all_there(found(f"pictures/{name}.parquet"), pictures)
    with pa.ipc.new_stream(pictures / "data.arrow", (saved := pa.table(tables["hugging_face"])).schema) as stream:
        stream.write_table(saved)
    assert_all_there(found("pictures/data.arrow"), pictures)


def test_rows_without_an_image_are_told(pictures):
    data = list(content(pictures).values())
    pq.write_table(pa.table({"jpg": [data[0], None], "caption": ["a", None]}), "a.parquet")
    first, second = found("a.parquet")
    assert (first.read(), first.prompt, second.prompt) == (data[0], "a", "")
    with pytest.raises(BadImage, match=r"no image in row 1 of a\.parquet"):
        second.read()


def test_parquet_columns_of_other_kinds_are_refused_and_bad_rows_are_rows(pictures):
    for column in ([1, 2], [[1, 2], [3]], [{"x": 1}] * 2):
        pq.write_table(pa.table({"image": column}), "a.parquet")
        with pytest.raises(UserError, match=r"a\.parquet: column 'image' has .*, not bytes"):
            found("a.parquet")
    pq.write_table(pa.table({"image": ["001.png"], "prompt": [[1]]}), "a.parquet")
    with pytest.raises(UserError, match=r"column 'prompt' has list<.*>, not text"):
        found("a.parquet")
    pq.write_table(pa.table({"image": ["001.png", "../x.png"]}), pictures / "b.parquet")
    assert [bool(item.problem) for item in found("pictures/b.parquet")] == [False, True]


def test_json_columns_are_those_of_all_records(pictures):
    lines = ['{"image": "001.png"}', '{"image": "002.png", "prompt": "late"}', '{"image": "003.png", "prompt": NaN}']
    write_text(pictures / "a.jsonl", "\n".join(lines))
    assert [item.prompt for item in found("pictures/a.jsonl")] == ["", "late", ""]
    for line, told in (('{"image": []}', "blank image"), ('{"image": "x", "Image": "y"}', "differ in case alone")):
        write_text(pictures / "a.jsonl", line)
        with pytest.raises(UserError, match=told):
            found("pictures/a.jsonl")


@pytest.mark.parametrize("groups", [1, 7, 300, 1100, 5000])
def test_spans_of_a_long_file_cover_it_once_whatever_its_row_groups(tmp_path, groups):
    names = [f"{i:05}.png" for i in range(2600)]
    pq.write_table(pa.table({"image": names}), tmp_path / "a.parquet", row_group_size=groups)
    source = find_sources([str(tmp_path / "a.parquet")], TableOptions())
    shards = list(source.shards())
    assert [item.image for shard in shards for item in shard.items()] == names
    assert {shard.count >= FEWEST or shard is shards[-1] for shard in shards} == {True}
    assert len({shard.fingerprint() for shard in shards}) == len(shards) > 1


def test_pick_a_pic_and_hpd_have_two_images_a_row(pictures):
    data, names = list(content(pictures).values()), [Path(name).stem for name in PROMPTS]
    pick = {"jpg_0": data[::2], "jpg_1": data[1::2], "image_0_uid": names[::2], "image_1_uid": names[1::2]}
    pq.write_table(pa.table({**pick, "caption": ["a", "b", "c"], "label_0": [0.5] * 3}), "pick.parquet")
    pairs = dict(zip(PROMPTS, "aabbcc", strict=True))
    assert_all_there(found("pick.parquet"), pictures, prompts=pairs)
    rows = [{"prompt": "abc"[i], "path1": f"{2 * i + 1:03}.png", "path2": f"{2 * i + 2:03}.png"} for i in range(3)]
    write_text(pictures / "hpd.json", json.dumps(rows))
    assert_all_there(found("pictures/hpd.json"), pictures, prompts=pairs)


# archives


@pytest.mark.parametrize("text", [".txt", ".json"])
@pytest.mark.parametrize(("name", "mode"), [("00000.tar", "w"), ("00000.tgz", "w:gz")])
def test_tars_with_texts_or_json(pictures, name, mode, text):
    write_tar(pictures.parent / name, pictures, mode=mode, text=text)
    items = found(name)
    assert_all_there(items, pictures)
    assert items[0].image == f"{name}/001.png"
    assert {item.prompt for item in found(name, prompt="mine")} == {"mine"}


def test_many_tars_by_number(pictures):
    for number in ("08", "09", "10"):
        write_tar(pictures.parent / f"set-{number}.tar", pictures)
    items = found("set-{08..10}.tar")
    assert [item.image for item in items[::6]] == [f"set-{number}.tar/001.png" for number in ("08", "09", "10")]
    assert items == found("set-*.tar")
    with pytest.raises(UserError, match=r"set-11\.tar: no such file"):
        found("set-{08..11}.tar")


def test_samples_have_a_name_up_to_the_first_dot_and_kinds_in_any_case(pictures):
    data = (pictures / "001.png").read_bytes()
    with tarfile.open("a.tar", "w") as tar:
        for name in ("x/1.left.PNG", "x/1.right.jpg", "x/1.txt", "y/1.png", ".hidden.png", "x/2.cls", "x/2.png"):
            add(tar, name, b"both" if name.endswith("txt") else data)
    assert [(item.image, item.prompt) for item in found("a.tar")] == [
        ("a.tar/x/1.left.PNG", "both"),
        ("a.tar/x/1.right.jpg", "both"),
        ("a.tar/y/1.png", None),
        ("a.tar/x/2.png", None),
    ]


def test_names_with_dots_of_their_own_keep_their_texts(pictures):
    data = (pictures / "001.png").read_bytes()
    names = [f"sd1.5_{i:03}" for i in range(200)]
    with tarfile.open("a.tar", "w") as tar:
        for name in names:
            add(tar, f"{name}.png", data)
            add(tar, f"{name}.txt", name.encode())
    items = found("a.tar")
    assert [item.prompt for item in items] == names
    assert [item.image for item in items] == [f"a.tar/{name}.png" for name in names]


def damaged_tars(whole):
    """A tar that is cut in an image, in a header, between members; or overwritten in a header."""
    starts = [at for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
    header = starts[7]  # of the third image's text
    yield "in an image", whole[: starts[6] + 600]
    yield "in a header", whole[: header + 100]
    yield "between members", whole[: starts[6]]
    yield "overwritten", whole[:header] + b"x" * 512 + whole[header + 512 :]


def test_a_damaged_tar_gives_what_is_before_the_damage_and_a_row_that_says_so(pictures):
    whole = write_tar(pictures.parent / "a.tar", pictures).read_bytes()
    for kind, data in damaged_tars(whole):
        Path("b.tar").write_bytes(data)
        *images, last = found("b.tar")
        assert [item.image for item in images] == ["b.tar/001.png", "b.tar/002.png"], kind
        assert images[1].prompt == PROMPTS["002.png"]
        with pytest.raises(BadImage, match=r"b\.tar: damaged \(.*\); images before the damage are scored"):
            last.read()
    Path("b.tar").write_bytes(gzip.compress(whole)[:-200])
    assert found("b.tar")[-1].problem
    Path("b.tar").write_bytes(b"no tar")
    assert [bool(item.problem) for item in found("b.tar")] == [True]


def test_a_name_that_comes_again_begins_another_sample(pictures):
    data = list(content(pictures).values())
    with tarfile.open("a.tar", "w") as tar:
        for i in range(2):
            add(tar, "0.png", data[i])
            add(tar, "0.txt", f"number {i}".encode())
    items = found("a.tar")
    assert [(item.read(), item.prompt) for item in items] == [(data[0], "number 0"), (data[1], "number 1")]


def test_what_cannot_be_read_of_an_archive_is_a_row_or_told(pictures, capsys):
    data = (pictures / "001.png").read_bytes()
    with tarfile.open("a.tar", "w") as tar:
        add(tar, "0.png", data)
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.LNKTYPE, "0.png"
        tar.addfile(link)
        add(tar, "texts/0.txt", b"lost")
    first, second = found("a.tar")
    assert first.read() == data
    with pytest.raises(BadImage, match=r"a\.tar/1\.png: a link within the tar"):
        second.read()
    assert "a.tar: 1 texts without an image of their name beside them" in capsys.readouterr().err
    with tarfile.open("b.tar", "w") as tar:
        add(tar, ".hidden/0.png", data)
    assert found("b.tar") == []
    assert "b.tar: no image in it" in capsys.readouterr().err


def test_diffusiondb_as_folder_as_zip_and_by_its_table(pictures, monkeypatch):
    part = pictures.parent / "images" / "part-000001"
    shutil.copytree(pictures, part)
    write_text(part / "part-000001.json", json.dumps({k: {"p": v, "se": 3, "c": 7.0} for k, v in PROMPTS.items()}))
    assert_all_there(found("images"), pictures)
    assert_all_there(found("images/part-000001"), pictures)
    assert {item.prompt for item in found("images", prompt="mine")} == {"mine"}
    with zipfile.ZipFile("part-000001.zip", "w") as archive:
        for name in sorted(PROMPTS):
            archive.write(part / name, name)
        archive.write(part / "part-000001.json", "part-000001.json")
    assert_all_there(found("part-000001.zip"), pictures)
    with zipfile.ZipFile("two.zip", "w") as archive:
        for name in sorted(PROMPTS):
            for folder in "ab":
                archive.writestr(f"{folder}/{name}", (part / name).read_bytes())
        for folder in "ab":
            texts = {name: {"p": f"{folder} {prompt}"} for name, prompt in PROMPTS.items()}
            archive.writestr(f"{folder}/{folder}.json", json.dumps(texts))
    told = {item.image: item.prompt for item in found("two.zip")}
    assert told == {f"two.zip/{folder}/{name}": f"{folder} {PROMPTS[name]}" for folder in "ab" for name in PROMPTS}
    monkeypatch.chdir(part)
    assert_all_there(found("."), pictures)
    monkeypatch.chdir(pictures.parent)
    facts = {"image_name": list(PROMPTS), "prompt": list(PROMPTS.values()), "part_id": pa.array([1] * 6, pa.uint16())}
    pq.write_table(pa.table({**facts, "timestamp": [0] * 6}), "metadata.parquet")
    items = found("metadata.parquet", images="images")
    assert items[0].image == "part-000001/001.png"
    assert_all_there(items, pictures)


# folders, stores, shards


def test_hugging_face_folders(pictures, capsys, monkeypatch):
    write_text(pictures / "metadata.csv", as_csv(header=("file_name", "text")))
    assert_all_there(found("pictures"), pictures)
    assert "pictures: its images and prompts are those of pictures/metadata.csv" in capsys.readouterr().err
    monkeypatch.chdir(pictures)
    for here in (".", "./"):
        assert_all_there(found(here), pictures)
    monkeypatch.chdir(pictures.parent)
    assert_all_there(found("."), pictures)
    shutil.copytree(pictures, "nested/train")
    assert_all_there(found("nested"), pictures)
    lines = "".join(f'train/{name},"a {name}"\n' for name in PROMPTS)
    write_text(Path("nested/metadata.csv"), f"file_name,text\n{lines}")
    assert_all_there(found("nested"), pictures, prompts={name: f"a {name}" for name in PROMPTS})
    write_text(pictures / "metadata.csv", "about,us\n1,2\n")
    assert {item.prompt for item in found("pictures")} == {None}
    data = Path("set/data")
    data.mkdir(parents=True)
    write_text(data.parent / "README.md", "---\n---\n")
    structs = [{"bytes": one, "path": name} for name, one in content(pictures).items()]
    for i in range(2):
        span = slice(3 * i, 3 * i + 3)
        table = {"image": structs[span], "prompt": list(PROMPTS.values())[span]}
        pq.write_table(pa.table(table), data / f"train-0000{i}-of-00002.parquet")
    assert_all_there(found("set"), pictures)
    (data / "job.mgs.json").write_text("{}")
    pq.write_table(pa.table({"image": ["x"], "status": ["ok"]}), data / "part-00000.parquet")
    assert_all_there(found("set"), pictures)  # scores below are no source


def test_a_folder_of_shards_and_what_a_folder_of_images_leaves_out(pictures, capsys):
    Path("shards").mkdir()
    write_tar(Path("shards/00000.tar"), pictures)
    pq.write_table(pa.table({"key": ["001"], "caption": ["x"]}), "shards/00000.parquet")  # as img2dataset's record
    assert_all_there(found("shards"), pictures)
    shutil.copy("shards/00000.tar", pictures)
    assert len(found("pictures")) == 6
    assert capsys.readouterr().err == "pictures: left out 1 archives (name them to score what is in them)\n"


def test_a_store_by_url(pictures):
    store = fsspec.filesystem("memory")
    store.store.clear()
    for name, data in content(pictures).items():
        store.pipe(f"/bucket/pictures/{name}", data)
    write_tar(pictures.parent / "a.tar", pictures)
    lines = [json.dumps({"file_name": name, "text": prompt}) for name, prompt in PROMPTS.items()]
    pq.write_table(pa.table({"image": list(PROMPTS), "prompt": list(PROMPTS.values())}), "a.parquet")
    plain = dict.fromkeys(PROMPTS)
    assert_all_there(found("memory://bucket/pictures"), pictures, prompts=plain)
    assert_all_there(found("memory://bucket/pictures/*.png"), pictures, prompts=plain)
    assert_all_there(found("memory://bucket/pictures/00{1..6}.png"), pictures, prompts=plain)
    for name in ("a.tar", "a.parquet"):
        store.pipe(f"/bucket/{name}", Path(name).read_bytes())
    assert_all_there(found("memory://bucket/a.tar"), pictures)
    assert_all_there(found("memory://bucket/a.parquet", images="memory://bucket/pictures"), pictures)
    store.pipe("/bucket/pictures/metadata.jsonl", "\n".join(lines).encode())
    assert_all_there(found("memory://bucket/pictures/"), pictures)
    store.pipe("/bucket/out.csv", b"image\nmemory://other/x.png\n")
    with pytest.raises(UserError, match=r"out\.csv:2: memory://other/x\.png leads out of memory://bucket"):
        found("memory://bucket/out.csv")
    (missing,) = found("memory://bucket/none.png")
    with pytest.raises(BadImage, match=r"memory://bucket/none\.png: no such file"):
        missing.read()
    with pytest.raises(UserError, match=r"nosuch://x/a\.tar: no address that can be opened"):
        found("nosuch://x/a.tar")


def test_no_cell_opens_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("http://127.0.0.1:1/x.png", f"file://{tmp_path}/x.png", "memory://x.png"):
        write_text(tmp_path / "a.csv", f"image\n{name}\n")
        for options in ({}, {"images": "."}, {"images": "/"}):
            with pytest.raises(UserError, match=r"a\.csv:2: .* leads out of"):
                found("a.csv", **options)
        pq.write_table(pa.table({"image": [name]}), "a.parquet")
        assert found("a.parquet")[0].problem


def test_reading_ahead_keeps_order_and_errors_and_ends_with_whoever_reads():
    def items(count, error=None):
        for i in range(count):
            taken.append(i)
            yield i
        if error:
            raise error

    taken = []
    assert list(read_ahead(items(1000), 3)) == [*range(1000)]
    with pytest.raises(UserError, match="broken"):
        list(read_ahead(items(5, UserError("broken")), 2))
    taken.clear()
    reader = read_ahead(items(1000), 4)
    assert next(reader) == 0
    reader.close()
    assert len(taken) <= 7
    assert not [thread for thread in threading.enumerate() if thread.name == "mgs-source"]


def test_a_server_by_url(pictures):
    pytest.importorskip("aiohttp", reason="aiohttp, which fsspec needs for http, is not installed")
    write_tar(pictures.parent / "a.tar", pictures)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(pictures.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with contextlib.closing(server.socket):
        address = f"http://127.0.0.1:{server.server_port}"
        assert found(f"{address}/pictures/001.png?size=[3]")[0].read() == (pictures / "001.png").read_bytes()
        assert_all_there(found(f"{address}/a.tar"), pictures)
        server.shutdown()


def test_a_table_is_read_row_by_row_and_cut_into_shards(tmp_path):
    count = 3 * FEWEST + 1
    table = write_text(tmp_path / "a.csv", "image\n" + "".join(f"{i}.png\n" for i in range(count)))
    source = find_sources([str(table), "one.png"], TableOptions())
    assert source.count == count + 1
    assert [shard.count for shard in source.shards()] == [FEWEST] * 3 + [2]
    assert [shard_size(n) for n in (1, 10**4, 10**5, 10**9)] == [512, 625, 6250, 16384]


def test_what_is_read_again_after_a_change_has_another_fingerprint(pictures):
    tar = write_tar(pictures.parent / "a.tar", pictures)
    marks = [shard.fingerprint() for shard in find_sources(["a.tar"], TableOptions()).shards()]
    tar.write_bytes(tar.read_bytes() + bytes(10240))
    assert [shard.fingerprint() for shard in find_sources(["a.tar"], TableOptions()).shards()] != marks


# scores


def scores_of(out, *words):
    words = ["score", *map(str, words), "--out", out, "--clip", "clip.safetensors"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    parts = sorted(Path(out).glob("part-*.parquet")) if Path(out).is_dir() else []
    table = pd.concat(map(pd.read_parquet, parts)) if parts else pd.read_csv(out, dtype={"image": str})
    return table[["prompt", "quality", "authenticity", "correspondence"]].reset_index(drop=True)


def test_scores_are_the_same_whichever_door_the_images_come_through(pictures):
    write_text(pictures.parent / "pairs.csv", as_csv())
    write_tar(pictures.parent / "a.tar", pictures)
    structs = [{"bytes": one, "path": name} for name, one in content(pictures).items()]
    pq.write_table(pa.table({"image": structs, "prompt": list(PROMPTS.values())}), "a.parquet")
    expected = scores_of("files.csv", "--table", "pairs.csv", "--images", "pictures")
    assert np.isfinite(expected["correspondence"]).all()
    for number, words in enumerate((["a.tar"], ["a.parquet"], ["--table", "a.parquet"])):
        for out in (f"{number}.csv", f"{number}/"):
            pd.testing.assert_frame_equal(scores_of(out, *words), expected, rtol=0, atol=1e-6)


def test_a_folder_of_parts_is_resumed_and_only_what_is_missing_is_scored(pictures):
    names = [f"{1 + i % 6:03}.png" for i in range(2 * FEWEST + 3)]
    for name in PROMPTS:
        Image.open(pictures / name).resize((32, 32)).save(pictures / name)
    write_text(pictures / "many.csv", "image,prompt\n" + "".join(f"{name},x\n" for name in names))
    words = ["--table", "pictures/many.csv", "--method", "clip-score", "--batch-size", "64"]
    expected = scores_of("many/", *words)

    def again(*more):
        return CliRunner().invoke(app, ["score", *words, *more, "--out", "many", "--clip", "clip.safetensors"])

    parts = sorted(Path("many").glob("part-*.parquet"))
    assert [path.name for path in parts] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert "many: holds scores; continue it with --resume" in str(again().exception)
    before = {path.name: path.stat().st_mtime_ns for path in parts}
    parts[1].unlink()
    pd.testing.assert_frame_equal(scores_of("many/", *words, "--resume"), expected, rtol=0, atol=1e-6)
    changed = {path.name for path in parts if path.stat().st_mtime_ns != before[path.name]}
    assert changed == {"part-00001.parquet"}
    assert json.loads(Path("many/job.mgs.json").read_text())["scored by"] == "CLIPScore with clip.safetensors"
    for other in (["--prompt-style", "keywords"], ["--set", "options.weight=1"]):
        refused = CliRunner().invoke(
            app, ["score", *words, *other, "--resume", "--out", "many", "--clip", "clip.safetensors"]
        )
        assert isinstance(refused.exception, UserError)
    write_text(pictures / "many.csv", "image,prompt\n" + "".join(f"{name},y\n" for name in names))
    assert "part-00000.parquet: of another job" in str(again("--resume").exception)


def test_no_input_and_nothing_else_of_the_users_is_overwritten(pictures):
    structs = [{"bytes": one, "path": name} for name, one in content(pictures).items()]
    pq.write_table(pa.table({"image": structs}), "a.parquet")
    before = Path("a.parquet").read_bytes()

    def told(*words):
        return str(CliRunner().invoke(app, ["score", *words, "--clip", "clip.safetensors"]).exception)

    assert "a.parquet: is an input, too" in told("a.parquet", "--out", "./a.parquet")
    assert "a.parquet: is there already, and no table of scores" in told("pictures/001.png", "--out", "a.parquet")
    assert Path("a.parquet").read_bytes() == before
    for name in ("s.csv", "s.jsonl", "s.parquet"):
        scores_of(name, "pictures/001.png") if name == "s.csv" else told("pictures/001.png", "--out", name)
        assert told("pictures/002.png", "--out", name) == "None"  # scores are replaced
        done = CliRunner().invoke(app, ["score", "pictures", "--clip", "clip.safetensors", "--out", name, "--resume"])
        assert done.output == f"{name}: finished already; without --resume it is scored again\n"


def test_what_is_strange_in_a_folder_of_parts_is_one_line(pictures, monkeypatch):
    out = Path("out")
    words = ["score", "a.tar", "b.tar", "--clip", "clip.safetensors", "--out"]
    for name in ("a.tar", "b.tar"):
        write_tar(Path(name), pictures)
    assert CliRunner().invoke(app, [*words, "out"]).exit_code == 0
    (out / "part-00000.parquet.bak").write_text("mine")
    assert CliRunner().invoke(app, [*words, "out", "--resume"]).exit_code == 0
    (out / "part-00001.parquet").unlink()
    (out / ".part-00001.partial").write_text('{"mgs.shard": "of something else"}\n')
    (out / "part-00000.parquet").unlink()
    refused = str(CliRunner().invoke(app, [*words, "out", "--resume"]).exception)
    assert ".part-00001.partial: of another job" in refused
    assert not (out / "part-00000.parquet").exists(), "scored in vain"
    (out / "part-00000.parquet").write_bytes(b"")
    assert "part-00000.parquet: damaged" in str(CliRunner().invoke(app, [*words, "out", "--resume"]).exception)
    Path("empty").mkdir()
    monkeypatch.chdir("empty")
    words[1:5] = ["../a.tar", "--clip", "../clip.safetensors"]
    assert CliRunner().invoke(app, [*words, "."]).exit_code == 0
    assert Path("part-00000.parquet").exists()


def test_an_image_that_cannot_be_read_is_a_row_in_every_door(pictures):
    with tarfile.open("a.tar", "w") as tar:
        add(tar, "1.png", (pictures / "001.png").read_bytes()[:-40])
        add(tar, "2.png", (pictures / "002.png").read_bytes())
    result = CliRunner().invoke(app, ["score", "a.tar", "--clip", "clip.safetensors"])
    assert result.exit_code == 1
    statuses = [row["status"] for row in csv.DictReader(io.StringIO(result.stdout))]
    assert statuses[0].startswith("error: a.tar/1.png: not a whole image")
    assert statuses[1].startswith("ok")
