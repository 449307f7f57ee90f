#!/usr/bin/env bash
# Run the tests: bash run_tests.sh [--quick] [pytest arguments ...]; --quick leaves out the slow ones.
set -euo pipefail
cd "$(dirname "$0")"
source scripts/python_env.sh
"$PYTHON" -c 'import pytest, hypothesis' 2>/dev/null || "$PYTHON" -m pip install --quiet --disable-pip-version-check 'pytest>=8.0' 'hypothesis>=6.100'
if [ "${1:-}" = --quick ]; then
  shift
  set -- -m "not slow" "$@"
fi
exec "$PYTHON" -m pytest "$@"
