#!/usr/bin/env bash
# Everything worth measuring on a GPU, in at most 9 minutes: bash benchmarks/gpu.sh [OUT.json]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/python_env.sh
exec timeout 540 "$PYTHON" -m benchmarks.gpu --out "${1:-runs/gpu.json}"
