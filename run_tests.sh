#!/usr/bin/env bash
# The checks of the project: ruff and pytest, in .venv (made if missing). Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
. tools/environment.sh
prepare_environment requirements.txt tests/requirements.txt
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m pytest tests "$@"
