"""Tables, images and prompts from strangers: none leads out of its folder, fills the memory or does anything."""

import csv
import io
import os
import shutil
import struct
import sys
import unicodedata
import zipfile
import zlib
from functools import partial
from pathlib import Path

import openpyxl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mgs.config import DataConfig
from mgs.config_files import load_config
from mgs.datasets.folds import find_folds, read_pictures
from mgs.datasets.read_table import read_table
from mgs.errors import UserError, exit_on_user_error
from mgs.evaluation.tested_runs import read_tested_run
from mgs.images.cache import ImageCache
from mgs.images.decode import FORMATS, MAX_BYTES, BadImage, read_image
from mgs.recipes import test as testing
from mgs.recipes import train as training
from mgs.safe_text import original_cell, printable, safe_cell
from mgs.scoring.draw_explanation import save_explanation
from mgs.scoring.scorer import Scorer
from mgs.sources.tables import TableOptions, TableReader


def table_of(folder, *names, header="image,prompt,quality"):
    path = folder / "mos.csv"
    path.write_text("\n".join([header, *(f"{name},a cat,3" for name in names)]) + "\n")
    return path


@pytest.fixture
def outside(tmp_path):
    """A folder with a picture in it, and one more beside the folder."""
    for place in ("inside/a.png", "inside/deep/b.png", "secret/c.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / place)
    (tmp_path / "inside/link.png").symlink_to(tmp_path / "secret/c.png")
    (tmp_path / "inside/folder").symlink_to(tmp_path / "secret")
    (tmp_path / "inside/fine.png").symlink_to(tmp_path / "inside/a.png")
    return tmp_path


def read_items(table, images=None):
    return list(TableReader(str(table), TableOptions(images=images)))


CLIMBING = ["../secret/c.png", "deep/../../secret/c.png", "link.png", "folder/c.png", "folder/../secret/c.png"]


@pytest.mark.parametrize("name", [*CLIMBING, "{absolute}", "../secret/none.png", "/etc/passwd"])
def test_an_image_path_that_leads_out_of_its_folder_is_refused_in_training_and_scoring(outside, name):
    name = name.format(absolute=outside / "secret/c.png")
    table = table_of(outside / "inside", "a.png", name)
    for read in (lambda: read_table(table, DataConfig()), lambda: read_items(table)):
        with pytest.raises(UserError, match=r"mos\.csv:3: .* leads out of .*inside; ") as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["deep/b.png", "deep/../a.png", "./a.png", "fine.png"])
def test_a_path_that_stays_inside_is_read(outside, name):
    table = table_of(outside / "inside", name)
    assert read_table(table, DataConfig())[0].image.exists()
    assert Path(read_items(table)[0].place).exists()


def test_the_image_folder_itself_may_be_a_link(outside):
    (outside / "linked").symlink_to(outside / "secret")
    assert read_table(table_of(outside, "c.png"), DataConfig(root=str(outside / "linked")))
    assert read_items(table_of(outside, "c.png"), str(outside / "linked"))


def test_a_name_with_control_characters_is_refused(outside):
    with pytest.raises(UserError, match=r"mos\.csv:2: the image's name 'a\\x1b\[2J.png' holds control characters"):
        read_table(table_of(outside / "inside", "a\x1b[2J.png"), DataConfig())


def png_that_claims(width, height):
    """A PNG of a few bytes that says it is as large as that."""
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    )
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None])
def test_a_decompression_bomb_is_refused_by_its_size_even_where_pillows_limit_was_lifted(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(60_000, 60_000))
    with pytest.raises(BadImage, match=r"bomb\.png: .*(178956970|178,956,970)"):
        read_image(path)


