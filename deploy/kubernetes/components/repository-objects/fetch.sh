#!/bin/sh
# Copies $MODELS to /models:
#
#   fetch.sh once            and ends; failures are errors
#   fetch.sh each SECONDS    forever; failures are retried
#
# A version's config.pbtxt is copied after its other files and deleted before them, so that half a
# version is never visible. The list of complete versions is read first; later ones wait for the next run.
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
# A shell that waits for a child in the foreground ignores SIGTERM, which would delay the pod's end.
trap 'exit 0' TERM
while true; do
    sleep "$2" &
    wait $!
    fetch || echo "not fetched, tried again in $2 s" >&2
done
