"""The audit finds what is wrong, on files in the published layout with one thing wrong at a time, and nothing else."""

import csv
import itertools
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mgs.cli import app
from mgs.config import DataConfig
from mgs.datasets.audit import audit_dataset
from mgs.errors import UserError

FOLDS, PER_SUBSET = 2, {"train": 6, "val": 2, "test": 3}
COLUMNS = ["name", "prompt", "mos_quality", "mos_align"]


class Published:
    """AGIQA-3K's layout in small: <root>/images/*.jpg and <root>/splits/published/<fold>/{train,val,test}.csv."""

    def __init__(self, root):
        self.root = root
        self.rows = {}  # (fold, subset) -> rows
        (root / "images").mkdir(parents=True)
        count = sum(PER_SUBSET.values())
        for i in range(count):
            noise = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(self.image(f"glide_normal_{i:03}.jpg"))
        for fold in range(1, FOLDS + 1):
            numbers = iter(range(count) if fold == 1 else reversed(range(count)))
            for subset, size in PER_SUBSET.items():
                self.rows[fold, subset] = [
                    [f"glide_normal_{i:03}.jpg", f"a dog number {i}", f"{1 + i / 10}", f"{2 + i / 10}"]
                    for i in itertools.islice(numbers, size)
                ]

    def image(self, name):
        return self.root / "images" / name

    def audit(self):
        for (fold, subset), rows in self.rows.items():
            path = self.root / "splits" / "published" / str(fold) / f"{subset}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="") as stream:
                csv.writer(stream).writerows([COLUMNS, *rows])
        _, findings = audit_dataset(DataConfig(dataset="AGIQA-3K", root=str(self.root)))
        return [str(finding) for finding in findings]

    def bad(self):
        return [text for text in self.audit() if not text.startswith("note")]


@pytest.fixture
def published(tmp_path):
    return Published(tmp_path / "AGIQA-3K")


def test_a_clean_set_is_clean(published):
    assert published.audit() == [
        "note: 5 images in no test set of these folds",
        "note: 2 folds, 11 images, 11 prompts; MOS: quality 1.00 to 2.00, correspondence 2.00 to 3.00",
    ]


def test_a_fold_under_two_numbers_is_found(published):
    for subset in PER_SUBSET:
        published.rows[2, subset] = published.rows[1, subset][::-1]
    assert published.bad() == ["flaw: test sets with the same images (folds 1 and 2)"]


def test_a_leaked_image_is_found_under_another_name(published):
    shutil.copy(published.image("glide_normal_000.jpg"), published.image("glide_normal_777.jpg"))
    published.rows[1, "test"][0][0] = "glide_normal_777.jpg"
    assert published.bad() == [
        "leak: 1 image of test also in train (fold 1: glide_normal_777.jpg = glide_normal_000.jpg)",
        "flaw: 1 picture under several names (glide_normal_000.jpg = glide_normal_777.jpg)",
    ]


def test_one_name_with_two_mos_in_train_and_test_is_found(published):
    name, prompt, quality, _ = published.rows[1, "train"][0]
    published.rows[1, "test"].append([name, prompt, quality, "4.5"])
    assert published.bad() == [
        "leak: 1 image of test also in train (fold 1: glide_normal_000.jpg)",
        "flaw: 1 image with two MOS values "
        "(glide_normal_000.jpg: correspondence 2 in fold 1 train, 4.5 in fold 1 test)",
    ]


def test_mos_that_differ_in_the_last_digit_are_no_conflict(published):
    name, prompt, quality, correspondence = published.rows[2, "train"][0]
    published.rows[2, "train"][0] = [name, prompt, quality, f"{float(correspondence) + 1e-8!r}"]
    assert published.bad() == []


def test_full_prompt_overlap_is_found_and_partial_overlap_noted(published):
    published.rows[1, "test"][0][1] = '"A dog  number 0"'  # the same prompt, as the datasets write it
    assert published.bad() == []
    assert "note: prompts of test also in train (fold 1: 1 of 3)" in published.audit()
    for row in published.rows[1, "test"]:
        row[1] = "a dog number 0"
    assert published.bad() == ["flaw: all prompts of test also in train (fold 1: 1 of 1)"]


def test_a_shared_prompt_is_a_flaw_where_the_protocol_rules_it_out(published):
    published.rows[1, "test"][0][1] = "a dog number 0"
    record = published.root / "splits" / "published" / "protocol.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"protocol": "prompt-disjoint"}')
    assert published.bad() == [
        "flaw: prompts of test also in train, though the protocol is prompt-disjoint (fold 1: 1 of 3)"
    ]


