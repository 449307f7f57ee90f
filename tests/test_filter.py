"""`mgs filter` against plain Python: which rows, in what order, unchanged; hostile expressions; copies; the page."""

import csv
import json
import math
import re
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from mgs.cli import app
from mgs.errors import UserError
from mgs.filtering.choose import Choice, Spread, open_tables, parse_top
from mgs.filtering.copy_images import shortest_ends
from mgs.filtering.page import make_bars
from mgs.scoring.outputs import write_rows
from mgs.scoring.score import columns

NAMES = columns()
SUFFIXES = (".csv", ".jsonl", ".parquet")
AWKWARD = [
    "001",
    "null",
    "NA",
    "1e5",
    "=1+1",
    "'=x",
    "''+y",
    "＝z",
    "-q",
    " a ",
    'say "a", b',
    "two\nlines",
    "é😀\\n",
    "#",
]
AWKWARD += ['x","y",3,4,5,6,"ok"\n"z', "';", "nan", "true", "2020-01-01", "[1]*?.png", "%", "\u2028"]


def make_row(image, quality=None, prompt=None, status="ok", **others):
    return dict.fromkeys(NAMES) | {"image": image, "quality": quality, "prompt": prompt, "status": status} | others


def write(path, rows, names=NAMES):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(rows, path, list(names))
    return path


def read(path):
    """A table's rows as they were given to `write_rows`, in CSV with apostrophes and without telling "" from None."""
    if path.suffix == ".parquet":
        table = pd.read_parquet(path).astype(object)
        return table.where(table.notna(), None).to_dict("records")
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream)) if path.suffix == ".csv" else [json.loads(line) for line in stream]


def mgs(*words):
    return CliRunner().invoke(app, ["filter", *map(str, words)])


