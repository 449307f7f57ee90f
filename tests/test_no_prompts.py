"""Tables of image-quality sets: one score without a name, perhaps DMOS, and no prompts."""

import csv
import json

import pytest

from mgs.config import DataConfig
from mgs.config_files import load_config
from mgs.datasets.audit import audit_dataset
from mgs.datasets.folds import find_folds
from mgs.datasets.read_table import read_table
from mgs.errors import UserError
from mgs.recipes import test as testing
from mgs.recipes import train as training
from mgs.scoring.scorer import Scorer

SPLITS = ("train", "train", "train", "val", "test")


def read(folder, text, **options):
    """The samples of a table beside an image a.png."""
    (folder / "a.png").touch()
    (folder / "table.csv").write_text(text, encoding="utf-8")
    return read_table(folder / "table.csv", DataConfig(table=str(folder / "table.csv"), **options))


def scores(folder, text, **options):
    return [sample.targets for sample in read(folder, text, **options)]


def test_a_score_without_a_name_judges_quality_where_there_are_no_prompts_and_else_what_one_says(tmp_path):
    (sample,) = read(tmp_path, "image,MOS,std\na.png,3.5,0.2\n")
    assert (sample.prompt, sample.targets) == ("", {"quality": 3.5})
    assert scores(tmp_path, "image,mos\na.png,3\n", dimension="authenticity") == [{"authenticity": 3.0}]
    both = "image,prompt,mos,quality\na.png,a fox,3,4\n"
    assert scores(tmp_path, both, dimension="overall") == [{"quality": 4.0, "overall": 3.0}]
    assert scores(tmp_path, both) == [{"quality": 4.0}]  # mos is one of the other columns then
    beside = "image,mos,authenticity\na.png,3,4\n"
    assert scores(tmp_path, beside) == [{"quality": 3.0, "authenticity": 4.0}]


def test_dmos_is_turned_so_that_the_low_end_is_the_best(tmp_path):
    text = "image,dmos\na.png,0\na.png,20\na.png,100\n"
    turned = [{"quality": 5.0}, {"quality": 4.0}, {"quality": 0.0}]
    assert scores(tmp_path, text, lower_better=True, mos_range=[0.0, 100.0]) == turned
    assert scores(tmp_path, text, mos_range=[100.0, 0.0]) == turned
    assert scores(tmp_path, text, lower_better=True, mos_range=[100.0, 0.0]) == turned  # both say the same
    kadid = "image,dmos\na.png,1\na.png,5\n"  # whose dmos is higher for better pictures
    assert scores(tmp_path, kadid, lower_better=False, mos_range=[1.0, 5.0]) == [{"quality": 0.0}, {"quality": 5.0}]
    assert scores(tmp_path, "image,mos\na.png,1\na.png,4\n", lower_better=True) == [{"quality": 4.0}, {"quality": 1.0}]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("image,dmos\na.png,3\n", {}, r"table\.csv:1: .*'dmos' lower is mostly better; set data\.lower_better=true"),
        ("image,prompt,mos\na.png,x,3\n", {}, r"rename 'mos' to the one that it judges, or name that in data\.dimens"),
        ("image,mos,dmos\na.png,3,3\n", {}, r"csv:1: columns 'mos' and 'dmos' would both judge quality; remove one"),
        ("image,quality\na.png,3\n", {"dimension": "quality"}, r"dimension=quality .*: no column 'mos' or 'dmos'"),
        ("image,mos,quality\na.png,3,3\n", {"dimension": "quality"}, r"'quality' and 'mos' both judge quality; remove"),
        (
            "image,mos\na.png,3\n",
            {"dimension": "overall"},
            r"csv:1: no column 'prompt'; .*and overall are judged against a prompt",
        ),
        ("image,correspondence\na.png,3\n", {}, r"table\.csv:1: no column 'prompt'; found"),
        ("image,caption,mos\na.png,a fox,3\n", {}, r"no column 'prompt'; .*call 'caption' prompt, or remove it"),
        (
            "image,mos\na.png,63.2\n",
            {},
            r"table\.csv:2: mos is 63\.2, outside 0 to 5; .*data\.mos_range=",
        ),
        ("image,mos,std\na.png,3,-1\n", {}, r"table\.csv:2: std is '-1'; write a number, 0 or more, or nothing"),
        ("image,mos,std\na.png,3,inf\n", {}, r"table\.csv:2: std is 'inf'"),
        ("image,mos\na.png,3\n", {"dataset": "AGIQA-3K", "dimension": "quality"}, r"data\.dimension: AGIQA-3K has its"),
        ("image,mos\na.png,3\n", {"dataset": "AGIQA-3K", "lower_better": True}, r"lower_better: AGIQA-3K is on 0-5"),
    ],
)
def test_what_a_table_leaves_open_is_one_line_with_a_remedy(tmp_path, text, options, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, text, **options)
    assert "\n" not in str(caught.value)


