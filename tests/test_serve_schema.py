"""The server keeps to what its OpenAPI page tells, whatever is sent; Schemathesis makes the requests from that page."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving import serving

from mgs.scoring.scorer import Scorer

EXAMPLES = 12  # of each address
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header"
)


@pytest.mark.slow
def test_requests_made_from_the_schema_get_what_it_says_and_no_server_error(own_set, tmp_path):
    command = shutil.which("schemathesis") or str(Path(sys.executable).with_name("schemathesis"))
    if not Path(command).exists():
        pytest.skip("schemathesis is not installed")
    with serving({"small": Scorer.zero_shot(str(own_set / "clip.safetensors"), device="cpu")}) as server:
        words = ["--checks", CHECKS, "--max-examples", str(EXAMPLES), "--generation-deterministic"]
        address = f"http://127.0.0.1:{server.port}/openapi.json"
        done = subprocess.run([command, "run", address, *words], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-5000:]
        requests = server.ask("GET", "/metrics").body.decode()
    assert 'path="/score",status="200"' in requests  # not all were refused
    assert 'status="500"' not in requests
