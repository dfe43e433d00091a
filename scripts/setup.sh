#!/bin/sh
# Make .venv with exactly what the locks say, and the project in it: `scripts/setup.sh [run|dev]`.
# Does nothing when nothing has changed. Needs Python >= 3.11 with venv, and an index that pip can reach.
set -eu
cd "$(dirname "$0")/.."
kind=${1:-run}
venv=.venv
stamp=$venv/headcount-setup

fits() { # is this an interpreter that can make the environment?
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if fits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    explain >&2
    exit 1
}

explain() {
    echo "Headcount needs Python 3.11 or newer, with its venv module. What is here:"
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        version=$("$candidate" -V 2>&1) || version="not found"
        "$candidate" -c 'import ensurepip, venv' > /dev/null 2>&1 || version="$version, without venv"
        echo "  $candidate: $(echo "$version" | head -n 1)"
    done
    echo "Debian, Ubuntu:  sudo apt-get install python3 python3-venv"
    echo "Fedora:          sudo dnf install python3"
    echo "macOS:           brew install python@3.13"
    echo "Elsewhere:       make setup PYTHON=/path/to/python3.11"
}

wanted() { # what the environment must have been made from
    cat requirements-uv.txt requirements.txt requirements-dev.txt pyproject.toml scripts/setup.sh | cksum
    pwd
}

is_current() { # an environment for development serves for running too
    [ -x $venv/bin/headcount ] || return 1
    for have in "$kind" dev; do
        [ "$(cat $stamp 2> /dev/null)" = "$have $(wanted)" ] && return 0
    done
    return 1
}

make_environment() {
    fits $venv/bin/python || "$(find_python)" -m venv --clear $venv
    [ -x $venv/bin/uv ] && return
    $venv/bin/python -m pip --version > /dev/null 2>&1 || $venv/bin/python -m ensurepip > /dev/null
    $venv/bin/python -m pip --quiet --disable-pip-version-check install \
        --require-hashes --only-binary :all: -r requirements-uv.txt
}

fill_environment() {
    case $kind in
        run) lock=requirements.txt ;;
        dev) lock=requirements-dev.txt ;;
        *) echo "usage: scripts/setup.sh [run|dev]" >&2; exit 2 ;;
    esac
    uv="$venv/bin/uv --quiet --system-certs pip" # the machine's certificates, as pip uses them
    # With bytecode, here and below: where PYTHONDONTWRITEBYTECODE is set nobody would write it later, and
    # each command would compile what it imports.
    $uv sync --python $venv/bin/python --require-hashes --compile-bytecode requirements-uv.txt $lock
    # The build backend comes from the lock too, so nothing is fetched without a hash.
    $uv install --python $venv/bin/python --no-build-isolation --no-deps --editable .
    $venv/bin/python -m compileall -q src
}

if is_current; then exit 0; fi
python=$(fits $venv/bin/python && echo $venv/bin/python || find_python) # says what is missing, before anything is made
echo "setting up $venv ($kind) with $("$python" -V)"
rm -f $stamp
make_environment
fill_environment
echo "$kind $(wanted)" > $stamp
echo "ready: $venv/bin/headcount"
