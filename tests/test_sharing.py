"""What leaves the machine: exported graphs, saved folders, the installed package; and the doctor that checks them."""

import errno
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_scorer
from PIL import Image
from typer.testing import CliRunner

from mgs import Scorer
from mgs.backbones.table import load_backbone
from mgs.cli import app
from mgs.config import Config, ViewsConfig
from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError
from mgs.methods.mgs import MGSOptions
from mgs.scoring import doctor
from mgs.scoring.onnx.export import PARITY, check_parity, export
from mgs.scoring.onnx.scorer import VOCABULARY, OnnxScorer
from mgs.training import checkpoint

ROOT = Path(__file__).parents[1]
PROMPTS = ["a wall", "a red wall, with a door", "word " * 100]


@pytest.fixture(scope="module")
def scorer(own_set):
    return Scorer.zero_shot(str(own_set / "clip.safetensors"), device="cpu")


@pytest.fixture(scope="module")
def exported(scorer, tmp_path_factory):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    folder = tmp_path_factory.mktemp("onnx")
    export(scorer, folder)
    return folder


def test_exported_scores_equal_the_scorers_on_images_of_any_size(scorer, exported, tmp_path):
    rng = np.random.default_rng(0)
    pairs = []
    for i, size in enumerate([(520, 600), (1300, 700), (90, 200)]):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        pairs.append((tmp_path / f"{i}.png", PROMPTS[i]))
    assert check_parity(scorer, exported, pairs) < PARITY / 10


@pytest.mark.parametrize(
    "change",
    [
        {"views": ViewsConfig(layout="none")},
        pytest.param({"options": MGSOptions(correspondence="fragments")}, marks=pytest.mark.slow),
        pytest.param({"options": MGSOptions(templates="separate")}, marks=pytest.mark.slow),
    ],
)
def test_ablations_are_exported_too(exported, own_set, tmp_path, change):
    backbone = load_backbone(str(own_set / "clip.safetensors"))
    scorer = make_scorer(backbone, Config(**change), DIMENSIONS)
    export(scorer, tmp_path)
    pairs = [(own_set / f"{i}.png", prompt) for i, prompt in enumerate(PROMPTS)]
    assert check_parity(scorer, tmp_path, pairs) < PARITY / 10


def test_16_bit_grey_and_blank_prompts_are_read_alike(scorer, exported, tmp_path):
    levels = np.random.default_rng(0).integers(0, 65536, (600, 520), dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "grey.png")
    assert check_parity(scorer, exported, [(tmp_path / "grey.png", "a wall"), (tmp_path / "grey.png", " ")]) < PARITY
    with pytest.raises(UserError, match="no such file"):
        check_parity(scorer, exported, [(tmp_path / "none.png", "a wall")])


def test_an_export_that_fails_leaves_nothing_that_could_be_read(scorer, exported, tmp_path, monkeypatch):
    shutil.copytree(exported, tmp_path / "onnx")
    before = (tmp_path / "onnx" / "images.onnx").read_bytes()

    class Full:
        def save(self, path):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: Full())
    with pytest.raises(OSError, match="No space left"):
        export(scorer, tmp_path / "onnx")
    assert (tmp_path / "onnx" / "images.onnx").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "onnx").iterdir()) == [VOCABULARY, "images.onnx", "texts.onnx"]
    with pytest.raises(FileNotFoundError, match=r"mgs\.json"):
        OnnxScorer(tmp_path / "onnx")


def test_real_images_score_alike_by_onnx(scorer, exported, shared):
    images = sorted((shared / "agiqa3k" / "images").iterdir())[::500]
    assert check_parity(scorer, exported, [(path, "a photo, of a thing") for path in images]) < PARITY / 10


def test_a_damaged_export_is_refused(scorer, exported, own_set, tmp_path):
    shutil.copytree(exported, tmp_path / "bent")
    recipe = json.loads((tmp_path / "bent" / "mgs.json").read_text())
    (tmp_path / "bent" / "mgs.json").write_text(json.dumps({**recipe, "whole_share": 0.9}))
    with pytest.raises(UserError, match="do not use them"):
        check_parity(scorer, tmp_path / "bent", [(own_set / "0.png", PROMPTS[1])])


