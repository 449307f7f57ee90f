"""AIGIQA-20K from its official table, which has no header, to folds and a model."""

import dataclasses
import shutil

import pytest

from mgs.config import DataConfig
from mgs.config_files import load_runs
from mgs.datasets.audit import audit_dataset
from mgs.datasets.facts import DATASETS, find_generator
from mgs.datasets.folds import find_folds
from mgs.datasets.prepare import prepare, read_official
from mgs.datasets.read_table import read_table
from mgs.errors import UserError
from mgs.recipes import train as training

ROWS = [
    ("DALLE2_0_3.png", '"a cat, asleep; ""at last""", oil', "0.122"),
    ("SD1.4_12.png", "None", "4.981"),
    ("MJ_7.png", "a fox\nin two lines", "3.5"),
    *((f"SDXL_{i}.png", f"a wall, number {i}", f"{i / 4}") for i in range(9)),
]
OFFICIAL = "\n".join(f'{name},"{prompt.replace(chr(34), chr(34) * 2)}",{mos}' for name, prompt, mos in ROWS)


@pytest.fixture
def root(here, monkeypatch):
    """A download of twelve images, of which the table of facts knows."""
    folder = here / "data" / "AIGIQA-20K"
    (folder / "train").mkdir(parents=True)
    for i, (name, _, _) in enumerate(ROWS):
        shutil.copy(here / f"{i}.png", folder / "train" / name)
    (folder / "info_train.csv").write_text(OFFICIAL, encoding="utf-8")
    (folder / "info_val.csv").write_text("LCM_1.png,a dog\n", encoding="utf-8")
    monkeypatch.setitem(DATASETS, "AIGIQA-20K", dataclasses.replace(DATASETS["AIGIQA-20K"], images=len(ROWS)))
    return folder


@pytest.mark.parametrize("header", ["", "name,prompt,mos\n", "Name,Prompt,MOS\n"])
def test_the_official_table_keeps_its_first_row_and_its_prompts_with_or_without_a_header(root, header):
    (root / "info_train.csv").write_text(header + OFFICIAL, encoding="utf-8-sig")
    samples = read_official("AIGIQA-20K", root)
    assert [(s.name, s.prompt, s.targets) for s in samples] == [(n, p, {"overall": float(m)}) for n, p, m in ROWS]
    assert {s.prompt_style for s in samples} == {"sentence"}
    assert all(s.image == root / "train" / s.name for s in samples)
    assert [find_generator("AIGIQA-20K", s.name) for s in samples[:4]] == ["DALLE2", "SD1.4", "MJ", "SDXL"]


def test_a_table_cut_short_or_with_damaged_mos_is_refused(root):
    (root / "info_train.csv").write_text(OFFICIAL.replace(",4.981", ",high"), encoding="utf-8")
    with pytest.raises(UserError, match=r"info_train\.csv:2: mos is 'high'; write a number from 0 to 5"):
        read_official("AIGIQA-20K", root)
    (root / "info_train.csv").write_text("\n".join(OFFICIAL.splitlines()[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match=r"11 rows where AIGIQA-20K has 12; download it again; https://www\.modelscope"):
        read_official("AIGIQA-20K", root)
    with pytest.raises(UserError, match=r"info_train\.csv:1: no column 'image'"):  # other datasets have headers
        read_table(root / "info_train.csv", DataConfig(dataset="AGIQA-1K", root=str(root)))


def test_it_is_prepared_audited_and_trained_without_naming_a_config(root, here):
    with pytest.raises(UserError, match=r"prepare AIGIQA-20K --protocol prompt-disjoint, and set data\.protocol="):
        find_folds(DataConfig(dataset="AIGIQA-20K", root=str(root)))
    prepare("AIGIQA-20K", root, protocol="prompt-disjoint")
    ((config,),) = load_runs([])
    assert (config.name, config.data.protocol) == ("aigiqa20k", "prompt-disjoint")
    folds = find_folds(config.data)
    assert sorted(s.name for fold in folds[:5] for s in fold.test) == sorted(name for name, _, _ in ROWS)
    _, findings = audit_dataset(config.data)
    assert [str(f) for f in findings if f.kind != "note"] == []
    assert any("'None' of 1 image" in f.text for f in findings)
    training.main(["model.clip=clip.safetensors", "train.epochs=1", "folds=[1]"])
    assert (here / "runs/aigiqa20k/fold_01/best.safetensors").exists()
