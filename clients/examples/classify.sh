#!/bin/sh
# One image by curl: classify.sh http://localhost:8080 lenet5 IMAGE
# Where keys are on, add: -H "authorization: Bearer $CONVOY_API_KEY"
exec curl --silent --show-error --fail-with-body --max-time 10 \
    --data-binary "@$3" "$1/v1/models/$2:classify?top_k=3"
