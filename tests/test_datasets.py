"""Reading tables: real published splits against an independent reading, and what each mistake in a table says."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from mgs.config import DataConfig
from mgs.datasets.facts import DATASETS
from mgs.datasets.read_table import read_table
from mgs.errors import UserError
from mgs.sources.tables import TableOptions, TableReader

SHARED = Path(__file__).parents[2] / "shared"
SPLITS = SHARED / "published_splits"
PIC_INDEX = SHARED / "official" / "AIGCIQA2023_pic-index.xlsx"
needs_shared = pytest.mark.skipif(not SPLITS.is_dir(), reason=f"the published splits are not at {SPLITS}")

# written out here again, so that a swap in the table of facts is seen
MOS_COLUMNS = {
    "AGIQA-1K": {"MOS": "overall"},
    "AGIQA-3K": {"mos_quality": "quality", "mos_align": "correspondence"},
    "AIGCIQA2023": {"mosz1": "quality", "mosz2": "authenticity", "mosz3": "correspondence"},
}
PROMPT_STYLES = {"AGIQA-1K": "keywords", "AGIQA-3K": "hybrid", "AIGCIQA2023": "sentence"}


def raw_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def raw_name(dataset: str, row: dict[str, str]) -> str:
    if dataset == "AIGCIQA2023":
        return f"{row['model']}/{row['image_name']}"
    return row["Image" if dataset == "AGIQA-1K" else "name"]


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A root per dataset and layout, with empty files for images; AGIQA-3K's real one."""
    folder = tmp_path_factory.mktemp("roots")
    names = {
        dataset: {raw_name(dataset, row) for path in (SPLITS / dataset / "1").glob("*.csv") for row in raw_rows(path)}
        for dataset in ("AGIQA-1K", "AIGCIQA2023")
    }
    for name in names["AGIQA-1K"]:
        touch(folder / "1k" / "file" / name)
        touch(folder / "1k-flat" / name)
    for name in names["AIGCIQA2023"]:
        touch(folder / "2023" / "Image" / name)
        touch(folder / "2023-flat" / name)
    for number in range(2400):
        touch(folder / "2023-numbered" / "Image" / "allimg" / f"{number}.png")
    (folder / "2023-numbered" / "DATA").mkdir()
    (folder / "2023-numbered" / "DATA" / "pic-index.xlsx").symlink_to(PIC_INDEX)
    return {path.name: path for path in folder.iterdir()} | {"3k": SHARED / "agiqa3k"}


@needs_shared
@pytest.mark.parametrize(
    ("dataset", "layout"),
    [
        ("AGIQA-1K", "1k"),
        ("AGIQA-1K", "1k-flat"),
        ("AGIQA-3K", "3k"),
        ("AIGCIQA2023", "2023"),
        ("AIGCIQA2023", "2023-flat"),
        ("AIGCIQA2023", "2023-numbered"),
    ],
)
def test_every_published_row_is_read_with_its_mos_on_its_dimension(
    roots: dict[str, Path], dataset: str, layout: str
) -> None:
    tables = sorted((SPLITS / dataset).glob("*/*.csv"))
    assert len(tables) == 9
    index = openpyxl.load_workbook(PIC_INDEX).active.iter_rows(values_only=True)
    numbers = {f"{model}/{file}": number for number, (model, file) in enumerate(index)}
    for table in tables:
        samples = read_table(table, DataConfig(dataset=dataset, root=str(roots[layout])))
        rows = raw_rows(table)
        assert len(samples) == len(rows)
        for sample, row in zip(samples, rows, strict=True):
            assert sample.name == raw_name(dataset, row)
            assert sample.prompt == row["Prompt" if dataset == "AGIQA-1K" else "prompt"]
            assert sample.targets == {d: float(row[column]) for column, d in MOS_COLUMNS[dataset].items()}
            assert sample.prompt_style == PROMPT_STYLES[dataset]
            file = f"{numbers[sample.name]}.png" if layout == "2023-numbered" else sample.name.rpartition("/")[2]
            assert sample.image.name == file
        assert all(sample.image.is_file() for sample in samples)


@needs_shared
def test_numbered_images_without_their_index_are_an_error_that_names_the_index(tmp_path: Path) -> None:
    touch(tmp_path / "Image" / "allimg" / "0.png")
    data = DataConfig(dataset="AIGCIQA2023", root=str(tmp_path))
    with pytest.raises(UserError, match=r"allimg: numbered images need .*pic-index\.xlsx into .*data/README\.md"):
        read_table(SPLITS / "AIGCIQA2023" / "1" / "val.csv", data)


def read_own(folder: Path, text: str | bytes, **options: Any) -> list[Any]:
    """A table of one's own, beside images a.png and b/c.png."""
    touch(folder / "a.png")
    touch(folder / "b" / "c.png")
    table = folder / "table.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(table, dataclasses.replace(DataConfig(dataset="custom"), **options))


