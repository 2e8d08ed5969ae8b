#!/bin/sh
# Builds as the owner of the repository, so that what it writes is theirs:
#
#   exporter-entrypoint resnet152 --fp16           a build
#   exporter-entrypoint convoy rollback resnet152  another command, as it stands
set -eu
if [ "${1:-}" != convoy ]; then
    set -- python3 export/build.py "$@"
fi
user=$(stat -c %u "$CONVOY_REPOSITORY")
group=$(stat -c %g "$CONVOY_REPOSITORY")
# Weights and stages that were kept for another owner, too.
chown -R "$user:$group" "$XDG_CACHE_HOME"
exec setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs --inh-caps=-all -- "$@"
