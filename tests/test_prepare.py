"""Official downloads to one table and ten folds: real tables, and .mat files as MATLAB writes them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from scipy.io import savemat

from mgs.config import DataConfig
from mgs.datasets import write_folds as splits
from mgs.datasets.facts import DATASETS
from mgs.datasets.folds import find_folds
from mgs.datasets.prepare import prepare, read_official
from mgs.datasets.read_table import read_table
from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError

SHARED = Path(__file__).parents[2] / "shared"
OFFICIAL = SHARED / "official"
pytestmark = pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"the official tables are not at {OFFICIAL}")
AIGCIQA2023_MOS = ("mosz1", "mosz2", "mosz3")


def published_2023() -> dict[tuple[str, str], dict[str, str]]:
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for path in (SHARED / "published_splits" / "AIGCIQA2023" / "1").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            rows |= {(row["model"], row["image_name"]): row for row in csv.DictReader(stream)}
    return rows


@pytest.fixture
def agiqa1k(tmp_path: Path) -> Path:
    root = tmp_path / "AGIQA-1K"
    (root / "file").mkdir(parents=True)
    (root / "AIGC_MOS_Zscore.xlsx").symlink_to(OFFICIAL / "AGIQA-1K_AIGC_MOS_Zscore.xlsx")
    for name, *_ in openpyxl.load_workbook(root / "AIGC_MOS_Zscore.xlsx").active.iter_rows(min_row=2, values_only=True):
        (root / "file" / name).touch()
    return root


@pytest.fixture
def agiqa3k(tmp_path: Path) -> Path:
    root = tmp_path / "AGIQA-3K"
    root.mkdir()
    for name in ("data.csv", "images"):
        (root / name).symlink_to(SHARED / "agiqa3k" / name)
    return root


@pytest.fixture(params=["numbered", "by model"])
def aigciqa2023(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    root = tmp_path / "AIGCIQA2023"
    (root / "DATA" / "MOS").mkdir(parents=True)
    (root / "DATA" / "pic-index.xlsx").symlink_to(OFFICIAL / "AIGCIQA2023_pic-index.xlsx")
    (root / "AIGCIQA2023_Prompts.xlsx").symlink_to(OFFICIAL / "AIGCIQA2023_Prompts.xlsx")
    index = list(openpyxl.load_workbook(root / "DATA" / "pic-index.xlsx").active.iter_rows(values_only=True))
    rows = published_2023()
    for name in AIGCIQA2023_MOS:
        column = np.array([[20 * float(rows[key][name])] for key in index])  # (2400, 1), 0-100
        savemat(root / "DATA" / "MOS" / f"{name}.mat", {"MOSz": column})
    for number, (model, file) in enumerate(index):
        path = root / "Image" / (f"allimg/{number}.png" if request.param == "numbered" else f"{model}/{file}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_agiqa1k_keeps_both_rows_of_the_image_that_is_listed_twice(agiqa1k: Path) -> None:
    samples = read_official("AGIQA-1K", agiqa1k)
    assert len(samples) == 1080
    assert samples[0].name == "deepai_0_0_0_0.jpg"
    assert samples[0].prompt == "bird, driving aircraft, city, anime style"
    assert samples[0].targets == {"overall": 2.7934105045636524}
    twice = [s.targets["overall"] for s in samples if s.name == "dreamStudio_8_9_1_1.jpg"]
    assert twice == [0.4414155439958131, 2.084115711537598]
    folder = prepare("AGIQA-1K", agiqa1k, protocol="random-image")
    data = DataConfig(dataset="AGIQA-1K", root=str(agiqa1k), protocol="random-image")
    for fold in find_folds(data):
        holders = [
            part for part in (fold.train, fold.val, fold.test) if any(s.name == "dreamStudio_8_9_1_1.jpg" for s in part)
        ]
        assert len(holders) == 1
    assert folder == agiqa1k / "splits" / "random-image"


def test_aigciqa2023_is_assembled_as_its_published_splits_have_it(aigciqa2023: Path) -> None:
    samples = read_official("AIGCIQA2023", aigciqa2023)
    rows = published_2023()
    assert len(samples) == len(rows) == 2400
    for sample in samples:
        row = rows[tuple(sample.name.split("/"))]  # type: ignore[index]
        assert f'"{sample.prompt}"' == row["prompt"]
        assert list(sample.targets.values()) == pytest.approx([float(row[name]) for name in AIGCIQA2023_MOS], rel=1e-14)
        assert tuple(sample.targets) == ("quality", "authenticity", "correspondence")
        assert sample.image.is_file()


def test_prepared_agiqa3k_reads_back_exactly_with_disjoint_prompts(agiqa3k: Path) -> None:
    folder = prepare("AGIQA-3K", agiqa3k, protocol="prompt-disjoint", seed=42)
    data = DataConfig(dataset="AGIQA-3K", root=str(agiqa3k), protocol="prompt-disjoint")
    samples = read_table(agiqa3k / "table.csv", data)
    assert samples == read_table(agiqa3k / "data.csv", data)
    assert [path.name for path in sorted(folder.glob("*/"))] == sorted(map(str, range(1, 11)))
    for fold in find_folds(data, [1, 10]):
        assert fold.protocol == "prompt-disjoint"
        parts = (fold.train, fold.val, fold.test)
        assert [len(part) / 2982 for part in parts] == pytest.approx([0.7, 0.1, 0.2], abs=0.01)
        assert len(set.union(*({s.prompt for s in part} for part in parts))) == 300
        assert sum(len({s.prompt for s in part}) for part in parts) == 300
    first = (folder / "protocol.json").read_bytes()
    changed = (folder / "protocol.json").stat().st_ino
    prepare("AGIQA-3K", agiqa3k, protocol="prompt-disjoint", seed=42)
    assert (folder / "protocol.json").stat().st_ino == changed  # the same result is left alone
    prepare("AGIQA-3K", agiqa3k, protocol="prompt-disjoint", seed=43)
    assert (folder / "protocol.json").read_bytes() != first
    assert {path.name for path in agiqa3k.iterdir()} == {"data.csv", "images", "table.csv", "splits"}
    assert [path.name for path in (agiqa3k / "splits").iterdir()] == ["prompt-disjoint"]


def test_interrupted_preparation_leaves_what_was_there(agiqa3k: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare("AGIQA-3K", agiqa3k, protocol="prompt-disjoint", seed=42)
    before = splits.contents(folder)
    monkeypatch.setattr(splits, "write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); check the folder"):
        prepare("AGIQA-3K", agiqa3k, protocol="prompt-disjoint", seed=43)
    assert splits.contents(folder) == before
    assert [path.name for path in (agiqa3k / "splits").iterdir()] == ["prompt-disjoint"]


@pytest.mark.parametrize("aigciqa2023", ["numbered"], indirect=True)
def test_damaged_official_files_are_errors_that_name_them(aigciqa2023: Path) -> None:
    mat = aigciqa2023 / "DATA" / "MOS" / "mosz2.mat"
    values = np.full((2400, 1), 50.0)
    for content, message in (
        ({"MOS": values}, r"mosz2\.mat: no variable MOSz; found MOS; download it again"),
        ({"MOSz": values[:2399]}, r"mosz2\.mat: 2399 values for 2400 images; download it again"),
        (
            {"MOSz": np.where(np.arange(2400)[:, None] == 7, np.nan, values)},
            r"mosz2\.mat: value 8 is nan, outside 0 to 100",
        ),
        ({"MOSz": values + 51}, r"mosz2\.mat: value 1 is 101\.0, outside 0 to 100"),
    ):
        savemat(mat, content)
        with pytest.raises(UserError, match=message):
            read_official("AIGCIQA2023", aigciqa2023)
    mat.write_bytes(b"no mat file")
    with pytest.raises(UserError, match=r"mosz2\.mat: not a readable \.mat file .*; download it again"):
        read_official("AIGCIQA2023", aigciqa2023)
    mat.unlink()
    with pytest.raises(UserError, match=r"AIGCIQA2023: no mosz2\.mat .*download it from https://.*README"):
        read_official("AIGCIQA2023", aigciqa2023)


def test_what_cannot_be_prepared_is_an_error_with_a_remedy(agiqa1k: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no data\.csv of AGIQA-3K there; download it from https://.*README"):
        prepare("AGIQA-3K", tmp_path / "nowhere", protocol="random-image")
    with pytest.raises(UserError, match=r"--protocol published: .*choose prompt-disjoint or random-image, or name"):
        prepare("AGIQA-1K", agiqa1k, protocol="published")
    with pytest.raises(UserError, match=r"dataset custom: no official download to prepare; there is one for AGIQA-1K"):
        prepare("custom", agiqa1k, protocol="random-image")
    (agiqa1k / "file" / "deepai_0_0_0_1.jpg").unlink()
    with pytest.raises(UserError, match=r"AIGC_MOS_Zscore\.xlsx:3: no image deepai_0_0_0_1\.jpg under .*README"):
        prepare("AGIQA-1K", agiqa1k, protocol="random-image")
    assert not (agiqa1k / "table.csv").exists()


def test_official_table_that_lacks_rows_is_an_error(tmp_path: Path) -> None:
    lines = (SHARED / "agiqa3k" / "data.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "data.csv").write_text("\n".join(lines[:100]), encoding="utf-8")
    (tmp_path / "images").symlink_to(SHARED / "agiqa3k" / "images")
    with pytest.raises(UserError, match=r"data\.csv: 99 rows where AGIQA-3K has 2982; download it again; https"):
        read_official("AGIQA-3K", tmp_path)


def test_dimensions_of_every_dataset_stand_in_the_usual_order() -> None:
    for facts in DATASETS.values():
        assert list(facts.dimensions) == [d for d in DIMENSIONS if d in facts.dimensions]
        if facts.published:
            assert tuple(facts.published.targets) == facts.dimensions
