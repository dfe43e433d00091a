#!/bin/sh
# Install programs of the system that are missing, where this may be done without asking: as root, with apt-get.
# usage: scripts/system-packages.sh PROGRAM:PACKAGE...   Fails if one is still missing afterwards.
set -eu

missing() {
    for pair in "$@"; do
        command -v "${pair%%:*}" > /dev/null 2>&1 || echo "${pair##*:}"
    done
}

try() { # mirrors have bad minutes
    for pause in 3 10 30; do
        "$@" && return
        echo "failed: $*; once more in $pause s" >&2
        sleep "$pause"
    done
    "$@"
}

wanted=$(missing "$@" | sort -u)
[ -n "$wanted" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    try apt-get -qq update
    # shellcheck disable=SC2086 # a list of names
    try apt-get -qq install --yes --no-install-recommends $wanted > /dev/null
    wanted=$(missing "$@" | sort -u)
    [ -n "$wanted" ] || exit 0
fi
echo "missing: $(echo $wanted)" >&2
echo "  Debian, Ubuntu:  sudo apt-get install $(echo $wanted)" >&2
echo "  macOS:           brew install $(echo $wanted)" >&2
exit 1
