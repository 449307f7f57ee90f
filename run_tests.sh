#!/usr/bin/env bash
# Run the tests on all cores: bash run_tests.sh [--all] [pytest arguments ...]; --all adds the slow ones.
set -euo pipefail
cd "$(dirname "$0")"
source scripts/python_env.sh

# Install the packages that are missing or too old, for the Python that runs the tests.
need() {
  "$PYTHON" - "$@" <<'PYTHON' 2>/dev/null || "$PYTHON" -m pip install --quiet --disable-pip-version-check "$@"
import importlib.metadata, sys
from packaging.requirements import Requirement

for requirement in map(Requirement, sys.argv[1:]):
    if not requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True):
        sys.exit(1)
PYTHON
}

need 'pytest>=8.0' 'pytest-xdist>=3.2' 'hypothesis>=6.100' 'onnx>=1.21' 'onnxscript>=0.2' 'onnxruntime>=1.18' \
  'torchmetrics>=1.3' 'pyarrow>=23.0.1' 'duckdb>=2.0' 'huggingface_hub>=0.23' 'playwright>=1.40' 'open_clip_torch>=3.3' 'transformers>=4.56' 'aiohttp>=3.14.3' \
  'fastapi>=0.121' 'starlette>=0.49.1' 'fastapi-offline>=1.7' 'uvicorn>=0.34' 'httptools>=0.6.3' 'python-multipart>=0.0.20' 'prometheus-client>=0.20'
case " $* " in *" --all "*)
  need atheris || echo "no atheris for this machine: the fuzzing will be skipped" >&2
  need 'schemathesis>=4.0' 'axe-playwright-python>=0.1.4' || echo "no Schemathesis or axe: their tests will be skipped" >&2
  need 'ray[data,serve]>=2.60' || echo "no Ray for this machine: its tests will be skipped" >&2 ;;
esac
export OMP_NUM_THREADS=1  # each worker has one core
exec "$PYTHON" -m pytest --quiet -n auto --maxprocesses 8 --dist worksteal "$@"