def test_postscript_under_another_name_is_never_handed_to_a_decoder_that_runs_programs(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    with Image.open(path) as file:
        assert file.format == "EPS"  # Pillow would
    with pytest.raises(BadImage, match="no image format"):
        read_image(path)


def test_every_format_that_is_read_is_one_that_pillow_has():
    Image.init()
    assert set(FORMATS) - {"AVIF", "WEBP", "JPEG2000"} <= set(Image.OPEN)  # three hang on libraries


def test_a_pipe_in_an_images_place_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(BadImage, match="not a file"):
        read_image(tmp_path / "a.png")


def test_a_file_too_large_to_be_a_picture_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: it takes no disk
    with pytest.raises(BadImage, match="more than any picture"):
        read_image(tmp_path / "a.png")


ROW = b"a.png,a cat,3\n"


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "empty"),
        (b"\n\n\n", "empty"),
        (b"image,prompt,quality\n", "mos.csv:1: no rows"),
        (b"image,prompt,quality\n" + ROW + b'a.png,"a cat,3\n', "mos.csv:3"),
        (b'image,prompt,quality\na.png,"a "big" cat",3\n', "mos.csv:2"),
        (b"image,prompt,quality,quality\na.png,x,3,4\n", "mos.csv:1: more than one column 'quality'"),
        (b"image,prompt,quality,prompt_style,prompt_style\na.png,x,3,hybrid,\n", "more than one column 'prompt_style'"),
        ("image,prompt,quality\na.png,ein Bär,3\n".encode("latin-1"), "mos.csv:2: not UTF-8"),
        ("image,prompt,quality\na.png,x,3\n".encode("utf-16")[:-1], "not UTF-8"),
        (b"image,prompt,quality\na.png," + b"x" * 200_000 + b",3\n", "mos.csv:2: field larger than field limit"),
        (b",".join(b"c%d" % i for i in range(1_000_000)) + b"\n", "c19 and 999980 more"),
        (b"image,prompt,quality\na.png,x\n", "mos.csv:2: 2 fields where the header has 3"),
        (b"image,prompt,quality\na.png,x,1_0\n", "quality is '1_0'"),
        (b"image|prompt|quality\na.png|x|3\n", "separate columns with commas"),
    ],
)
def test_a_malformed_table_gives_file_and_row_in_one_short_line(outside, data, part):
    path = outside / "inside" / "mos.csv"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_table(path, DataConfig())
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_excels_bom_and_any_line_ends_are_read(outside, ends, bom):
    path = outside / "inside" / "mos.csv"
    path.write_bytes(bom + b"image,prompt,quality\na.png,a cat,3\na.png,None,4\n".replace(b"\n", ends))
    assert [(s.prompt, s.targets["quality"]) for s in read_table(path, DataConfig())] == [("a cat", 3), ("None", 4)]


def test_an_xlsx_that_claims_to_be_huge_is_read_by_what_it_holds(tmp_path):
    table = [["image", "prompt", "quality"], ["a.png", "a cat", 3]]
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    book = openpyxl.Workbook()
    for row in table:
        book.active.append(row)
    book.save(tmp_path / "small.xlsx")
    with zipfile.ZipFile(tmp_path / "small.xlsx") as old, zipfile.ZipFile(tmp_path / "mos.xlsx", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'ref="A1:C2"', b'ref="A1:XFD1048576"'))
    assert b"XFD1048576" in zipfile.ZipFile(tmp_path / "mos.xlsx").read("xl/worksheets/sheet1.xml")
    assert len(read_table(tmp_path / "mos.xlsx", DataConfig())) == 1


def test_many_bad_images_are_all_named(tmp_path, capsys):
    path = table_of(tmp_path, *(f"{i:03d}.png" for i in range(90)))
    for i in range(90):
        (tmp_path / f"{i:03d}.png").write_text(f"picture {i}")
    load = partial(ImageCache(tmp_path).fill, place="none", device=torch.device("cpu"))
    data = DataConfig(table=str(path), protocol="random-image")
    with pytest.raises(UserError, match=r"^90 bad images: .* and 85 more, all named above; fix them"):
        read_pictures(find_folds(data, [1]), data, load=load)
    shown = capsys.readouterr().err
    assert all(f"{i:03d}.png" in shown for i in range(90))


def test_an_xlsx_that_unpacks_to_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "mos.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book, book.open("xl/worksheets/sheet1.xml", "w") as part:
        for _ in range(1100):
            part.write(bytes(1 << 20))
    assert path.stat().st_size < 2 << 20
    with pytest.raises(UserError, match=r"mos\.xlsx: .*unpacks to 1\.2 GB"):
        read_table(path, DataConfig())