@pytest.mark.parametrize(
    "prompt", ["None", "null", "NA", "nan", "N/A", "", " padded ", '"quoted"', "12", "=1+1", "ü, ö"]
)
def test_prompts_stay_the_text_that_they_are(tmp_path: Path, prompt: str) -> None:
    text = prompt.replace('"', '""')
    (sample,) = read_own(tmp_path, f'image,prompt,quality\na.png,"{text}",2\n')
    assert sample.prompt == prompt


def test_own_table_may_have_a_byte_order_mark_windows_lines_and_columns_of_its_own(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfnote,image,prompt,overall,quality\r\nx,b\\c.png,a dog,4.5,1e0\r\n\r\n"
    (sample,) = read_own(tmp_path, text)
    assert sample.name == "b/c.png"
    assert sample.image == tmp_path / "b" / "c.png"
    assert sample.targets == {"quality": 1.0, "overall": 4.5}
    assert sample.prompt_style == "sentence"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "text",
    [
        "image;prompt;quality\ra.png;a cat, asleep;3,4\r",
        "\nIMAGE\tPrompt\tQuality \r\na.png\ta cat, asleep\t3,4\r\n",
        'Image,"PROMPT;;;",prompt,quality\na.png,,"a cat, asleep","3,4"\n',
    ],
)
def test_tables_as_excel_writes_them_are_read_alike_in_training_and_scoring(
    tmp_path: Path, text: str, encoding: str
) -> None:
    (sample,) = read_own(tmp_path, text.encode(encoding))
    assert (sample.prompt, sample.targets) == ("a cat, asleep", {"quality": 3.4})
    (item,) = TableReader(str(tmp_path / "table.csv"), TableOptions())
    assert (Path(item.place), item.prompt) == (sample.image, sample.prompt)


def test_a_comma_that_may_part_thousands_is_no_decimal_mark(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"quality is '3,400'; write a number from 0 to 5000"):
        read_own(tmp_path, 'image,prompt,quality\na.png,x,"3,400"\n', mos_range=[0.0, 5000.0])


def test_prompt_style_comes_from_the_config_else_the_row_else_the_dataset(tmp_path: Path) -> None:
    text = "image,prompt,quality,prompt_style\na.png,x,1,keywords\nb/c.png,y,2,\n"
    assert [s.prompt_style for s in read_own(tmp_path, text)] == ["keywords", "sentence"]
    assert [s.prompt_style for s in read_own(tmp_path, text, prompt_style="hybrid")] == ["hybrid", "hybrid"]


def test_mos_range_is_mapped_linearly_and_the_usual_scale_is_left_to_the_last_digit(tmp_path: Path) -> None:
    text = "image,prompt,quality\na.png,x,1\na.png,x,3\na.png,x,5\n"
    assert [s.targets["quality"] for s in read_own(tmp_path, text, mos_range=[1.0, 5.0])] == [0.0, 2.5, 5.0]
    assert [s.targets["quality"] for s in read_own(tmp_path, text, mos_range=[5.0, 1.0])] == [5.0, 2.5, 0.0]
    (sample,) = read_own(tmp_path, "image,prompt,quality\na.png,x,2.7934105045636524\n")
    assert sample.targets["quality"] == 2.7934105045636524


def test_public_dataset_is_read_from_the_projects_own_columns_too(tmp_path: Path) -> None:
    text = "image,prompt,correspondence,quality,style\na.png,x,1,2,anime\n"
    (sample,) = read_own(tmp_path, text, dataset="AGIQA-3K", root=str(tmp_path))
    assert sample.targets == {"quality": 2.0, "correspondence": 1.0}
    assert sample.prompt_style == "hybrid"


