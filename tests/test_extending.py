"""What docs/extending.md says works: its files and rows, put into a copy of the package, train, test and score."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```(?:python|yaml)\n(# .*?)\n(.*?)```", flags=re.S)
ROW = re.compile(r"# a row of (\w+) in (\S+)")
USE = """
import sys
from pathlib import Path
import mgs
assert Path(mgs.__file__).is_relative_to(Path.cwd()), mgs.__file__
from mgs.errors import UserError
from mgs.recipes import test, train
from mgs.scoring.scorer import Scorer
words = ["my2k.yaml", "train.epochs=1", "train.lr=1e-3"]
train.main(words)
test.main(words)
scorer = Scorer.load("runs/my2k")
score, other = (scorer.score("3.png", prompt) for prompt in ("a grey wall, number 3", "a cat"))
assert score.quality is None and score.correspondence != other.correspondence, (score, other)
assert scorer.score_many(["3.png"])["status"][0].startswith("error: no prompt"), scorer.score_many(["3.png"])
assert (scorer.model.options.prefix, scorer.engine.cuts.windows) == ("An image of", "none")
for words in (
    ["my2k.yaml", "options.prefx=x"],
    ["other.yaml", "data.dataset=custom", "data.table=other.csv", "data.protocol=random-image"],
    ["my2k.yaml", "method=mgs", "options.temperature=hot"],
):
    try:
        train.main(words)
    except UserError as error:
        print("REFUSED", error)
train.main(["old.yaml", "method=whole-prompt", "name=switched", "train.epochs=1"])
"""


@pytest.fixture
def extended(here):
    """A copy of the package in the working directory, beside the user's table, with all that the page says to add."""
    shutil.copytree(ROOT / "mgs", here / "mgs", ignore=shutil.ignore_patterns("__pycache__"))
    for first, text in BLOCK.findall((ROOT / "docs" / "extending.md").read_text(encoding="utf-8")):
        if row := ROW.fullmatch(first):
            table = here / row[2]
            lines = text.splitlines(keepends=True)
            imports = "".join(line for line in lines if line.startswith("from "))
            entry = "".join(line for line in lines if line.startswith(" "))
            content = table.read_text(encoding="utf-8")
            content = content.replace("\nfrom mgs.", f"\n{imports}from mgs.", 1)
            start = f"\n{row[1]} = {{\n"
            assert start in content, f"no {row[1]} in {row[2]}"
            table.write_text(content.replace(start, start + entry), encoding="utf-8")
        else:
            (here / re.match(r"# ([\w./]+)", first)[1]).write_text(text, encoding="utf-8")
    return here


def write_folds(folder):
    """Folds of the dataset MY-2K under data/MY-2K, from the user's own table of thirty images."""
    root = folder / "data" / "MY-2K"
    with (folder / "mos.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for subset, part in {"train": rows[:20], "val": rows[20:25], "test": rows[25:]}.items():
        path = root / "splits" / "published" / "1" / f"{subset}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file", "text", "mos_q", "mos_c"])
            for row in part:
                shutil.copyfile(folder / row["image"], root / row["image"])
                mos = [(float(row[name]) - 1) * 5 / 8 for name in ("quality", "correspondence")]
                table.writerow([row["image"], row["prompt"], *mos])


@pytest.mark.slow
def test_the_pages_dataset_method_and_backbone_work_everywhere(extended):
    write_folds(extended)
    clip = load_file(extended / "clip.safetensors")
    save_file({f"model.{name}": tensor for name, tensor in clip.items()}, extended / "my_clip.safetensors")
    table = (extended / "mos.csv").read_text(encoding="utf-8").replace("correspondence", "overall")
    (extended / "other.csv").write_text(table.replace("quality", "authenticity"), encoding="utf-8")
    own = (extended / "own.yaml").read_text(encoding="utf-8")
    (extended / "other.yaml").write_text(f"{own}\nmethod: whole-prompt\n", encoding="utf-8")
    (extended / "old.yaml").write_text(
        f"{own}\noptions: {{temperature: clip}}\n", encoding="utf-8"
    )  # of another method
    environment = {**os.environ, "PYTHONPATH": str(extended)}
    command = [sys.executable, "-c", USE]
    done = subprocess.run(command, cwd=extended, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    refused = [line for line in done.stdout.splitlines() if line.startswith("REFUSED")]
    assert "options.prefx: unknown key; known here: prefix" in refused[0]
    assert "method whole-prompt gives correspondence, the data has MOS for authenticity, overall" in refused[1]
    assert "options.temperature=hot: must be" in refused[2]  # options of the file's own method are forgotten
    report = json.loads((extended / "runs/my2k/report/metrics_MY-2K_published.json").read_text(encoding="utf-8"))
    assert list(report["summary"]) == ["correspondence"]
    assert report["method"] == "whole-prompt"