def refused(*words):
    """The one line that a command is refused with."""
    error = mgs(*words).exception
    assert isinstance(error, UserError), error
    return str(error)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a table of four images, of which one failed."""
    monkeypatch.chdir(tmp_path)
    failed = make_row("d.png", prompt="fox", status="error: d.png: no such file")
    rows = [make_row(f"{name}.png", 2.0 + i, "fox", correspondence=4.0 - i) for i, name in enumerate("abc")]
    write(tmp_path / "scores.csv", [*rows, failed])
    return tmp_path


def choose(rows, keep, top, per, by):
    """The rows that should be kept, by the words of the documentation."""
    left = [row for row in rows if not row["status"].startswith("error: ") and keep(row)]
    if top is None:
        return left
    valued = [row for row in left if by(row) is not None]
    groups = {}
    for row in valued:
        groups.setdefault(row["prompt"] if per else None, []).append(row)
    best = []
    for group in groups.values():
        number = math.ceil(Fraction(top) * len(group)) if "." in top else int(top)
        best += sorted(group, key=by, reverse=True)[:number]  # stable: ties in the order of the rows
    return [row for row in rows if any(row is one for one in best)]


def total(row):
    return None if None in (row["quality"], row["correspondence"]) else row["quality"] + 2 * row["correspondence"]


def over(value, limit, none=False):
    return none if value is None else value > limit


KEEPS = [
    (None, lambda row: True),
    (
        "quality > 2.5 or correspondence <= 1",
        lambda r: over(r["quality"], 2.5) or not over(r["correspondence"], 1, True),
    ),
    ("PROMPT in ('null', '001') OR prompt IS NULL -- or not", lambda row: row["prompt"] in ("null", "001", None)),
]
BYS = [("quality", lambda row: row["quality"]), ("quality + 2 * correspondence", total)]
SCORES = st.none() | st.sampled_from([0.1 + 0.2, 2.5, 3.0, 1e-300, -1.0]) | st.floats(-10, 10)
ROWS = st.builds(
    lambda image, quality, prompt, status, correspondence: make_row(
        image, quality, prompt or None, status, correspondence=correspondence
    ),
    st.sampled_from(AWKWARD),
    SCORES,
    st.none() | st.sampled_from(AWKWARD) | st.text("\"',\n=+-@ aé\\;#", max_size=6),
    st.sampled_from(["ok", "ok: no prompt", "error: x", "'error: x"]),
    SCORES,
)


@given(
    st.lists(ROWS, min_size=1, max_size=20),
    st.sampled_from(KEEPS),
    st.sampled_from([None, "1", "3", "0.3", "0.07", "0.999"]),
    st.booleans(),
    st.sampled_from(BYS),
    st.sampled_from(SUFFIXES),
    st.sampled_from(SUFFIXES),
)
def test_the_rows_kept_are_those_that_plain_python_keeps_unchanged(
    tmp_path_factory, rows, keep, top, per, by, read_as, written_as
):
    folder = tmp_path_factory.mktemp("filter")
    table, out = write(folder / f"in{read_as}", rows), folder / f"out{written_as}"
    choice = Choice(keep[0], top and parse_top(top), "prompt" if top and per else None, by[0] if top else None)
    wanted = choose(rows, keep[1], top, per, by[1])
    with open_tables([table], out) as tables:
        done = tables.choose(choice)
        assert tables.chosen_images() == [row["image"] for row in wanted]
        tables.write(done.kept)
    write(folder / f"wanted{written_as}", wanted)
    assert read(out) == read(folder / f"wanted{written_as}")
    if written_as != ".parquet":
        assert out.read_bytes() == (folder / f"wanted{written_as}").read_bytes()
    failed = sum(row["status"].startswith("error: ") for row in rows)
    assert (done.read, done.failed, done.kept) == (len(rows), failed, len(wanted))
    for name in ("quality", "correspondence"):
        for spread, of in ((done.before[name], rows), (done.after[name], wanted)):
            values = [row[name] for row in of if row[name] is not None]
            assert spread.count == sum(spread.bins.values()) == len(values)
            assert not values or spread.mean == pytest.approx(sum(values) / len(values), abs=1e-12)
    assert sorted(path.name for path in folder.iterdir()) == sorted({table.name, out.name, f"wanted{written_as}"})


def test_a_share_is_exact_and_its_ties_go_by_the_order_of_rows(here):
    write(here / "t.jsonl", [make_row(str(i), 3.0) for i in range(100)])
    for share, number in {"0.07": 7, "0.29": 29, "0.001": 1, "0.999999999": 100}.items():  # 0.07 * 100 is above 7
        assert mgs("t.jsonl", "--top", share, "--out", "o.jsonl").exit_code == 0
        assert [row["image"] for row in read(here / "o.jsonl")] == [str(i) for i in range(number)]


def test_one_line_says_what_was_kept_and_by_what(here):
    said = mgs("scores.csv", "--top", "2", "--out", "new/kept.csv").stdout
    assert said == (
        "new/kept.csv: 2 of 4 images kept, the best by (quality + correspondence) / 2 (1 with errors left out); "
        "new/kept.html shows what changed\n"
    )
    assert [row["image"] for row in read(here / "new/kept.csv")] == ["a.png", "b.png"]  # all have 3
    said = mgs("scores.csv", "--keep", "quality >= 3 and overall is null", "--out", "kept.csv")
    assert said.stdout == "kept.csv: 2 of 4 images kept (1 with errors left out); kept.html shows what changed\n"
    assert said.stderr == "note: no image has a score for overall, which --keep or --by reads\n"


def test_a_folder_gives_its_finished_parts_in_order_with_the_columns_of_all(here):
    labelled = [*NAMES[:6], "Word", "status"]
    write(here / "job/part-00002.parquet", [make_row("c", 3.0, Word="good")], labelled)
    write(here / "job/part-100000.parquet", [make_row("b", 3.0)])
    write(here / "job/part-00001.parquet", [make_row("a", 3.0, "p")])
    for name in ("job.json", ".part-00003.parquet", ".unfinished.part-00004.parquet", "kept.parquet"):
        (here / "job" / name).write_text("no table")
    write(here / "more.jsonl", [make_row("d", 3.0) | {"seed": "7"}], [*NAMES, "seed"])
    assert mgs("job", "more.jsonl", "--keep", "quality > 1", "--out", "k.csv").exit_code == 0
    rows = read(here / "k.csv")
    assert list(rows[0]) == [*NAMES[:6], "Word", "status", "seed"]
    assert [(row["image"], row["Word"], row["seed"]) for row in rows] == [
        *(("a", "", ""), ("c", "good", ""), ("b", "", "")),
        ("d", "", "7"),
    ]
    assert "is one of the tables" in refused("job", "--top", "1", "--out", "job/part-00011.parquet")
    assert mgs("job", "--keep", "word = 'good'", "--out", "job/best.parquet").exit_code == 0
    assert [row["image"] for row in read(here / "job/best.parquet")] == ["c"]
    (here / "job/job.mgs.json").write_text('{"shards": 4}')
    assert "job: has 3 of 4 parts; finish the job" in refused("job", "--top", "1", "--out", "k2.csv")
    (here / "k2.html").write_text("mine")
    assert "k2.html: is there already" in refused("more.jsonl", "--top", "1", "--out", "k2.csv")


def test_lines_of_images_that_failed_may_have_fewer_keys(here):
    failed = {"image": "a", "quality": None, "status": "error: x"}
    lines = [failed, {"image": "b", "quality": 3.0, "word": "good", "status": "ok"}]
    (here / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert mgs("t.jsonl", "--keep", "word = 'good'", "--out", "k.csv").exit_code == 0
    assert (here / "k.csv").read_text() == '"image","quality","word","status"\n"b",3.0,"good","ok"\n'


def test_a_path_is_never_read_as_a_pattern_or_as_columns(here):
    write(here / "a1.csv", [make_row("decoy", 3.0)])
    for name in ("a[1].csv", "it's*?.parquet", "quality=1/status=x/t.parquet", "quality=1/t.csv"):
        write(here / name, [make_row("real", 3.0)])
        assert mgs(name, "--keep", "quality > 2 and status = 'ok'", "--out", "k.jsonl").exit_code == 0
        assert [row["image"] for row in read(here / "k.jsonl")] == ["real"]


def test_what_is_no_number_is_no_score(here):
    frame = pd.DataFrame({"image": ["a", "b"], "quality": [math.nan, 4.0], "status": ["ok", "ok"]})
    frame["quality"] = frame["quality"].astype("float32")
    frame.to_parquet("t.parquet")
    (here / "t.csv").write_text("image,quality,status\r\na,nan,ok\r\nb,4,ok\r\n", encoding="utf-8-sig", newline="")
    for name in ("t.parquet", "t.csv"):
        assert mgs(name, "--keep", "quality > 3 or quality < 3", "--out", "k.jsonl").exit_code == 0
        assert read(here / "k.jsonl") == [{"image": "b", "quality": 4.0, "status": "ok"}]
        done = mgs(
            name, "--top", "2", "--by", "case image when 'a' then cast('nan' as double) else 1 end", "--out", "k.csv"
        )
        assert done.stdout.startswith("k.csv: 1 of 2 images kept (1 with nothing to order them by left out)")


@pytest.mark.parametrize("option", ["--keep", "--by"])
def test_nothing_but_one_expression_over_the_columns_is_executed(here, option):
    hostile = [
        *(
            "1=1; drop table x",
            "1=1; copy scores to 'stolen.csv'",
            "true from scores; ",
            "quality > 3 union select true",
        ),
        *("(select count(*) from read_csv('/etc/passwd')) > 0", "image in (select 1)", "exists(from 'scores.csv')"),
        *("getenv('HOME') = ''", "current_setting('threads') > 0", "quality > all(select 1)", "read_text('x') = ''"),
        *("a) or (b", "true) or (true", "quality > 3 as x", "quality > 3, true", "distinct quality > 3", "/* quality"),
        *("count(*) > 1", "row_number() over () > 1", "list_filter([1], x -> x > 1)[1] > 0", "columns(*) > 3", "* > 3"),
        *(
            "quality > $1",
            "quality > ?",
            "#1 > 1",
            "current_date > image",
            "random() > 0.5",
            '"mgs row" > 1',
            "rowid > 1",
        ),
        *("scores.quality > 3", "image.x > 3", "quality >", "", "default", "__import__('os').remove('scores.csv')"),
        *("(" * 5000 + "1" + ")" * 5000, "1+" * 900 + "1 > 0", "error('x')", "nextval('x') > 1", "query('x') > 1"),
    ]
    before = sorted(here.iterdir())
    for text in hostile if option == "--keep" else hostile[::7]:
        words = [option, text, *([] if option == "--keep" else ["--top", "1"])]
        said = refused("scores.csv", *words, "--out", "kept.csv")
        assert said.startswith(f"{option} {text[:20]}"), text
        assert "\n" not in said
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], r"give --keep, --top or both"),
        (["--keep", "qualty > 3"], r"no column qualty; there are image, prompt, quality, .*, status"),
        (["--keep", 'prompt = "fox"'], r"no column fox; .*; texts stand in single quotes"),
        (["--keep", "quality > 3 and"], r"syntax error at its end; .*; the columns are image, prompt"),
        *((["--keep", text], r"is more than one expression") for text in ("distinct quality > 3", "quality > 3 as x")),
        (["--keep", "quality"], r"gives DOUBLE; write a condition"),
        (["--keep", "cast(prompt as int) > 3"], r"--keep cast\(prompt as int\) > 3: Could not convert string 'fox'"),
        (["--top", "1", "--by", "prompt"], r"gives VARCHAR; write a number"),
        (["--top", "1", "--per", "seed"], r"--per seed: no such column; there are image"),
        *(
            (["--top", top], r"neither a share .* nor a number")
            for top in ("0", "1.0", "-1", "x", "nan", "1e-10", "1/3")
        ),
        (["--keep", "true", "--per", "prompt"], r"--per: says how --top chooses"),
        (["--keep", "true", "--images", "x"], r"--images: says where --copy finds"),
        (["--keep", "true", "--out", "scores.csv"], r"is one of the tables to filter"),
        (["--keep", "true", "--out", "kept.txt"], r"no such kind of output"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(here, words, said):
    table = (here / "scores.csv").read_bytes()
    assert re.search(said, refused("scores.csv", "--out", "kept.csv", *words))
    assert [path.name for path in here.iterdir()] == ["scores.csv"]
    assert (here / "scores.csv").read_bytes() == table


HEADER = "image,prompt,quality,status\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", f'{HEADER}a,b,3,ok\n"c","cut off', r"t\.csv: a quotation mark is missing"),
        ("t.csv", f"{HEADER}a,b,3\n", r"t\.csv: CSV Error on Line: 2 .* Expected Number of Columns: 4 Found: 3"),
        ("t.csv", f'{HEADER}a,b,"3,5",ok\n', r"t\.csv: CSV Error on Line: 2 .* Could not convert string \"3,5\""),
        ("t.csv", HEADER.replace("prompt", "image"), r"t\.csv: a column is there twice, in image, image"),
        ("t.csv", HEADER.replace("prompt", "Image"), r"t\.csv: a column is there twice, in image, Image"),
        ("t.csv", "image,prompt,status\n", r"t\.csv: found columns image, prompt, status; .* at least one of quality"),
        ("t.csv", "", r"t\.csv: found columns ; a table of scores has"),
        ("t.csv", HEADER + "caf\xe9,b,3,ok\n", r"t\.csv: .*; give a CSV .* in UTF-8"),
        (
            "t.jsonl",
            '{"image": "a", "quality": 1, "status": "ok"}\n{"image": "b"',
            r"Malformed JSON in file .*t\.jsonl",
        ),
        ("t.jsonl", '{"image": "a\\udc80", "quality": 1, "status": "ok"}\n', r"t\.jsonl: .* invalid high surrogate"),
        ("t.parquet", "no Parquet", r"t\.parquet.*(No magic bytes|too small)"),
        ("t.xlsx", "", r"t\.xlsx: no table of scores; name a folder, or files that end in \.csv"),
        ("part-1.parquet/x", "", r"no part-\*\.parquet in this folder"),
    ],
)
def test_a_file_that_is_no_whole_table_of_scores_is_refused(here, name, content, said):
    (here / name).parent.mkdir(exist_ok=True)
    (here / name).write_bytes(content.encode("latin1"))
    assert re.search(said, refused(name.partition("/")[0], "--keep", "true", "--out", "kept.csv"))
    assert not (here / "kept.csv").exists()


def test_the_same_file_named_twice_and_a_missing_one_are_refused(here):
    assert "named 2 times" in refused("scores.csv", "./scores.csv", "--keep", "true", "--out", "k.csv")
    assert "no such file" in refused("gone.csv", "--keep", "true", "--out", "k.csv")


def make_images(folder, *names):
    """Images that differ."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / name)


