#!/bin/sh
# Brings /models to what is at $MODELS:
#
#   fetch.sh once            and ends; what fails is a failure
#   fetch.sh each SECONDS    for ever; what fails is tried again
#
# A version's config.pbtxt comes after its other files, so that nobody finds half a version.
set -eu
models=${CONVOY_REPOSITORY:-/models}

fetch() {
    rclone copy --exclude '/*/config.pbtxt' "$MODELS" "$models" && rclone sync "$MODELS" "$models"
}

if [ "$1" = once ]; then
    fetch
    exit
fi
# A shell that waits for a child in the foreground heeds no SIGTERM, and the pod would wait for it.
trap 'exit 0' TERM
while true; do
    sleep "$2" &
    wait $!
    fetch || echo "not fetched, tried again in $2 s" >&2
done
