"""Published folds: what is checked before they are put in their place."""

import csv

import pytest
from typer.testing import CliRunner

from mgs.cli import app
from mgs.config import DataConfig
from mgs.datasets.folds import find_folds
from mgs.datasets.published import place_published
from mgs.errors import UserError


@pytest.fixture
def published(tmp_path):
    """Ten folds in AGIQA-3K's published columns, and the dataset's folder with empty files for images."""
    (tmp_path / "root" / "images").mkdir(parents=True)
    for i in range(6):
        (tmp_path / "root" / "images" / f"glide_{i}.jpg").touch()
    for fold in range(1, 11):
        folder = tmp_path / "folds" / str(fold)
        folder.mkdir(parents=True)
        for i, subset in enumerate(("train", "val", "test", "train_val")):
            with (folder / f"{subset}.csv").open("w", newline="") as stream:
                rows = [[f"glide_{(fold + i) % 6}.jpg", "a dog", "style", 2, 3]]
                csv.writer(stream).writerows([["name", "prompt", "style", "mos_quality", "mos_align"], *rows])
    return tmp_path / "folds"


def test_published_folds_are_checked_and_linked(published, tmp_path):
    root = tmp_path / "root"
    words = ["prepare", "AGIQA-3K", "--root", str(root), "--published", str(published)]
    for _ in range(2):  # again changes nothing
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert f"data.protocol=published data.root={root}" in result.output
    assert (root / "splits" / "published").is_symlink()
    folds = find_folds(DataConfig(dataset="AGIQA-3K", root=str(root)))
    assert [(fold.number, fold.protocol) for fold in folds] == [(n, "published") for n in range(1, 11)]
    (tmp_path / "others").mkdir()
    (root / "splits" / "published").unlink()
    (root / "splits" / "published").symlink_to(tmp_path / "others")
    with pytest.raises(UserError, match="published: is there already, with other folds; remove it first"):
        place_published("AGIQA-3K", root, published)


def test_where_links_cannot_be_made_the_folds_are_copied(published, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    place = place_published("AGIQA-3K", tmp_path / "root", published)
    assert not place.is_symlink()
    assert sorted(path.name for path in (place / "10").iterdir()) == ["test.csv", "train.csv", "val.csv"]
    assert place_published("AGIQA-3K", tmp_path / "root", published) == place


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "3" / "val.csv").unlink(), r"no 3/val\.csv; name the folder that holds the folds 1 to 10"),
        (lambda f: (f / "10").rename(f / "ten"), "no fold 10; name"),
        (lambda f: (f / "2" / "test.csv").write_text("name,text\na,b\n"), r"2/test\.csv:1: no column 'prompt'"),
        (lambda f: (f.parent / "root/images/glide_0.jpg").unlink(), r"\.csv:2: no image glide_0\.jpg under"),
    ],
)
def test_what_is_incomplete_is_one_line_and_nothing_is_linked(published, tmp_path, spoil, told):
    spoil(published)
    with pytest.raises(UserError, match=told) as caught:
        place_published("AGIQA-3K", tmp_path / "root", published)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "root" / "splits").exists()


def test_a_set_without_published_folds_is_refused(published, tmp_path):
    with pytest.raises(UserError, match="nobody has published folds of custom; there are some for AGIQA-1K"):
        place_published("custom", tmp_path / "root", published)


def test_a_part_of_the_real_folds_is_refused(shared, tmp_path):
    with pytest.raises(UserError, match="no fold 4, fold 5, fold 6, fold 7, fold 8, fold 9, fold 10; name"):
        place_published("AGIQA-3K", shared / "agiqa3k", shared / "published_splits" / "AGIQA-3K")