def test_scoring_an_export_needs_no_torch(scorer, exported, own_set):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mgs.scoring.onnx.scorer import main\n"
        f"main([{str(exported)!r}, {str(own_set / '3.png')!r}, '--prompt', {PROMPTS[1]!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    score = scorer.score(own_set / "3.png", PROMPTS[1])
    for name, value in json.loads(done.stdout).items():
        assert value == pytest.approx(getattr(score, name), abs=PARITY)


def test_what_is_saved_for_others_is_loaded_by_folder_and_by_name(here, monkeypatch):
    from mgs.recipes import train as training

    training.main(["own.yaml", "folds=[1]", "train.epochs=1"])
    scorer = Scorer.load("runs/own")
    saved = scorer.save_pretrained(here / "shared" / "model")
    expected = scorer.score(here / "0.png", "a wall")
    assert Scorer.from_pretrained(here / "shared" / "model").score(here / "0.png", "a wall") == expected
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    asked = []
    monkeypatch.setattr(hub, "hf_hub_download", lambda *words: asked.append(words) or str(saved))
    assert Scorer.from_pretrained("someone/mgs").score(here / "0.png", "a wall") == expected
    assert asked == [("someone/mgs", checkpoint.CHECKPOINT)]

    def offline(*words):
        raise ConnectionError("no network")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with pytest.raises(UserError, match="someone/mgs: no such folder, and not to be had from the hub: no network"):
        Scorer.from_pretrained("someone/mgs")
    with pytest.raises(UserError, match="not from a checkpoint"):
        Scorer.zero_shot("clip.safetensors").save_pretrained(here / "x")


def test_the_doctor_finds_all_well_and_tells_what_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    well = CliRunner().invoke(app, ["doctor"])
    assert well.exit_code == 0, well.output
    assert "all well" in well.output
    (tmp_path / "runs" / "x" / "fold_01").mkdir(parents=True)
    for name in ("predictions_val.csv", "best.safetensors"):
        (tmp_path / "runs" / "x" / "fold_01" / name).write_text("damaged")
    ill = CliRunner().invoke(app, ["doctor"])
    assert ill.exit_code == 1
    assert "PROBLEM checkpoint" in ill.output
    assert "1 problem;" in ill.output
    facts = {"dataset": "AGIQA-3K", "val": {"quality": {}}}  # an imported one, say, has no fold
    monkeypatch.setattr(doctor, "read_metadata", lambda path: facts)
    (verdict,) = doctor.find_checkpoints(Path("runs"))
    assert (verdict.kind, verdict.found) == (doctor.GOOD, "runs/x/fold_01/best.safetensors: dataset AGIQA-3K, quality")
    monkeypatch.setattr(doctor, "read_metadata", lambda path: {})
    assert [verdict.kind for verdict in doctor.find_checkpoints(Path("runs"))] == [doctor.GOOD]
    monkeypatch.setitem(doctor.SAMPLE_SCORES, "quality", 1.0)
    assert "PROBLEM self-test" in CliRunner().invoke(app, ["doctor"]).output


def test_weights_with_other_bytes_than_published_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "DOWNLOADS", tmp_path)
    (tmp_path / "ViT-B-16.pt").write_bytes(b"cut short")
    (verdict,) = [v for v in doctor.find_weights() if "ViT-B-16" in v.found]
    assert verdict.kind == doctor.BAD
    assert "delete it" in verdict.found


@pytest.mark.slow
def test_the_wheel_holds_all_that_the_package_reads(tmp_path):
    source = tmp_path / "source"
    for name in ("mgs", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    words = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        source,
    ]
    subprocess.run(words, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "mgs").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    files |= {f"mgs/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "configs").rglob("*.yaml")}
    assert files <= held
