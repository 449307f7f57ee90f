"""The doors by which strangers' input enters: inputs changed by chance, what fuzzing has found, and, slow, fuzzing.

`python tests/fuzz_doors.py DOOR --seconds 600` looks longer.
"""

import importlib.util
import io
import json
import os
import random
import re
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import fuzz_doors
import pytest
import torch
from PIL import Image

from mgs.backbones.weights import read_torchscript
from mgs.images import decode as images
from mgs.images import fit

TESTS = Path(__file__).parent
SECONDS = 10
CHANGED = 60
FEWEST = 300  # executions in that time; on a busy machine they are thousands

pytestmark = pytest.mark.filterwarnings("ignore")  # of strange files there are many

needs_atheris = pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="needs atheris: pip install atheris")


def run(script, door, folder, seconds):
    """The command on a door, with its temporary files in the folder."""
    command = [sys.executable, str(script), door, "--seconds", str(seconds)]
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds + 200)


@pytest.mark.parametrize("door", fuzz_doors.DOORS)
def test_nothing_but_one_line_comes_of_good_inputs_changed_by_chance(tmp_path, monkeypatch, door):
    """The same inputs each time; the fuzzer's own are guided, and many more."""
    for module, name in ((images, "MAX_PIXELS"), (fit, "MAX_PIXELS"), (Image, "MAX_IMAGE_PIXELS")):
        monkeypatch.setattr(module, name, getattr(module, name))  # the door of images lowers them
    monkeypatch.chdir(tmp_path)
    calls, seeds = fuzz_doors.DOORS[door].open(tmp_path)
    draw = random.Random(0)
    for _ in range(CHANGED):
        data = draw.choice(seeds)
        for _ in range(draw.randint(0, 3)):
            data = fuzz_doors.exchange_word(data, draw) if fuzz_doors.DOORS[door].text else change_byte(data, draw)
        for call in calls:
            assert not fuzz_doors.problem_of(call, data), data


def change_byte(data, draw):
    """One byte changed, or an end cut off."""
    at = draw.randrange(len(data)) if data else 0
    return data[:at] + bytes([draw.randrange(256)]) * draw.randint(0, 1) + data[at + 1 : draw.choice([None, None, at])]


@needs_atheris
@pytest.mark.slow
@pytest.mark.parametrize("door", fuzz_doors.DOORS)
def test_nothing_but_one_line_comes_of_what_a_fuzzer_puts_through_a_door(tmp_path, door):
    done = run(TESTS / "fuzz_doors.py", door, tmp_path, SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = re.search(rf"^{door}: (\d+) executions in \d+ s, 0 findings$", done.stdout, re.MULTILINE)
    assert int(summary[1]) >= FEWEST


BROKEN = """
import os, sys, time
sys.path.insert(0, {tests!r})
import fuzz_doors

def open_broken(folder):
    def call(data):
        if data[:2] == b"ab":
            {damage}
    return [call], [b"a"]

fuzz_doors.DOORS["csv"] = fuzz_doors.Door(open_broken)
sys.exit(fuzz_doors.main())
"""


@needs_atheris
@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "name"),
    [
        ("raise KeyError('x')", "KeyError-elsewhere"),
        ("os.abort()", "crash-"),
        ("time.sleep(60)", "timeout-"),
    ],
)
def test_a_broken_door_is_found_and_the_input_that_shows_it_kept(tmp_path, damage, name):
    script = tmp_path / "broken.py"
    script.write_text(BROKEN.format(tests=str(TESTS), damage=damage))
    done = run(script, "csv", tmp_path, 10)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("1 findings")
    found = Path(re.search(r"--replay (\S+)", done.stdout)[1])
    assert found.name.startswith(name)
    assert found.read_bytes()[:2] == b"ab"
    if name.endswith("elsewhere"):
        again = subprocess.run([sys.executable, script, "csv", "--replay", found], capture_output=True, text=True)
        assert again.returncode == 1
        assert name in again.stdout


LONG = b"x" * 3000
CSV = [
    b'"a\nb"',
    b'image,prompt,"a\nb"\n',
    b"image,prompt,quality\n" + LONG + b",a cat,3\n",
    b"image,prompt,quality\n" + LONG + b"/a.png,a cat,3\n",
    b"image,prompt,quality\na.png,a cat," + LONG + b"\n",
    b"image,prompt,quality\na.png,a cat," + b"9" * 300 + b"." + b"0" * 3000 + b"\n",
    b'image,prompt,quality\na.png,a cat,"\n70\n"\n',
    b"image,prompt,quality\na.png,a cat,1" + b"0" * 3000 + b"\n",
    b"image,prompt,quality,prompt_style\na.png,a cat,3," + LONG + b"\n",
    b"image,prompt,quality\n../" + LONG + b",a cat,3\n",
    b'image,prompt\n"../a\nb",a cat\n',
]
CONFIG = [
    b"x: x\n\0base=${x}",
    b"name: x\n\0name=${data.0}",
    b"data: {root: a/b}\n\0name=${data.root}",
    b"name: x\n\0name=${data:root}",
    b"name: x\n\0\nbas%=/tmp",
    b"name: x\n\0" + LONG,
    b"name: x\n\0a=${" + LONG,
    b"name: x\n\0train.lr=" + LONG,
    b"base: " + LONG,
    b"na.-1:me: ",
    b"folds: [{}]\n",
    b"name: x\ndata: {mos_range: [{}, 1]}\n",
]


