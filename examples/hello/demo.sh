#!/usr/bin/env bash
# demo.sh - builds this folder with kiln and shows the image: `make demo`.
#
# The base is the public busybox. Where no registry answers it is this machine's own busybox, as an
# image in a registry that runs for as long as the demo does.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
work=$top/target/demo
export KILN_ROOT=$work/store

"$top/tests/support/packages.sh" demo
cargo build --release --locked --quiet --manifest-path "$top/Cargo.toml" -p kiln
kiln=$top/target/release/kiln

show() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }

base=()
if ! timeout 20 "$kiln" build --progress=quiet --print=graph "$here" >/dev/null 2>&1; then
  echo "no public registry answers: the base is the busybox of this machine"
  # shellcheck source=tests/support/registry.sh
  . "$top/tests/support/registry.sh"
  start_registry "$work/registry"
  push_base busybox latest "$work/bases"
  base=(--build-context "busybox=docker-image://$REGISTRY/busybox:latest")
fi

show kiln build -t hello "${base[@]}" examples/hello
"$kiln" build -t hello "${base[@]}" "$here"
show kiln images
"$kiln" images
show kiln inspect hello
"$kiln" inspect hello
show kiln inspect --files hello "| tail"
"$kiln" inspect --files hello >"$work/files"
tail "$work/files"
echo "$(wc -l <"$work/files") files"
show kiln build -t hello "${base[@]}" examples/hello "# again: nothing runs"
"$kiln" build -t hello "${base[@]}" "$here"
