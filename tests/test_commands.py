"""The commands as a user types them: exit code, one line on stderr, nothing half-written.

Most run in this process, since torch takes seconds to import; the first of each kind runs in one of its own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import skip_plots
from PIL import Image

from mgs import __main__ as command
from mgs.errors import exit_on_user_error
from mgs.recipes import train

REPOSITORY = Path(__file__).parents[1]
ROWS = [f"{i}.jpg,a red circle number {i},{i % 5}.5" for i in range(12)]


def run(folder, script, *words):
    """A script in a process of its own."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / script), *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def call(capsys, function, *args):
    """What such a process does, in this one: exit code, and what it prints on stdout and stderr."""
    with pytest.raises(SystemExit) as ending:
        exit_on_user_error(function, *args)
    return (ending.value.code, *capsys.readouterr())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder: twelve pictures, a CSV, and a config for the demo's CLIP; the working directory is in it."""
    monkeypatch.chdir(tmp_path)
    for i in range(12):
        Image.new("RGB", (32, 32), (20 * i, 0, 0)).save(tmp_path / f"{i}.jpg")
    write_table(tmp_path, ROWS)
    (tmp_path / "own.yaml").write_text(
        "data: {table: mos.csv, protocol: random-image, workers: 0}\n"
        "model: {clip: demo}\ntrain: {epochs: 1}\nfolds: [1]\n"
    )
    return tmp_path


def write_table(folder, rows, header="image,prompt,quality"):
    (folder / "mos.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def replace_row(number, row):
    return lambda folder: write_table(folder, [*ROWS[: number - 2], row, *ROWS[number - 1 :]])


def remove(name):
    return lambda folder: (folder / name).unlink()


def nothing(folder):
    pass


WRONG = {
    "missing config": (remove("own.yaml"), [], ["own.yaml", "no such config file"]),
    "missing table": (remove("mos.csv"), [], ["mos.csv", "no such file"]),
    "missing image": (remove("7.jpg"), [], ["mos.csv:9", "7.jpg"]),
    "missing image folder": (nothing, ["data.root=nowhere"], ["mos.csv:2", "0.jpg", "nowhere"]),
    "missing column": (lambda f: write_table(f, ROWS, "image,text,quality"), [], ["mos.csv:1", "'prompt'", "text"]),
    "MOS that is text": (replace_row(5, "3.jpg,a star,good"), [], ["mos.csv:5", "quality", "'good'", "0 to 5"]),
    "MOS that is NaN": (replace_row(5, "3.jpg,a star,nan"), [], ["mos.csv:5", "quality", "'nan'"]),
    "MOS that is empty": (replace_row(5, "3.jpg,a star,"), [], ["mos.csv:5", "quality"]),
    "MOS outside the scale": (replace_row(5, "3.jpg,a star,7.5"), [], ["mos.csv:5", "7.5", "0 to 5", "mos_range"]),
    "damaged image": (lambda f: (f / "2.jpg").write_bytes(b"text"), [], ["2.jpg", "data.on_bad_image=skip"]),
    "unknown key": (nothing, ["train.lrr=1"], ["command line", "train.lrr", "unknown key"]),
    "wrong type": (nothing, ["train.epochs=few"], ["command line", "train.epochs", "few"]),
    "impossible value": (nothing, ["train.epochs=-1"], ["command line", "train.epochs=-1", "0 or more"]),
    "unknown dataset": (nothing, ["data.dataset=AGIQA-9K"], ["AGIQA-9K", "AGIQA-3K"]),
    "unknown fold": (nothing, ["folds=[11]"], ["11", "1, 2, 3"]),
    "absent CLIP": (nothing, ["model.clip=no/clip.pt"], ["model.clip=no/clip.pt", "no such file", "demo"]),
    "CLIP that is none": (nothing, ["model.clip=mos.csv"], ["mos.csv", "CLIP weights"]),
    "ResNet CLIP": (nothing, ["model.clip=RN50"], ["model.clip=RN50", "ResNet", "ViT"]),
    "runs that is a file": (nothing, ["runs=mos.csv"], ["mos.csv", "check the folder"]),
    "device we do not drive": (nothing, ["device=meta"], ["device=meta", "auto, cpu, cuda"]),
    "no such device": (nothing, ["device=tpu9"], ["device=tpu9", "auto, cpu, cuda"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line_with_exit_code_2_and_nothing_written(folder, capsys, case):
    break_something, words, parts = WRONG[case]
    break_something(folder)
    before = sorted(path.name for path in folder.iterdir())
    code, _, stderr = call(capsys, train.main, ["own.yaml", *words])
    assert code == 2, stderr
    error = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert "Traceback" not in stderr
    for part in parts:
        assert part in error[0]
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_process_tells_a_mistake_as_its_recipe_does(folder):
    done = run(folder, "train.py", "own.yaml", "train.lrr=1")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: command line: train.lrr: unknown key")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_asking_for_a_gpu_that_is_not_there_says_so(folder, capsys):
    code, _, stderr = call(capsys, train.main, ["own.yaml", "device=cuda"])
    assert code == 2
    assert "device=cuda: torch sees 0 CUDA device(s) here; use device=cpu" in stderr
    assert not (folder / "runs").exists()


def test_a_named_config_whose_data_is_missing_is_an_error_never_the_demo(tmp_path, monkeypatch, capsys):
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = call(capsys, train.main, ["configs/agiqa3k.yaml", "model.clip=demo"])
    assert code == 2
    assert "data/README.md" in stderr
    assert "DEMO" not in stdout
    assert not (tmp_path / "runs").exists()


def test_training_a_users_own_table_from_the_command_line(folder, monkeypatch):
    skip_plots(monkeypatch)
    train.main(["own.yaml"])
    done = run(folder, "test.py", "own.yaml")
    assert done.returncode == 0
    assert "custom, protocol random-image, 1 fold" in done.stdout


def test_prepare_without_the_download_says_where_it_comes_from(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mgs", "prepare", "AGIQA-3K"])
    with pytest.raises(SystemExit) as ending:
        command.main()
    assert ending.value.code == 2
    stderr = capsys.readouterr().err
    assert "github.com" in stderr
    assert len(stderr.splitlines()) == 1


def test_the_commands_help_loads_neither_torch_nor_pandas():
    """So it answers at once; errors, which every command needs, must not bring torch in either."""
    code = "import sys, mgs.cli, mgs.errors; print({'torch', 'pandas', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