def test_kept_images_are_copied_under_names_that_tell_them_apart(here):
    names = ["a/x.png", "b/x.png", "c/a/x.png", "=1.png", "001", "y.PNG", "d/Y.png"]
    make_images(here / "own", *(name for name in names if name != "001"))
    (here / "own/001").write_bytes((here / "own/y.PNG").read_bytes())
    write(here / "t.csv", [make_row(name, 3.0) for name in [*names, "a/../a/x.png", str(here / "own/y.PNG")]])
    done = mgs("t.csv", "--keep", "true", "--out", "k.csv", "--copy", "good", "--images", "own")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.endswith("\ngood: 7 images copied\n")
    copied = {str(path.relative_to(here / "good")): path for path in (here / "good").rglob("*") if path.is_file()}
    wanted = {"own/a/x.png", "b/x.png", "c/a/x.png", "=1.png", "001", "own/y.PNG", "d/Y.png"}
    assert copied.keys() == wanted
    for name, path in copied.items():
        assert path.read_bytes() == (here / "own" / name.removeprefix("own/")).read_bytes()


def test_what_cannot_be_copied_is_counted(here):
    make_images(here, "a.png")
    (here / "key.png").write_text("-----BEGIN PRIVATE KEY-----")
    names = [
        "a.png",
        "gone.png",
        "s/shard-1.tar/7.jpg",
        "s.tar.gz:8.jpg",
        "data.parquet#9",
        "s.zip/1.png",
        "https://a.b/c.png",
        "key.png",
        "",
    ]
    write(here / "t.jsonl", [make_row(name, 3.0) for name in names])
    done = mgs("t.jsonl", "--keep", "true", "--out", "k.csv", "--copy", "good")
    assert done.exit_code == 1
    assert done.stdout.endswith("\ngood: 1 image copied\n")
    assert done.stderr.splitlines() == [
        "good: not copied, since missing: 2, such as gone.png, ; --images says where relative paths begin",
        "good: not copied, since inside archives or tables, or at URLs: 5, such as s/shard-1.tar/7.jpg, "
        "s.tar.gz:8.jpg, data.parquet#9; unpack or download them",
        f"good: not copied, since not readable as images: 1, such as {here / 'key.png'}; look at the files",
    ]
    assert [path.name for path in (here / "good").iterdir()] == ["a.png"]


