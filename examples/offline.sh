#!/usr/bin/env bash
# Evaluate on a machine without internet.
#
#     examples/offline.sh fetch DIR     on a machine with a network
#     examples/offline.sh run DIR       on the other one, with a copy of DIR
#
# Settings by environment variables: MODEL, SUITE or TASK.
set -euo pipefail

STEP=$1 DIR=$2
MODEL=${MODEL:-all}
if [ -n "${TASK:-}" ]; then WHAT=(--task "$TASK"); else WHAT=(--suite "${SUITE:-quick}"); fi

case $STEP in
fetch)
    bench data mirror "$DIR" --model "$MODEL" "${WHAT[@]}"
    ;;
run)
    export HF_HUB_OFFLINE=1 PIP_NO_INDEX=1
    bench data check "$DIR" --model "$MODEL" "${WHAT[@]}"
    bench run --model "$MODEL" "${WHAT[@]}" --data "$DIR"
    ;;
*)
    echo "expected fetch or run, got $STEP" >&2
    exit 2
    ;;
esac
