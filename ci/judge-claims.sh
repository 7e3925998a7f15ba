#!/usr/bin/env bash
# Judges the papers' claims about quality on one model and adds the verdicts to results/records/claims.csv.
#
#   ci/judge-claims.sh FOLDER [FILE.gguf|- [CLAIM...]]     FOLDER keeps the runs; a claim that has one there is not measured again
#
# Without FILE, or with `-`, each scenario runs on the embedded model that it names. With FILE that model is replaced, and perplexity is measured on
# the first 4096 tokens of the same text: no rule is changed. `INFERMARK` names the program.
set -uo pipefail
infermark=${INFERMARK:-target/release/infermark}
runs=${1:?"expected a folder for the runs"}
file=${2:-}
[ "$file" != - ] || file=
kept="$(cd "$(dirname "$0")/.." && pwd)/results/records/claims.csv"
mkdir -p "$runs"

claims=(
    int8-outlier-emergence int8-natural-ppl int8-absmax-fails-induced
    smoothquant-w8a8-ppl smoothquant-alpha-u quarot-rotations quarot-w4a4
    nf4-ppl-order nvfp4-vs-mxfp4
    gptq-layer-error gptq-4bit-ppl gptq-3bit-ppl gptq-group-2bit vq-2bit
    awq-salient-channels awq-int3-ppl awq-never-worse awq-calib-efficiency
)

[ $# -lt 3 ] || claims=("${@:3}")

for claim in "${claims[@]}"; do
    run="$runs/$claim"
    if [ -e "$run/claims.json" ]; then
        echo "$claim: $run is there"
        continue
    fi
    replace=()
    if [ -n "$file" ]; then
        case $claim in
            int8-outlier-emergence) replace=(--model "embedded:base=$file") ;; # its other models stay for comparison
            *) replace=(--model "$file") ;;
        esac
        perplexity=$("$infermark" show "$claim" | awk '/^\[\[workload\]\]/ { n++ } /^kind = "perplexity"/ { print n - 1; exit }')
        [ -z "$perplexity" ] || replace+=(--set "workload.$perplexity.max_tokens=4096")
    fi
    began=$SECONDS
    "$infermark" run "$claim" "${replace[@]}" --output "$run" --no-report --quiet
    echo "$claim: exit code $?, $((SECONDS - began)) s" # a refuted claim (1) is a result
    rows=$("$infermark" export "$run" --claims -) && printf '%s\n' "$rows" | tail -n +2 >>"$kept"
done
