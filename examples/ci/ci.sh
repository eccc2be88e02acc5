#!/usr/bin/env bash
# What CI runs: quantize, then judge. The exit code is the gate's: 0 ship it, 1 do not, 2 bad input, 3 more samples.
#
#   ./ci.sh                   quantize MODEL and judge the result
#   ./ci.sh candidate.onnx    judge this file
#
# Another repository sets MODEL, CALIB and EVAL, or changes these lines.
set -euo pipefail
start=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
MODEL=${MODEL:-../../models/fashion-res8/model.onnx}
CALIB=${CALIB:-../../models/fashion-mnist/calib.npz}
EVAL=${EVAL:-../../models/fashion-mnist/eval.npz}
BUILD=${BUILD:-build}

mkdir -p "$BUILD"
if [[ $# -gt 0 ]]; then
  candidate=$(cd "$start" && realpath "$1")
else
  candidate=$BUILD/int8.onnx
  # the same file on every machine: ranges, places and bits of the weights by rule, not by measurement
  onnxq quantize "$MODEL" --calib "$CALIB" --method minmax --placement rules --no-reduce-range --no-validate -o "$candidate"
fi

onnxq gate --baseline "$MODEL" --candidate "$candidate" --data "$EVAL" --config gate.yaml \
  ${SAMPLES:+--samples "$SAMPLES"} \
  ${UPDATE:+--update-baseline "$UPDATE"} \
  --junit "$BUILD/gate.xml" --summary "${GITHUB_STEP_SUMMARY:-$BUILD/summary.md}"