def test_a_file_with_other_content_is_never_overwritten(here):
    make_images(here, "a.png", "b.png")
    write(here / "t.csv", [make_row(name, 3.0) for name in ("a.png", "b.png")])
    words = ["t.csv", "--keep", "true", "--out", "k.csv", "--copy", "good"]
    (here / "good").mkdir()
    (here / "good/b.png").write_text("mine")
    assert refused(*words).startswith("--copy good: other content is there under 1 of the images' names, such as b.png")
    assert [path.name for path in (here / "good").iterdir()] == ["b.png"]
    assert not (here / "k.csv").exists()
    (here / "good/b.png").unlink()
    assert [mgs(*words).exit_code for _ in range(2)] == [0, 0]  # the second finds the same files there


@given(st.lists(st.tuples(*[st.sampled_from(["a", "b", "A"])] * 3).map("/".join), unique=True, max_size=8))
def test_short_names_are_unique(paths):
    ends = shortest_ends([Path("/", path) for path in paths])
    assert len(set(ends.values())) == len(paths)
    for path, end in ends.items():
        assert str(path).endswith(f"/{end}")
        if len(end.parts) > 1:  # no shorter name would do
            shorter = str(Path(*end.parts[1:])).casefold()
            assert sum(str(other).casefold().endswith(f"/{shorter}") for other in ends) > 1


