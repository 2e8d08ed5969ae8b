#!/bin/sh
# Build as the owner of the repository, so that they own the new files:
#
#   exporter-entrypoint resnet152 --fp16           a build
#   exporter-entrypoint convoy rollback resnet152  any other command, unchanged
set -eu
if [ "${1:-}" != convoy ]; then
    set -- python3 export/build.py "$@"
fi
user=$(stat -c %u "$CONVOY_REPOSITORY")
group=$(stat -c %g "$CONVOY_REPOSITORY")
# Also weights and stages that were cached for another owner.
chown -R "$user:$group" "$XDG_CACHE_HOME"
exec setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs --inh-caps=-all -- "$@"
