"""The report: what its files say, what they are called, and the page in a real browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from conftest import skip_plots
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mgs.evaluation.page import Picture, order_images
from mgs.evaluation.per_fold import measure_folds, summarise_folds
from mgs.evaluation.plots import bin_lengths, draw_calibration
from mgs.evaluation.report import Background, Protocol, write_report
from mgs.evaluation.tables import MISSING, Table, literature_table, published_results, to_latex, to_markdown

HOSTILE = '<script>alert("x")</script> & "50 %" of $1_000'
PROTOCOL = Protocol("AGIQA-3K", "published", "ViT-B/16", "float32", ("A note & more.",))


def predictions(folds=(1, 2), images=30):
    rng = np.random.default_rng(0)
    frames = []
    for fold in folds:
        mos = rng.random(images) * 5
        frame = {
            "fold": fold,
            "image": [f"g{i % 3}/{fold}-{i}.png" for i in range(images)],
            "prompt": [HOSTILE if i % 5 == 0 else f"a dog {'very ' * (i % 7)}big" for i in range(images)],
            "quality_mos": mos,
            "quality_pred": mos + rng.normal(size=images),
            "correspondence_mos": mos,
            "correspondence_pred": -mos,
        }
        frames.append(pd.DataFrame(frame))
    return pd.concat(frames, ignore_index=True)


def show(fold, image):
    pixels = np.random.default_rng(len(image)).integers(0, 256, (3, 600, 512), dtype=np.uint8)
    return Picture(pixels, ["a dog", "<b>big</b>"])


def background(table):
    curves = [(fold, epoch, 1 / epoch, d, epoch / 10) for fold in (1, 2) for epoch in (1, 2) for d in ("quality",)]
    return Background(
        generators={name: name.split("/")[0] for name in table["image"]},
        train_images={1: 70, 2: 70},
        curves=pd.DataFrame(curves, columns=["fold", "epoch", "loss", "dimension", "srcc"]),
        show=show,
        audit=("flaw: something",),
        settings={"train.lr": 5e-6, "model.clip": "ViT-B/16", "folds": [1, 2], "base": None},
    )


@pytest.fixture
def no_plots(monkeypatch):
    """For what the tables say."""
    skip_plots(monkeypatch)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("my-run") / "report"
    table = predictions()
    text = write_report(table, PROTOCOL, folder, background(table))
    return folder, text


def test_every_file_is_named_by_its_dataset_and_protocol(report):
    names = {path.name for path in report[0].iterdir() if not path.name.startswith("events.out")}
    assert names == {
        f"{what}_AGIQA-3K_published.{suffix}"
        for what, suffix in [
            *(("table", "md"), ("table", "tex"), ("metrics", "csv"), ("metrics", "json"), ("predictions", "csv")),
            *(("report", "html"), ("calibration", "png"), ("curves", "png"), ("folds", "png")),
            *(("residuals_generator", "png"), ("residuals_prompt_length", "png")),
            *(("scatter_quality", "png"), ("scatter_correspondence", "png")),
        ]
    }


def test_the_tables_state_the_protocol_and_keep_every_prediction(report):
    folder, text = report
    title = f"{folder.parent.name}: AGIQA-3K, protocol published, 2 folds, 60 test images, backbone ViT-B/16, float32"
    for part in (title, "mean ± SD", "95 % interval", "A note & more."):
        assert part in text
    tables = (folder / "table_AGIQA-3K_published.md").read_text(encoding="utf-8")
    assert all(line in tables for line in text.splitlines())
    assert "AGIQA-3K: this run and the literature" in tables
    kept = pd.read_csv(folder / "predictions_AGIQA-3K_published.csv")
    pd.testing.assert_frame_equal(kept, predictions())
    metrics = pd.read_csv(folder / "metrics_AGIQA-3K_published.csv")
    assert metrics["protocol"].unique().tolist() == ["published"]
    record = json.loads((folder / "metrics_AGIQA-3K_published.json").read_text(encoding="utf-8"))
    expected = summarise_folds(measure_folds(predictions()))
    assert record["summary"]["quality"]["srcc"] == pytest.approx(expected.loc["quality", "srcc"])
    assert record["folds"][0]["train_images"] == 70


@pytest.mark.usefixtures("no_plots")
def test_an_undefined_figure_is_null_in_json_and_a_dash_in_tables(tmp_path):
    table = predictions((1,))
    table["quality_pred"] = 1.0
    text = write_report(table, Protocol("demo", "prompt-disjoint", "demo", "float32"), tmp_path / "r", Background())
    content = (tmp_path / "r" / "metrics_demo_prompt-disjoint.json").read_text()
    assert '"srcc": null' in content
    assert "NaN" not in content
    assert MISSING in text


@pytest.mark.usefixtures("no_plots")
def test_one_fold_shows_its_own_interval_and_says_what_it_covers(tmp_path):
    text = write_report(predictions((3,)), PROTOCOL, tmp_path / "r", Background())
    row = measure_folds(predictions((3,))).iloc[0]
    assert f"{row.srcc_low:.3f} to {row.srcc_high:.3f}" in text
    assert "| fold 3 " in text
    assert "mean ± SD" not in text
    assert "another split or seed may move the figures more" in text


@pytest.mark.usefixtures("no_plots")
def test_a_repeated_test_set_is_shown_and_not_counted(tmp_path):
    table = predictions((1, 2))
    table = pd.concat([table, table[table.fold == 1].assign(fold=3)])
    text = write_report(table, PROTOCOL, tmp_path / "r", Background())
    assert "2 folds, 60 test images" in text
    assert "3 (tests fold 1's)" in text
    assert "Fold 3 tests the same images as fold 1 and is not counted." in text


def test_the_page_holds_everything_and_fetches_nothing(report):
    page = (report[0] / "report_AGIQA-3K_published.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    assert "<script" not in page
    assert "url(" not in page
    assert page.count("<img") == page.count('alt="') > 20
    assert "&lt;script&gt;alert" in page
    assert "&lt;b&gt;big&lt;/b&gt;" in page
    assert "flaw: something" in page
    assert len(page) < 5_000_000


def test_the_gallery_orders_images_by_score_and_by_how_wrongly_they_are_ordered():
    table = pd.DataFrame(
        {
            "fold": [1, 1, 1, 1, 2, 2],
            "image": ["a", "b", "c", "d", "a", "e"],
            "prompt": "p",
            "quality_mos": [1.0, 2.0, 3.0, 4.0, 1.0, 2.0],
            "quality_pred": [4.0, 2.0, 3.0, 1.5, 1.0, 2.1],
        }
    )
    rows = {heading: list(part["image"]) for heading, part in order_images(table, "quality").items()}
    assert rows["Highest scores"] == ["a", "c", "e", "b", "d"]
    assert rows["Lowest scores"] == ["a", "d", "b", "e", "c"]
    assert rows["Most wrongly ordered"][:2] == ["a", "d"]  # a is first of four by score and last by MOS, d the reverse
    first = order_images(table, "quality")["Most wrongly ordered"].iloc[0]
    assert (first["score_rank"], first["mos_rank"], first["of"]) == (1, 4, 4)


def test_prompt_lengths_fall_into_ranges_that_hold_them():
    prompts = pd.Series(["word " * n for n in [1, 1, 1, 2, 3, 4, 5, 6, 9, 20, 20]])
    bins = bin_lengths(prompts)
    assert bins.iloc[0] == "1 word"
    for prompt, name in zip(prompts, bins, strict=True):
        numbers = [int(n) for n in re.findall(r"\d+", name)]
        assert numbers[0] <= len(prompt.split()) <= numbers[-1]
    assert bin_lengths(pd.Series(["one two", "three four"])).unique().tolist() == ["2 words"]


def test_published_results_on_the_same_folds_are_set_apart_and_the_best_is_marked_there_alone():
    summary = pd.DataFrame({"srcc": [0.89, 0.80], "plcc": [0.99, 0.1]}, index=["quality", "correspondence"])
    table = literature_table(summary, "AGIQA-3K", "published, 10 folds", same_folds=True)
    (_, same), (start, others) = table.groups
    assert (same, start) == ("On the same folds", 4)
    assert "not comparable" in others
    assert [row[0] for row in table.rows[:4]] == ["MGS, this run", "IPCE", "ACL-IQA", "LMM4LMM"]
    assert table.bold == {(2, 1), (0, 2), (3, 3), (3, 4)}  # of quality SRCC, PLCC, correspondence SRCC, PLCC
    alone = literature_table(summary, "AGIQA-3K", "random-image, 10 folds", same_folds=False)
    assert [start for start, _ in alone.groups] == [0, 1, 4]
    assert alone.groups[0][1] == "This run"
    assert alone.bold == frozenset()
    (zero_shot,) = (row for row in table.rows if row[0] == "CLIP-IQA" and "zero-shot" in row)
    assert zero_shot[1:5] == ["0.6580", MISSING, MISSING, MISSING]  # only its SRCC of quality is published
    assert literature_table(summary, "demo", "", same_folds=False) is None


@pytest.mark.parametrize(
    ("folds", "protocol", "apart"),
    [
        (range(1, 11), PROTOCOL, False),
        (range(1, 4), PROTOCOL, True),
        (range(1, 11), Protocol("AGIQA-3K", "prompt-disjoint", "ViT-B/16", "float32"), True),
        (range(1, 11), Protocol("AGIQA-3K", "published", "x", "float32", trained_on="AIGCIQA2023"), True),
    ],
)
@pytest.mark.usefixtures("no_plots")
def test_only_a_run_on_all_published_folds_stands_among_those_that_were(tmp_path, folds, protocol, apart):
    write_report(predictions(folds), protocol, tmp_path / "r", Background())
    text = (tmp_path / "r" / protocol.file_name("table", ".md")).read_text(encoding="utf-8")
    assert ("*This run*" in text) == apart
    assert ("*On the same folds*" in text) != apart
    if protocol.trained_on:
        assert "trained on AIGCIQA2023" in text
    if len(folds) == 3:
        assert "3 of 10 folds" in text


def test_a_report_under_another_protocol_replaces_the_one_before(tmp_path):
    write_report(predictions((1,)), PROTOCOL, tmp_path / "r", Background())
    (tmp_path / "r" / "notes.txt").write_text("mine")
    other = Protocol("AGIQA-3K", "random-image", "ViT-B/16", "float32")
    write_report(predictions((1,)), other, tmp_path / "r", Background())
    left = {path.name for path in (tmp_path / "r").iterdir()}
    assert "notes.txt" in left
    assert not [name for name in left if "published" in name]


def test_many_generators_are_drawn_as_a_few_and_the_rest(tmp_path):
    table = predictions((1,), images=90)
    generators = {name: f"folder {i % 40}" for i, name in enumerate(table["image"])}
    write_report(table, PROTOCOL, tmp_path / "r", Background(generators=generators))
    with Image.open(tmp_path / "r" / PROTOCOL.file_name("residuals_generator", ".png")) as plot:
        assert plot.height < 3000


def test_an_image_that_two_folds_test_narrows_no_interval():
    table = predictions((1,), images=100)
    twice = pd.concat([table, table.assign(fold=2, image=table["image"])], ignore_index=True)

    def widths(predictions):
        axes = draw_calibration(predictions).axes[0]
        return [b.vertices[:, 1].max() - b.vertices[:, 1].min() for c in axes.collections for b in c.get_paths()]

    assert np.mean(widths(twice)) == pytest.approx(np.mean(widths(table)), rel=0.05)


def test_every_published_figure_has_a_protocol_and_a_source():
    rows = [row for dataset in ("AGIQA-1K", "AGIQA-3K", "AIGCIQA2023") for row in published_results(dataset)]
    assert len(rows) == 56
    for row in rows:
        assert row["protocol"]
        assert row["source"]
        assert row["folds"] in ("published", "other")
        assert -1 <= float(row["srcc"]) <= 1
        assert row["plcc"] == "" or -1 <= float(row["plcc"]) <= 1


def test_latex_and_markdown_carry_bold_groups_and_escapes():
    table = Table("T", ["run_1", "x"], [["a & b", "0.5 ± 0.1"], ["c", "0.4"]], frozenset({(0, 1)}), ((1, "Others"),))
    latex = to_latex(table)
    assert r"run\_1 & x \\" in latex
    assert r"a \& b & \textbf{0.5 $\pm$ 0.1} \\" in latex
    assert r"\multicolumn{2}{l}{\emph{Others}} \\" in latex
    assert r"\toprule" in latex
    lines = to_markdown(table).splitlines()
    assert lines[4] == "| a & b | **0.5 ± 0.1** |"
    assert lines[5].startswith("| *Others*")


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex on this machine")
def test_latex_compiles(report, tmp_path):
    table = (report[0] / "table_AGIQA-3K_published.tex").read_text(encoding="utf-8")
    text = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + table + r"\end{document}"
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:]


def test_tensorboard_gets_the_settings_with_the_figures_and_the_plots(report):
    board = EventAccumulator(str(report[0]))
    board.Reload()
    tags = board.Tags()
    expected = summarise_folds(measure_folds(predictions())).loc["quality", "srcc"]
    assert board.Scalars("test/srcc/quality")[0].value == pytest.approx(expected, rel=1e-6)
    assert "test/scatter_quality" in tags["images"]
    plugins = {tag: board.SummaryMetadata(tag).plugin_data for tag in ("_hparams_/experiment",)}
    assert b"train.lr" in plugins["_hparams_/experiment"].content


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
@pytest.mark.parametrize(
    ("width", "height"), [(1280, 900), (390, 844), (320, 600)], ids=["desktop", "phone", "small phone"]
)
def test_the_page_opens_in_a_browser_without_errors_requests_or_sideways_scrolling(report, width, height):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    page_file = report[0] / "report_AGIQA-3K_published.html"
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": width, "height": height})
        said, requests = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file.as_uri())
        assert said == []
        assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        outside = """[...document.querySelectorAll(".card table")].filter(
            table => table.getBoundingClientRect().right > table.closest(".card").getBoundingClientRect().right)"""
        assert page.evaluate(f"{outside}.length") == 0
        broken = page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
        assert broken == 0
        assert page.title().endswith("ViT-B/16, float32")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
        browser.close()
