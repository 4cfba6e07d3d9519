#!/usr/bin/env bash
# Line coverage of every crate: target/coverage/html/index.html, and the total on the terminal.
#
# Needs LLVM tools of the version that rustc writes profiles for, and grcov. Both are installed where they
# are missing (apt and cargo); what cannot be installed is named.
set -euo pipefail
cd "$(dirname "$0")"

major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
bin=""
for candidate in "$(rustc --print target-libdir)/../bin" "/usr/lib/llvm-$major/bin"; do
    [[ -x $candidate/llvm-profdata ]] && bin=$candidate && break
done
if [[ -z $bin ]]; then
    echo "installing llvm-$major (rustc writes profiles of LLVM $major)"
    sudo=$([[ $(id -u) == 0 ]] || echo sudo)
    $sudo apt-get update -qq
    if ! DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "llvm-$major" >/dev/null; then
        echo "coverage.sh: no LLVM $major tools: install the package llvm-$major or \`rustup component add llvm-tools\`" >&2
        exit 1
    fi
    bin=/usr/lib/llvm-$major/bin
fi
command -v grcov >/dev/null || { echo "installing grcov"; cargo install --locked grcov; }

out=$PWD/target/coverage
rm -rf "$out/prof" "$out/bin" "$out/html"
mkdir -p "$out/prof" "$out/bin"

# Only our own crates are instrumented; the relocatable counters let a child that is killed keep its counts.
# The wrapper is bash: sh drops variables whose names have a hyphen, such as CARGO_BIN_EXE_broker-mock.
wrapper=$out/rustc-instrumented
cat >"$wrapper" <<'SCRIPT'
#!/bin/bash
exec "$@" -C instrument-coverage -C llvm-args=-runtime-counter-relocation
SCRIPT
chmod +x "$wrapper"
export RUSTC_WORKSPACE_WRAPPER=$wrapper
export CARGO_TARGET_DIR=$out/target
export LLVM_PROFILE_FILE="$out/prof/%p-%m%c.profraw"

./test.sh "$@"

# grcov wants the executables alone: pointed at a whole target folder it takes minutes.
find "$CARGO_TARGET_DIR/debug/deps" "$CARGO_TARGET_DIR/debug" -maxdepth 1 -type f -perm -u+x ! -name '*.so' \
    -exec ln -f {} "$out/bin/" \;
grcov "$out/prof" --binary-path "$out/bin" --llvm-path "$bin" --source-dir . \
    --ignore 'target/*' --ignore '/*' --ignore 'tests/*' --ignore 'benches/*' \
    --output-types html,lcov,markdown --output-path "$out"
[[ -d $out/html ]] || { echo "coverage.sh: grcov wrote no report" >&2; exit 1; }
grep -i '^total' "$out/markdown.md" || tail -n 3 "$out/markdown.md"
report=$out/html/index.html
echo "report: $report"
if [[ -t 1 && -n ${DISPLAY:-}${WAYLAND_DISPLAY:-} ]] && command -v xdg-open >/dev/null; then
    xdg-open "$report" >/dev/null 2>&1 || true
fi
