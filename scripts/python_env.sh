# Sourced by the launchers from the repository's root: sets PYTHON to an interpreter that has all of requirements.txt.
# That is the active environment's, if it fits. Else it is .venv's: the first run makes it, with uv if that is installed.

# Exit 0 if interpreter $1 is one we support and has every requirement in a version that fits.
serves() {
  "$1" - <<'PYTHON' 2>/dev/null
import importlib.metadata, sys
from packaging.requirements import Requirement

if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(1)
for line in open("requirements.txt", encoding="utf-8"):
    if text := line.partition("#")[0].strip():
        requirement = Requirement(text)
        if not requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True):
            sys.exit(1)
PYTHON
}

# The newest supported Python on the PATH.
find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3 python; do
    if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "error: no Python 3.11 to 3.13 on the PATH; install one, or activate an environment that has it" >&2
  return 2
}

make_venv() {
  local python
  echo "First run: making .venv and installing requirements.txt (about 6 GB with the CUDA build of torch, some minutes)" >&2
  if command -v uv >/dev/null; then
    uv venv --quiet --allow-existing --seed --python '>=3.11,<3.14' .venv && uv pip install --quiet --python .venv/bin/python -r requirements.txt
  else
    python=$(find_python) && "$python" -m venv .venv &&
      .venv/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar on -r requirements.txt
  fi || { echo "error: .venv could not be made; see above; fix that, delete .venv and run the command again" >&2; return 2; }
  cp requirements.txt .venv/installed-requirements.txt
}

if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && serves python; then
  PYTHON=python
else
  { .venv/bin/python -c '' && cmp -s requirements.txt .venv/installed-requirements.txt; } 2>/dev/null || make_venv || exit 2
  PYTHON=.venv/bin/python
fi
