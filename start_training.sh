#!/usr/bin/env bash
# Train, then test: bash start_training.sh [CONFIG.yaml ...] [key=value ...]
# With no config: every dataset found under data/, or the demo where there is none.
set -euo pipefail
cd "$(dirname "$0")"
source scripts/python_env.sh
exec "$PYTHON" train.py --then-test "$@"  # one process, since a shell would not pass SIGTERM on
