# registry.sh - for scripts that need a registry of their own: source it, then call
#
#   start_registry DIR       starts Debian's docker-registry on a free loopback port, with its files
#                            in DIR; sets REGISTRY to HOST:PORT; ends it when the script ends
#   push_base NAME TAG DIR   makes a base image in DIR (see bases.sh) and pushes it as NAME:TAG
# shellcheck shell=bash

support=$(dirname "${BASH_SOURCE[0]}")

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

start_registry() {
  local port try
  port=$((20000 + RANDOM % 30000))
  while answers $port; do port=$((port + 1)); done
  REGISTRY=127.0.0.1:$port
  mkdir -p "$1"
  cat >"$1/registry.yml" <<YML
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $1/storage}}
http: {addr: $REGISTRY}
YML
  OTEL_TRACES_EXPORTER=none docker-registry serve "$1/registry.yml" >"$1/registry.log" 2>&1 &
  REGISTRY_PID=$!
  # shellcheck disable=SC2064
  trap "kill $REGISTRY_PID 2>/dev/null || true" EXIT
  for try in $(seq 300); do
    answers $port && return
    kill -0 "$REGISTRY_PID" 2>/dev/null || break
    sleep 0.1
  done
  echo "the registry did not start after $try tries:" >&2
  cat "$1/registry.log" >&2
  return 1
}

push_base() {
  "$support/bases.sh" "$1" "$3"
  skopeo copy -q --insecure-policy --preserve-digests --dest-tls-verify=false \
    "oci:$3/$1:$2" "docker://$REGISTRY/$1:$2"
}
