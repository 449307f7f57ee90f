"""Scoring by several processes: the same rows as one process gives, each once, whichever process is killed."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SHARDS, ROWS = 3, 200  # tars, and images in each
PARTIALS = ".part-*.partial"


@pytest.fixture(scope="module")
def folder(own_set, tmp_path_factory):
    """Tars of pictures, some of them damaged, and their scores by one process."""
    folder = tmp_path_factory.mktemp("scale")
    pictures = []
    for i in range(10):
        Image.open(own_set / f"{i}.png").resize((64, 64)).save(picture := io.BytesIO(), "png")
        pictures.append(picture.getvalue())
    pictures[9] = pictures[9][:-30]
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for i in range(ROWS):
                for suffix, data in {"png": pictures[i % 10], "txt": f"wall {shard} {i}".encode()}.items():
                    member = tarfile.TarInfo(f"{i:03}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    (folder / "clip.safetensors").write_bytes((own_set / "clip.safetensors").read_bytes())
    assert begin(folder, "one").wait() == 1
    return folder


def begin(folder, out, *words):
    """The command as a process of its own."""
    command = [
        sys.executable,
        "-m",
        "mgs",
        "score",
        f"{{0..{SHARDS - 1}}}.tar",
        "--clip",
        "clip.safetensors",
        "--out",
        out,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *words], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def rows_of(out):
    parts = sorted(out.glob("part-*.parquet"))
    assert len(parts) == SHARDS
    return pd.concat(map(pd.read_parquet, parts), ignore_index=True)


def assert_the_same_rows(folder, out):
    table = rows_of(folder / out)
    pd.testing.assert_frame_equal(table, rows_of(folder / "one"), rtol=0, atol=1e-5)
    assert table["prompt"].tolist() == [f"wall {shard} {i}" for shard in range(SHARDS) for i in range(ROWS)]
    assert table["status"].str.startswith("error").sum() == SHARDS * ROWS // 10
    assert not list((folder / out).glob(PARTIALS))


def wait_for_rows(out, count, process):
    """Wait until a shard has been begun and has so many rows."""
    until = time.monotonic() + 120
    while not any(path.read_bytes().count(b"\n") > count for path in out.glob(PARTIALS)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)


def scoring_processes(out):
    """The processes that hold the lock of a shard, by what they wrote into it."""
    return {int(path.read_text().split()[1]) for path in out.glob(".part-*.lock") if path.read_text()}


@pytest.mark.parametrize("words", [["--devices", "cpu,cpu"], ["--ray", "local"]])
def test_a_killed_worker_and_a_killed_driver_cost_no_row(folder, words):
    if "--ray" in words:
        pytest.importorskip("ray", reason="Ray is not installed")
    out = folder / words[0].strip("-")
    first = begin(folder, out.name, *words)
    wait_for_rows(out, 20, first)
    os.kill(scoring_processes(out).pop(), signal.SIGKILL)
    first.kill()
    first.communicate()
    assert len(list(out.glob("part-*.parquet"))) < SHARDS, "the job was over before it could be killed"
    again = begin(folder, out.name, "--resume", *words)
    wait_for_rows(out, 50, again)
    os.kill(scoring_processes(out).pop(), signal.SIGKILL)
    _, told = again.communicate(timeout=300)
    assert again.returncode == 1, told  # for the damaged image
    assert_the_same_rows(folder, out.name)
