#!/bin/sh
# Brings /models to what is at $MODELS:
#
#   fetch.sh once            and ends; what fails is a failure
#   fetch.sh each SECONDS    for ever; what fails is tried again
#
# A version's config.pbtxt comes after its other files and goes before them, so that nobody finds half
# a version. What is whole is asked first: what arrives later, or in between, waits for the next time.
set -eu
models=${CONVOY_REPOSITORY:-/models}

fetch() {
    whole=$(rclone lsf --recursive --files-only --include '/*/config.pbtxt' "$MODELS") &&
        withdraw_all_but "$whole" &&
        rclone sync --exclude '/*/config.pbtxt' "$MODELS" "$models" &&
        echo "$whole" | rclone copy --files-from - "$MODELS" "$models"
}

withdraw_all_but() {
    for config in "$models"/*/config.pbtxt; do
        echo "$1" | grep -qxF "${config#"$models"/}" || rm -f "$config"
    done
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
