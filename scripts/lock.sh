#!/bin/sh
# Write the hashed locks anew from pyproject.toml. Extra arguments go to uv: `scripts/lock.sh --upgrade`.
# No file may say which index it was made from: whoever installs uses the index of their own machine.
set -eu
cd "$(dirname "$0")/.."

compile() {
    out=$1
    shift
    # uv starts from the lock that is there, so versions stay unless an upgrade is asked for.
    "${UV:-.venv/bin/uv}" --quiet pip compile --universal --python-version 3.11 --generate-hashes --no-header \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-config --output-file "$out" "$@" > /dev/null
    { echo "# Made by 'make lock' from pyproject.toml; do not edit."; cat "$out"; } > "$out.new"
    mv "$out.new" "$out"
}

compile requirements.txt pyproject.toml --group build "$@"
compile requirements-dev.txt pyproject.toml --group build --group dev --constraint requirements.txt "$@"
echo "uv" | compile requirements-uv.txt - "$@"

if grep -nE '://|^--' requirements*.txt; then
    echo "a lock names an index or carries an option; see the lines above" >&2
    exit 1
fi