def test_the_page_shows_the_numbers_and_runs_nothing(here):
    text = "prompt <> '<script>alert(1)</script>' and quality > 2"
    assert mgs("scores.csv", "--keep", text, "--out", "kept.csv").exit_code == 0
    page = (here / "kept.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"<script|https?://|src=|@import|url\(", page)
    assert "Mean 3.000 before, 3.500 after." in page
    assert [name for name in ("quality", "authenticity", "correspondence", "overall") if f'id="{name}"' in page] == [
        *("quality", "correspondence"),
    ]
    for what, count in {"rows read": 4, "with an error, left out": 1, "that fulfil --keep": 2, "kept": 2}.items():
        assert f'<th scope="row">{what}</th><td class="figure">{count}</td>' in page
    assert page.count("<rect") == 3 + 2 + 3 + 2
    assert mgs("scores.csv", "--keep", "quality > 9", "--out", "kept.csv").exit_code == 0
    assert "Mean 3.000 before, none after." in (here / "kept.html").read_text(encoding="utf-8")


def test_a_score_at_the_edge_of_a_bar_is_in_the_upper_one(here):
    table = write(here / "t.parquet", [make_row("x", i / 100) for i in range(-50, 550)])
    with open_tables([table], here / "k.csv") as tables:
        assert tables.choose(Choice("true")).before["quality"].bins == dict.fromkeys(range(-50, 550), 1)


@given(st.dictionaries(st.integers(-10_000, 10_000), st.integers(1, 9), min_size=1, max_size=9))
def test_bars_hold_every_score_once(bins):
    before = Spread(sum(bins.values()), 0.0, bins)
    bars = make_bars(before, Spread(0, None, {}))
    assert sum(bar.before for bar in bars) == before.count
    assert len(bars) <= 31
    assert all(round(bar.low * 100) % round((bar.high - bar.low) * 100) == 0 for bar in bars)
    for number, count in bins.items():
        (bar,) = (bar for bar in bars if round(bar.low * 100) <= number < round(bar.high * 100))
        assert bar.before >= count


def test_without_duckdb_the_remedy_is_named(here, monkeypatch):
    monkeypatch.setattr("mgs.cli.filter.importlib.util.find_spec", lambda name: None)
    assert refused("scores.csv", "--keep", "true", "--out", "k.csv") == "filter: needs duckdb; run pip install duckdb"