EVIL = [
    "=HYPERLINK(\"http://x\",\"click\")", "+1", "-1", "@SUM(A1)", "'=1", "''-1", "＝1", "<script>alert(1)</script>",
    "\x1b]0;title\x07\x1b[2J", "a\x00b", "\u202etxt.exe", "$\\frac{", "{{ 7 * 7 }}",
    "&lt;b&gt;", "\" onload=\"x", "it's",
]  # fmt: skip


@given(st.text())
def test_a_cell_never_begins_a_formula_nor_holds_a_control_character_and_its_text_comes_back(text):
    cell = safe_cell(text)
    assert not cell.startswith(tuple("=+-@＝＋－＠\t\r"))
    assert not any(unicodedata.category(c) == "Cc" for c in cell if c != "\n")
    if not any(unicodedata.category(c) == "Cc" for c in text):
        assert original_cell(cell) == text


@given(st.text())
def test_a_terminal_gets_nothing_that_moves_its_cursor(text):
    assert all(c.isprintable() or c in "\n\t" for c in printable(text))


@pytest.fixture(scope="module")
def tested_evil(tmp_path_factory, own_set):
    """A run on prompts that try to be more than text, trained and tested."""
    folder = tmp_path_factory.mktemp("evil")
    shutil.copytree(own_set, folder, dirs_exist_ok=True)
    with (folder / "mos.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    for i, row in enumerate(rows):
        row[1] = f"{EVIL[i % len(EVIL)]} {i}"
    with (folder / "mos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        training.main(["own.yaml", "train.epochs=1", "folds=[1,2]"])
        testing.main(["own.yaml", "train.epochs=1", "folds=[1,2]"])
        Scorer.load("runs/own").explain("1.png", " ".join(EVIL)).score  # noqa: B018
        save_explanation(Scorer.load("runs/own").explain("1.png", ", ".join(EVIL)), folder / "why.html")
    return folder


def test_prompts_stay_text_in_every_page(tested_evil):
    for page in (*(tested_evil / "runs/own/report").glob("*.html"), tested_evil / "why.html"):
        text = page.read_text(encoding="utf-8")
        for tag in ("<script", "<b>", 'onload="x'):
            assert tag not in text
        assert "49" not in text.split("{{ 7 * 7 }}")[0][-20:]
        assert not any(c in text for c in "\x1b\x00\x07\u202e")


def test_prompts_stay_text_in_every_csv_and_come_back_for_comparisons(tested_evil):
    tables = [*tested_evil.glob("runs/own/report/predictions_*.csv"), *tested_evil.glob("runs/own/fold_*/predictions*")]
    assert len(tables) == 3
    for path in tables:
        with path.open(encoding="utf-8", newline="") as file:
            cells = [row["prompt"] for row in csv.DictReader(file)]
        assert not any(cell.startswith(tuple("=+-@＝")) for cell in cells)
        assert not any(c in cell for cell in cells for c in "\x1b\x00\x07\t\r")
    data = load_config(tested_evil / "own.yaml").data
    data.table = str(tested_evil / str(data.table))
    prompts = {sample.prompt for number in (1, 2) for sample in find_folds(data, [number])[0].test}
    back = set(read_tested_run(tested_evil / "runs/own").predictions["prompt"])
    assert {p for p in prompts if p.isprintable()} <= back


def test_a_command_can_print_what_the_terminals_encoding_lacks(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="cp1252"))
    exit_on_user_error(print, "a cat 🐱")
    sys.stdout.flush()
    assert shown.getvalue().rstrip() == rb"a cat \U0001f431"


def test_an_error_about_a_strangers_name_cannot_drive_the_terminal(tmp_path, capsys):
    def fail():
        raise UserError("row 3: no image \x1b]0;owned\x07.png")

    with pytest.raises(SystemExit) as caught:
        exit_on_user_error(fail)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: row 3: no image \\x1b]0;owned\\x07.png\n"