def test_a_prompt_that_reads_none_is_text_and_noted(published):
    published.rows[1, "train"][0][1] = "None"
    assert "note: prompts that look like missing values, kept as text ('None' of 1 image)" in published.audit()
    assert published.bad() == []


def test_blank_prompts_are_shared_by_nobody(published):
    for rows in published.rows.values():
        for row in rows:
            row[1] = " "
    for (fold, subset), rows in published.rows.items():
        path = published.root / "own" / str(fold) / f"{subset}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([["image", "prompt", "quality"], *([*row[:3]] for row in rows)])
    data = DataConfig(root=str(published.root / "images"), splits=str(published.root / "own"))
    assert [finding for finding in audit_dataset(data)[1] if finding.kind != "note"] == []


def test_missing_and_damaged_images_are_all_found(published):
    published.image("glide_normal_001.jpg").unlink()
    whole = published.image("glide_normal_002.jpg").read_bytes()
    published.image("glide_normal_002.jpg").write_bytes(whole[: len(whole) // 2])
    published.image("glide_normal_003.jpg").write_bytes(b"")
    (found,) = published.bad()
    assert found.startswith("flaw: 3 images missing or unreadable (")
    assert "glide_normal_001.jpg: no such file" in found
    assert "glide_normal_002.jpg: not a whole image" in found
    assert "glide_normal_003.jpg: not a whole image" in found


def test_images_in_val_and_another_set_and_rows_listed_twice_are_found(published):
    published.rows[1, "val"].append(published.rows[1, "test"][0])
    published.rows[1, "train"].append(published.rows[1, "train"][0])
    assert published.bad() == [
        "flaw: 1 image of test also in val (fold 1: glide_normal_008.jpg)",
        "flaw: 1 image more than once in one set (glide_normal_000.jpg in fold 1 train)",
    ]


def test_the_command_audits_every_protocol_in_a_folder_and_its_exit_code_tells(published):
    published.audit()
    clean = CliRunner().invoke(app, ["audit", str(published.root)])
    assert clean.exit_code == 0
    assert f"{published.root}: AGIQA-3K, protocol published" in clean.output
    assert "clean: no leak, no flaw" in clean.output
    shutil.copytree(published.root / "splits" / "published", published.root / "splits" / "random-image")
    published.rows[1, "test"].append(published.rows[1, "train"][0])
    published.audit()
    both = CliRunner().invoke(app, ["audit", str(published.root)])
    assert both.exit_code == 1
    assert "protocol random-image" in both.output
    assert both.output.count("leak: 1 image of test also in train (fold 1: glide_normal_000.jpg)") == 1
    named = CliRunner().invoke(app, ["audit", str(published.root), "data.protocol=random-image"])
    assert named.exit_code == 0
    second = CliRunner().invoke(app, ["audit", str(published.root), "data.protocol=published", "folds=[2]"])
    assert second.exit_code == 0
    assert "1 fold, 11 images" in second.output


def test_a_folder_that_is_not_there_is_an_error_with_a_remedy(tmp_path):
    result = CliRunner().invoke(app, ["audit", str(tmp_path / "nowhere")])
    assert isinstance(result.exception, UserError)
    assert "no such folder or file; name a dataset's folder" in str(result.exception)


@pytest.mark.parametrize(
    ("quality", "found"),
    [
        (
            lambda i: "" if i in (3, 14) else i % 5,
            ["MOS missing, and left out of loss and metrics: quality of 2 of 30"],
        ),
        (lambda i: i / 40, ["no MOS above 0.72 on the scale of 0 to 5; is data.mos_range right?"]),
        (lambda i: 5 - i / 40, ["no MOS below 4.28 on the scale of 0 to 5; is data.mos_range right?"]),
        (lambda i: i % 5, []),
    ],
)
def test_missing_mos_and_a_scale_that_no_row_reaches_are_told(tmp_path, quality, found):
    rows = [[f"{i}.png", f"a dog number {i}", quality(i), quality(i % 3)] for i in range(30)]
    for name, *_ in rows:
        Image.new("RGB", (8, 8), (int(name[:-4]), 0, 0)).save(tmp_path / name)
    with (tmp_path / "mos.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "prompt", "quality", "authenticity"], *rows])
    _, findings = audit_dataset(DataConfig(table=str(tmp_path / "mos.csv"), cache_folder=str(tmp_path / "cache")))
    told = [finding.text for finding in findings if finding.kind != "note"]
    assert [text[: len(part)] for text, part in zip(told, found, strict=True)] == found