@pytest.mark.parametrize("data", CSV, ids=range(len(CSV)))
def test_a_table_that_fuzzing_found_is_one_short_line(tmp_path, data):
    check("csv", tmp_path, data)


@pytest.mark.parametrize("data", CONFIG, ids=range(len(CONFIG)))
def test_a_config_that_fuzzing_found_is_one_short_line(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    check("config", tmp_path, data)


def check(door, folder, data):
    """No call of the door finds the input remarkable."""
    calls, _ = fuzz_doors.DOORS[door].open(folder)
    assert not [problem for call in calls if (problem := fuzz_doors.problem_of(call, data))]


def saved(content):
    torch.save(content, buffer := io.BytesIO())
    return b"z" + buffer.getvalue()


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(2, device="meta"),
        torch.zeros(2).to(torch.float8_e4m3fn),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    ],
    ids=["meta", "float8", "nested"],
)
def test_a_tensor_of_a_strange_kind_is_one_short_line(tmp_path, value):
    check("checkpoint", tmp_path, saved({"w": value}))


@pytest.mark.parametrize("name", ["a\nb", "x" * 3000], ids=["lines", "long"])
def test_a_tensors_name_is_shown_in_one_short_line(tmp_path, name):
    for value in (3, torch.tensor(float("nan"))):
        check("checkpoint", tmp_path, saved({name: value}))


def test_a_small_file_of_empty_tensors_does_not_have_a_huge_clip_built(tmp_path):
    """Shapes with a zero in them cost no byte in a file, and told us to reserve all the memory there is."""
    shapes = {
        "visual.conv1.weight": [768, 0, 1, 4],
        "visual.positional_embedding": [5, 0],
        "positional_embedding": [8, 0],
        "token_embedding.weight": [8, 0],
        "text_projection": [0, 16],
        **{f"{tower}transformer.resblocks.0.x": [0] for tower in ("", "visual.")},
    }
    huge = {
        "projection": {"text_projection": [0, 500_000]},
        "convolution": {"visual.conv1.weight": [5000, 0, 1, 4]},
        "blocks": {f"visual.transformer.resblocks.{i}.x": [0] for i in range(60)},
    }
    for name, change in huge.items():
        entries = {
            k: {"dtype": "F32", "shape": size, "data_offsets": [0, 0]} for k, size in {**shapes, **change}.items()
        }
        header = json.dumps(entries).encode()
        (tmp_path / f"{name}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"  # a failing test must not fill the machine
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
        "from mgs.backbones.table import load_backbone\nfrom mgs.errors import UserError\n"
        "for path in sys.argv[1:]:\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    try: load_backbone(path)\n    except UserError: pass\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    paths = sorted(tmp_path.glob("*.safetensors"))
    command = [sys.executable, "-W", "ignore", "-c", code, *paths]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent)
    assert done.returncode == 0, done.stderr[-500:]
    grown = dict(zip([path.stem for path in paths], map(int, done.stdout.split()), strict=True))  # KB
    assert max(grown.values()) < 500_000, grown


def test_a_pickle_does_not_have_memory_reserved_for_whatever_number_it_names(tmp_path):
    """BYTEARRAY8 with 256 MB and not one of them behind it; the fuzzer's own input named 25 GB."""
    data = b"s\x80\x02\x96" + (1 << 28).to_bytes(8, "little") + b"."
    calls, _ = fuzz_doors.DOORS["checkpoint"].open(tmp_path)
    tracemalloc.start()
    try:
        assert not [problem for call in calls if (problem := fuzz_doors.problem_of(call, data))]
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()


def test_modules_that_name_each_other_over_and_over_are_not_all_walked(tmp_path):
    """Each of 19 levels names the one below twice; with ten names each, 2 KB of pickle would take years."""
    module, data = b"c__torch__\nM\n)R}", b"\x80\x02" + b"c__torch__\nM\n)R}bq\x00"
    for level in range(19):
        below = bytes([level])
        data += module + b"(X\x01\x00\x00\x00ah" + below + b"X\x01\x00\x00\x00bh" + below + b"ubq" + bytes([level + 1])
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/data.pkl", data + b".")
        archive.writestr("w/constants.pkl", b"")
    with pytest.raises(ValueError, match="parts"):
        read_torchscript(tmp_path / "w.pt")
