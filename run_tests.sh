#!/bin/sh
# Check the project with ruff and pytest, in .venv (made if missing): sh ./run_tests.sh [--all] [PYTEST_ARGUMENT ...]
# --all runs the tests marked as slow, too.
set -eu
cd "$(dirname "$0")"
. ./tools/environment.sh
prepare_environment requirements.txt tests/requirements.txt
if [ "${1:-}" = --all ]; then
    shift
    set -- -m "" "$@"
fi
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m pytest tests "$@"
