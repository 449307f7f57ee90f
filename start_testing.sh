#!/usr/bin/env bash
# Test what start_training.sh trained and write the tables: bash start_testing.sh [CONFIG.yaml ...] [key=value ...]
set -euo pipefail
cd "$(dirname "$0")"
source scripts/python_env.sh
exec "$PYTHON" test.py "$@"