def test_a_direction_that_contradicts_the_scale_is_refused(tmp_path):
    words = ["data.table=x.csv", "data.mos_range=[100,0]", "data.lower_better=false"]
    with pytest.raises(UserError, match=r"data\.lower_better=False: must be true or left out, since data\.mos_range"):
        load_config(None, words)
    assert load_config(None, words[:2]).data.lower_better is None


@pytest.fixture
def tables(here):
    """Two tables of the pictures, whose DMOS falls as their brightness rises: with a division, and without."""
    rows = [[f"{i}.png", 100 - 100 * i / 29, 8.5, SPLITS[i % 5]] for i in range(30)]
    for name, width in (("divided", 4), ("drawn", 3)):
        with (here / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(row[:width] for row in [["image", "dmos", "std", "split"], *rows])
    return ["data.mos_range=[0,100]", "data.lower_better=true", "train.epochs=1", "model.clip=clip.safetensors"]


def test_folds_without_prompts_are_random_by_image_and_called_so(tables, here):
    data = load_config(None, ["data.table=drawn.csv", *tables]).data
    folds = find_folds(data)
    assert {fold.protocol for fold in folds} == {"random-image"}
    assert len({s.name for fold in folds[:5] for s in fold.test}) == 30
    protocol, findings = audit_dataset(data)
    assert protocol == "random-image"
    assert any("30 images, 0 prompts; MOS: quality 0.00 to 5.00" in finding.text for finding in findings)
    with pytest.raises(UserError, match=r"drawn\.csv: there are no prompts to keep apart; leave data\.protocol out"):
        find_folds(load_config(None, ["data.table=drawn.csv", *tables, "data.protocol=prompt-disjoint"]).data)


def test_methods_that_read_no_prompt_train_and_test_on_it_and_others_refuse_it(tables, here):
    words = ["data.table=divided.csv", *tables]
    liqe = [*words, "method=liqe", "options.target=quality", "name=liqe"]
    with pytest.raises(UserError, match=r"0\.png: no prompt, which method ipce reads for quality; fill in the prompts"):
        training.main([*words, "method=ipce", "options.target=quality"])
    with pytest.raises(UserError, match=r"method liqe gives overall, the data has MOS for quality"):
        training.main([*liqe, "options.target=overall"])
    assert not (here / "runs").exists()
    for run in (liqe, [*words, "name=mgs"]):
        training.main(run)
        testing.main(run)
        name = run[-1].removeprefix("name=")
        report = here / "runs" / name / "report"
        metrics = json.loads((report / "metrics_custom_own.json").read_text(encoding="utf-8"))
        assert list(metrics["summary"]) == ["quality"]
        scorer = Scorer.load(here / "runs" / name, device="cpu")
        assert scorer.scored == ("quality",)
        assert scorer.score(here / "3.png").quality is not None


@pytest.mark.plots
def test_the_page_of_a_test_without_prompts_says_so_and_leaves_out_their_plot(tables, here):
    words = ["data.table=divided.csv", *tables]
    training.main(words)
    testing.main(words)
    page = (here / "runs/divided/report/report_custom_own.html").read_text(encoding="utf-8")
    assert "without a prompt" in page
    assert "prompt's length" not in page
    assert "<li></li>" not in page
    assert "Residuals" not in page