def test_spreadsheet_is_read_like_a_csv(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    book = openpyxl.Workbook()
    for row in (["image", "prompt", "quality", None], ["a.png", 1984, 2.5, None], [None, None, None, None]):
        book.active.append(row)
    book.save(tmp_path / "table.xlsx")
    (sample,) = read_table(tmp_path / "table.xlsx", DataConfig(dataset="custom"))
    assert (sample.prompt, sample.targets) == ("1984", {"quality": 2.5})


GOOD = "image,prompt,quality\na.png,x,1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"table\.csv: empty; .*README"),
        ("\n\n", r"table\.csv: empty; .*README"),
        ("image,prompt,quality\n", r"table\.csv:1: no rows below the header; .*README"),
        ("image,text,quality\na.png,x,1\n", r"table\.csv:1: no column 'prompt'; found image, text, quality; .*README"),
        ("image|prompt|quality\na.png|x|1\n", r"table\.csv:1: no column 'image'; found .*separate columns with commas"),
        ("image,prompt,prompt,quality\na.png,x,x,1\n", r"table\.csv:1: more than one column 'prompt'; found"),
        ("image,prompt\na.png,x\n", r"table\.csv:1: no column with MOS, such as 'quality', .*README"),
        (GOOD + "a.png,x,good\n", r"table\.csv:3: quality is 'good'; write a number from 0 to 5"),
        (GOOD + "a.png,x,\n", r"table\.csv:3: no MOS; write quality, or delete the row"),
        ("image,prompt,quality,overall\na.png,x,1,\n", r"table\.csv: no row has MOS in the column 'overall'; fill"),
        ("image,prompt,MOS\na.png,x,1\n", r"table\.csv:1: no column with MOS, .*rename 'mos' to the one that it"),
        ("image,prompt,DMOS\na.png,x,1\n", r"rename 'dmos' .*lower is better, set data\.mos_range=\[worst,best\]"),
        (GOOD + "a.png,x,nan\n", r"table\.csv:3: quality is 'nan'; write a number"),
        (GOOD + "a.png,x,-inf\n", r"table\.csv:3: quality is '-inf'; write a number"),
        (GOOD + "a.png,x,5.01\n", r"table\.csv:3: quality is 5\.01, outside 0 to 5; .*data\.mos_range"),
        (GOOD + "a.png,x,-0.1\n", r"table\.csv:3: quality is -0\.1, outside 0 to 5; .*data\.mos_range"),
        (GOOD + " ,x,1\n", r"table\.csv:3: blank image; name the image"),
        (GOOD + "a.png,x\n", r"table\.csv:3: 2 fields where the header has 3; put .*quotation marks"),
        (GOOD + "a.png,cat, dog,1\n", r"table\.csv:3: 4 fields where the header has 3; put .*quotation marks"),
        (GOOD + 'a.png,"x,1\n', r"table\.csv:3: .*check the row's quotation marks"),
        (GOOD.encode() + b"a.png,caf\xe9,1\n", r"table\.csv:3: not UTF-8 text; save it as .CSV UTF-8"),
        (GOOD.encode("utf-16") + b"a", r"table\.csv:\d: not UTF-8 text; save"),
        (GOOD + "z.png,x,1\n", r"table\.csv:3: no image z\.png under .*set data\.root .*README"),
        ('image,prompt,quality\n\na.png,"two\nlines",1\na.png,x,9\n', r"table\.csv:5: quality is 9"),
        ("image,prompt,overall\na.png, ,1\n", r"table\.csv:2: overall is judged against the prompt, .*fill it in"),
        (
            "image,prompt,quality,prompt_style\na.png,x,1,poem\n",
            r"table\.csv:2: prompt_style is 'poem'; write keywords",
        ),
    ],
)
def test_mistake_in_a_table_names_file_row_and_remedy_on_one_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_own(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_missing_images_are_counted_and_the_first_few_named(tmp_path: Path) -> None:
    text = "image,prompt,quality\na.png,x,1\n" + "".join(f"z{i}.png,x,1\n" for i in range(44))
    with pytest.raises(UserError, match=r"table\.csv:3: no image z0\.png, z1\.png, z2\.png \(and 41 more\) .*README"):
        read_own(tmp_path, text)


def test_a_mos_may_be_missing_in_a_table_of_ones_own_alone(tmp_path: Path) -> None:
    samples = read_own(tmp_path, "image,prompt,quality,overall\na.png,x,1,\na.png,,2,\na.png,x,,3\n")
    assert [s.targets for s in samples] == [{"quality": 1.0}, {"quality": 2.0}, {"overall": 3.0}]
    text = "name,prompt,mos_quality,mos_align\na.png,x,1,\n"
    with pytest.raises(UserError, match=r"table\.csv:2: mos_align is ''; write a number"):
        read_own(tmp_path, text, dataset="AGIQA-3K", root=str(tmp_path))


def test_public_mos_outside_the_scale_and_a_scale_for_a_public_set_are_errors(tmp_path: Path) -> None:
    text = "name,prompt,mos_quality,mos_align\na.png,x,1,5.5\n"
    with pytest.raises(UserError, match=r"table\.csv:2: mos_align is 5\.5, outside 0 to 5"):
        read_own(tmp_path, text, dataset="AGIQA-3K", root=str(tmp_path))
    with pytest.raises(UserError, match=r"data\.mos_range: AGIQA-3K is on 0-5 already"):
        read_own(tmp_path, text, dataset="AGIQA-3K", root=str(tmp_path), mos_range=[0.0, 100.0])


def test_missing_table_and_unknown_dataset_are_errors_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.csv: no such file; see data/README\.md"):
        read_table(tmp_path / "absent.csv", DataConfig(dataset="custom"))
    with pytest.raises(UserError, match=r"data\.dataset=AGIQA-4K: no such dataset; known are AGIQA-1K, AGIQA-3K"):
        read_own(tmp_path, GOOD, dataset="AGIQA-4K")
    (tmp_path / "table.xlsx").write_bytes(b"no spreadsheet")
    with pytest.raises(UserError, match=r"table\.xlsx: not a readable \.xlsx file .*again"):
        read_table(tmp_path / "table.xlsx", DataConfig(dataset="custom"))


def test_table_of_facts_has_every_dataset_with_its_default_folder() -> None:
    assert list(DATASETS) == ["AGIQA-1K", "AGIQA-3K", "AIGCIQA2023", "AIGIQA-20K", "demo", "custom"]
    assert {name: facts.root for name, facts in DATASETS.items() if facts.root} == {
        name: f"data/{name}" for name in ("AGIQA-1K", "AGIQA-3K", "AIGCIQA2023", "AIGIQA-20K", "demo")
    }
