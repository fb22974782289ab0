#!/usr/bin/env bash
# wgforge and llama.cpp on the same machine, one after the other, as one table:
#
#   benches/beside-llama-cpp.sh MODEL_FOLDER MODEL.gguf [PROMPT [TOKENS]]
#
# Needs `llama-bench` (llama.cpp) and `jq` in the PATH, and `wgforge` there or built in target/release.
# Both read prompts of random tokens and decode greedily; llama-bench decodes from an empty context, so
# wgforge does too. What each reads for a token depends on its file: the bytes stand beside the figures.
set -euo pipefail

if [ $# -lt 2 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
model=$1 gguf=$2 prompt=${3:-512} tokens=${4:-128}
for tool in llama-bench jq; do
  command -v "$tool" >/dev/null || { echo "$tool is not installed: see the first lines of $0" >&2; exit 1; }
done
wgforge=$(command -v wgforge || echo "$(dirname "$0")/../target/release/wgforge")
[ -x "$wgforge" ] || { echo "no wgforge: run \`cargo build --release\` first" >&2; exit 1; }
[ -f "$gguf" ] || { echo "$gguf is no file" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$wgforge" bench --model "$model" --prompt "$prompt" --tokens 2 --json >"$work/prefill.json"
"$wgforge" bench --model "$model" --prompt 1 --tokens "$tokens" --json >"$work/decode.json"
llama-bench -m "$gguf" -p "$prompt" -n "$tokens" -o json >"$work/llama.json"

llama() { jq -r "[.[] | select(.n_prompt == $1 and .n_gen == $2)][0].$3 // empty" "$work/llama.json"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.2f", a / b; else printf "-" }'; }
ours_prefill=$(jq -r .prefill_tok_s "$work/prefill.json")
ours_decode=$(jq -r .decode_tok_s "$work/decode.json")
theirs_prefill=$(llama "$prompt" 0 avg_ts)
theirs_decode=$(llama 0 "$tokens" avg_ts)
if [ -z "$theirs_prefill" ] || [ -z "$theirs_decode" ]; then
  echo "llama-bench printed no figures for $prompt and $tokens tokens" >&2
  exit 1
fi
bytes=$(jq -r '.weight_bytes_per_token / 1e6 | floor' "$work/decode.json")
echo "wgforge: $(jq -r '.adapter + ", " + .backend + ", " + .format + ", kernels " + .kernels' "$work/decode.json"), $bytes MB a token"
echo "llama.cpp: $(jq -r '.[0] | .gpu_info + ", " + (.backends // "") + ", " + .model_type + ", " + (.model_size / 1e6 | floor | tostring) + " MB"' "$work/llama.json")"
echo
printf '| %-22s | %12s | %12s | %6s |\n' "tokens/s" wgforge llama.cpp ratio
printf '|%s|%s|%s|%s|\n' ------------------------ -------------- -------------- --------
printf '| %-22s | %12.1f | %12.1f | %6s |\n' "prefill of $prompt" "$ours_prefill" "$theirs_prefill" "$(ratio "$ours_prefill" "$theirs_prefill")"
printf '| %-22s | %12.1f | %12.1f | %6s |\n' "decode of $tokens" "$ours_decode" "$theirs_decode" "$(ratio "$ours_decode" "$theirs_decode")"
