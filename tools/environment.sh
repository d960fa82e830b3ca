# Makes or reuses .venv and installs requirements there; sourced by quickstart.sh and run_tests.sh from the top level.
# Call: prepare_environment REQUIREMENTS_FILE ...; afterwards $python is the interpreter to use.

prepare_environment() {
    python=.venv/bin/python
    if ! [ -x "$python" ]; then
        python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
            echo "error: Python 3.10 or later is needed, python3 is $(python3 --version)" >&2
            return 1
        }
        echo "making .venv"
        python3 -m venv .venv || {
            rm -rf .venv # else a half-made one would be taken for whole next time
            echo "error: python3 -m venv failed; on Debian and Ubuntu install python3-venv" >&2
            return 1
        }
    fi
    stamp=.venv/installed-$(cat "$@" | cksum | tr ' ' '-')
    if ! [ -f "$stamp" ]; then
        echo "installing what is missing of $*"
        set -- $(printf -- '-r %s ' "$@")
        "$python" -m pip install --quiet --disable-pip-version-check "$@"
        touch "$stamp"
    fi
}

number_of_cores() {
    getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1
}

# Says that the programs will take longer, where others keep the processor busy.
warn_if_busy() {
    uptime | awk -v cores="$(number_of_cores)" '{
        sub(/.*load averages?: */, "")
        gsub(/, /, " ")
        if ($1 + 0 > cores / 2) print "note: other programs are busy (load " $1 " on " cores " cores): this will take longer"
    }'
}
