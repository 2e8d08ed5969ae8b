#!/bin/sh
# Installs torch's CPU build, 200 MB, from its own index, if that can be reached:
#
#   deploy/torch-cpu.sh INDEX REQUIREMENTS PIP...
#
# Otherwise, or if INDEX is empty, it installs nothing, and what pip installs next brings the torch of pip's own index: on
# Linux with 3 GB of CUDA, which nothing here calls. One probe of 3 s decides, because pip would try for minutes.
set -eu
index=${1%/} requirements=$2
shift 2
[ -n "$index" ] || exit 0
probe='import sys, urllib.request; urllib.request.urlopen(sys.argv[1])'
if timeout 3 "${PYTHON:-python3}" -c "$probe" "$index/torch/" 2>/dev/null; then
    # Nothing else comes from there: a package of that index could replace one of ours.
    exec "$@" install --index-url "$index" --no-deps "$(grep '^torch==' "$requirements")"
fi
echo "$index does not answer within 3 s: torch comes from pip's own index" >&2
