#!/usr/bin/env bash
# Runs every test. Installs what is missing on a fresh Debian first: the servers and clients that the tests
# speak to. Each test starts its own servers, on free ports, in a temporary directory, and stops them.
#
#   ./test.sh                 all tests
#   ./test.sh proxy_test      those whose name contains `proxy_test`
set -euo pipefail
cd "$(dirname "$0")"

packages=()
need() { command -v "$1" >/dev/null 2>&1 || packages+=("${@:2}"); }
export PATH="$PATH:/usr/sbin:/sbin"
need cc build-essential
need mosquitto mosquitto
need mosquitto_sub mosquitto-clients
need redis-server redis-server
need rabbitmq-server rabbitmq-server
need nats-server nats-server
need nginx nginx-light
need psql postgresql-client
need microsocks microsocks
need tinyproxy tinyproxy-bin
[[ -n $(ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null) ]] || packages+=(postgresql)
need mariadbd mariadb-server
need mariadb mariadb-client
need curl curl ca-certificates
need h2load nghttp2-client
need openssl openssl
need chromium chromium
need python3 python3 python3-venv
python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
if ((${#packages[@]})); then
    echo "installing: ${packages[*]}"
    sudo=$([[ $(id -u) == 0 ]] || echo sudo)
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

# Python peers: an HTTP origin of great breadth, and a subscriber that is not ours.
venv="${CARGO_TARGET_DIR:-target}/test-venv"
if ! cmp -s tests/requirements.txt "$venv/installed.txt"; then
    echo "installing Python peers into $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt "$venv/installed.txt"
fi
venv=$(cd "$venv" && pwd)
export QPROXY_TEST_PYTHON="$venv/bin/python"

[[ -z ${QPROXY_ONLY_INSTALL:-} ]] || exit 0

# A machine that runs hundreds of connections in one process wants more than 1,024 descriptors.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
exec cargo test --workspace --locked "$@"
