"""The container files name options, ports, files and variables that are there; nothing here builds an image."""

import fnmatch
import json
import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import typer
import yaml

from mgs.cli import app
from mgs.serve.middleware import OPEN

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "containers"
DOCKERFILE = re.sub(r"\\\n\s*", "", (FOLDER / "Dockerfile").read_text(encoding="utf-8"))
COMPOSE, CUDA, PROMETHEUS = (
    yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    for name in ("compose.yaml", "compose.cuda.yaml", "prometheus.yml")
)
SERVICES = COMPOSE["services"]


def lines_of(instruction):
    return [line.removeprefix(f"{instruction} ") for line in DOCKERFILE.splitlines() if line.startswith(instruction)]


def serve_options():
    command = typer.main.get_command(app).commands["serve"]
    return {name: option for option in command.params for name in option.opts}


def entrypoint():
    program, command, *words = json.loads(lines_of("ENTRYPOINT")[0])
    assert (program, command) == ("mgs", "serve")
    return dict(zip(words[::2], words[1::2], strict=True))


def test_the_options_are_those_of_mgs_serve():
    options = serve_options()
    words = [*entrypoint(), *(word for word in SERVICES["mgs"]["command"] if word.startswith("--"))]
    assert set(words) <= options.keys()
    assert options["--token"].envvar == "MGS_TOKEN"
    assert all("MGS_TOKEN" in service["environment"] for service in SERVICES.values())


def test_everybody_asks_at_the_same_port():
    port = entrypoint()["--port"]
    assert lines_of("EXPOSE") == [port]
    checked = urlsplit(re.search(r"http://[^']*", DOCKERFILE[DOCKERFILE.index("HEALTHCHECK") :])[0])
    assert (str(checked.port), checked.path in OPEN) == (port, True)
    assert [published.rpartition(":")[2] for published in SERVICES["mgs"]["ports"]] == [port]
    (job,) = PROMETHEUS["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"mgs:{port}"]}]
    assert f"> {job['authorization']['credentials_file']};" in SERVICES["prometheus"]["entrypoint"][2]


def test_what_is_copied_and_mounted_is_there():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    copied = [name for line in lines_of("COPY") if not line.startswith("--from") for name in line.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", "mgs", "configs"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
        last = [rule for rule in ignored if fnmatch.fnmatch(name, rule.lstrip("!"))][-1]  # the last rule decides
        assert last.startswith("!"), name
    build = SERVICES["mgs"]["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).resolve() == FOLDER / "Dockerfile"
    mounted = [volume.split(":")[0] for volume in SERVICES["prometheus"]["volumes"]]
    assert (FOLDER / mounted[0]).is_file()
    assert mounted[1:] == list(COMPOSE["volumes"])


def test_the_build_takes_its_argument_and_an_extra_that_there_is():
    arguments = {line.split("=")[0] for line in lines_of("ARG")}
    for file in (COMPOSE, CUDA):
        assert file["services"]["mgs"]["build"]["args"].keys() == arguments
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert re.findall(r"'\.\[(\w+)\]'", DOCKERFILE) == ["web"]
    assert "web" in extras


def test_containers_are_confined():
    assert lines_of("USER") == ["10001:10001"]
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"mem_limit", "pids_limit"} <= service.keys(), name
        assert all(volume.endswith(":ro") for volume in service["volumes"] if volume[0] in "./$"), name
