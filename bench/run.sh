#!/usr/bin/env bash
# bench/run.sh - kiln beside Debian's buildah, and docker where an engine answers, in one run.
#
# Prints a Markdown table and writes it to bench/RESULTS.md. Every row is measured in turn for all
# tools, so that they meet the same machine. Times are medians, with minimum and maximum.
#   REPEAT=N   measurements of a row (5)
#   FILES=N    files of the context (10000)   BYTES=N   their size in all (200000000)
#   TOOLS=...  of: kiln buildah docker
#   RESULTS=FILE  where the table goes (bench/RESULTS.md)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
REPEAT=${REPEAT:-5} FILES=${FILES:-10000} BYTES=${BYTES:-200000000}
RESULTS=${RESULTS:-$here/RESULTS.md}
work=$(mktemp -d "${TMPDIR:-/tmp}/kiln-bench.XXXXXX")
log=$work/log

# shellcheck source=tests/support/registry.sh
. "$top/tests/support/registry.sh"
"$support/packages.sh" bench
cargo build --release --locked --quiet --manifest-path "$top/Cargo.toml" -p kiln
rustc --edition 2024 -O -o "$work/measure" "$here/measure.rs"
kiln=$top/target/release/kiln
# A stable name, so that store paths and names do not depend on the run.
mkdir "$work/cases" "$work/kiln" "$work/buildah"

cleanup() {
  kill "$REGISTRY_PID" 2>/dev/null || true
  rm -rf "$work"
}
start_registry "$work/registry"
trap cleanup EXIT
push_base busybox latest "$top/target/tmp/bases"
base=$REGISTRY/busybox:latest

# --- the tools: TOOL_build CASE FLAGS... builds $work/cases/CASE; TOOL_reset empties its store ----

kiln_build() {
  local case=$1; shift
  run env KILN_ROOT="$work/kiln" "$kiln" build --progress=plain -t "bench-$case" "$@" "$work/cases/$case"
}
kiln_reset() { rm -rf "$work/kiln"; }

buildah_args=()
buildah_cmd() {
  buildah --storage-driver "$buildah_storage" --root "$work/buildah/root" --runroot "$work/buildah/run" "$@"
}
buildah_build() {
  local case=$1; shift
  run buildah --storage-driver "$buildah_storage" --root "$work/buildah/root" --runroot "$work/buildah/run" \
    bud --layers --tls-verify=false --jobs 8 "${buildah_args[@]}" -t "bench-$case" "$@" "$work/cases/$case"
}
buildah_reset() { buildah_cmd rmi -a -f >>"$log" 2>&1 || true; }

# TOOL_shared to|from: the flags that write and read a cache in the registry
kiln_shared() { echo "--cache-$1=type=registry,ref=$REGISTRY/bench/kiln:cache$([ "$1" = from ] || echo ,mode=max)"; }
buildah_shared() { echo "--cache-$1=$REGISTRY/bench/buildah"; }

docker_build() {
  local case=$1; shift
  run docker build -t "bench-$case" "$@" "$work/cases/$case"
}
docker_reset() { docker builder prune -af >>"$log" 2>&1; }

# run COMMAND...: prints "MILLISECONDS KIBIBYTES"; ends the benchmark when the command fails
run() {
  local result also=()
  for name in "${daemons[@]}"; do also+=(--also "$name"); done
  result=$("$work/measure" "${also[@]}" "$@" 2>>"$log")
  if [ "${result##* }" != 0 ]; then
    echo "failed: $*" >&2
    tail -30 "$log" >&2
    exit 1
  fi
  echo "${result% *}"
}

# --- which tools there are ---------------------------------------------------------------------

tools=() daemons=()
buildah_works() {
  for buildah_storage in overlay vfs; do
    for isolation in oci chroot; do
      buildah_args=(--isolation "$isolation")
      if [ "$isolation" = oci ] && command -v runc >/dev/null; then buildah_args+=(--runtime "$(command -v runc)"); fi
      if (buildah_build one --no-cache >/dev/null 2>&1); then return 0; fi
    done
  done
  return 1
}
is_wanted() { [[ " ${TOOLS:-kiln buildah docker} " == *" $1 "* ]]; }

# --- the cases ---------------------------------------------------------------------------------

dockerfile() { mkdir -p "$work/cases/$1"; cat >"$work/cases/$1/Dockerfile"; }

{ echo "FROM $base"; echo "RUN true"; } | dockerfile one
{ echo "FROM $base"; for n in $(seq 20); do echo "RUN true # $n"; done; } | dockerfile twenty
{
  for n in $(seq 8); do printf 'FROM %s AS s%s\nRUN sleep 1 # %s\nRUN touch /done-%s\n' "$base" "$n" "$n" "$n"; done
  echo "FROM $base"
  for n in $(seq 8); do echo "COPY --from=s$n /done-$n /"; done
} | dockerfile stages
dockerfile context <<EOD
FROM $base
LABEL purpose=bench
ENV A=1
WORKDIR /app
COPY first.txt /app/
RUN cp first.txt second.txt
ENV B=2
COPY . /app
RUN ls | wc -l > /count
RUN mkdir -p /out && cp /count /out/
EXPOSE 80
CMD ["cat", "/out/count"]
EOD
echo first >"$work/cases/context/first.txt"
make_files() {
  local size=$((BYTES / FILES)) n dir
  for n in $(seq 0 $((FILES - 1))); do
    dir=$work/cases/context/d$((n / 100))
    [ $((n % 100)) != 0 ] || mkdir "$dir"
    echo "$dir/f$n"
  done >"$work/names"
  # One stream of random bytes, cut into files.
  head -c "$((size * FILES))" /dev/urandom | split -b "$size" -a 8 -d - "$work/part."
  paste -d ' ' <(ls "$work"/part.*) "$work/names" | while read -r from to; do echo "mv $from $to"; done | sh
}
make_files

# A changed comment: the compiler (here: a filter) gives the same bytes, and what follows stays.
{
  echo "FROM $base AS build"
  echo "COPY source /source"
  echo "RUN grep -v '^#' /source > /program"
  echo "FROM $base"
  echo "COPY --from=build /program /program"
  for n in $(seq 10); do echo "RUN sleep 0.2; wc -c /program > /out-$n"; done
} | dockerfile cutoff
# Graphs of trivial steps: N stages of three, and one that copies from each.
graph() {
  {
    for n in $(seq "$1"); do printf 'FROM scratch AS s%s\nCOPY --link source /x%s\nCOPY --link source /y\nWORKDIR /z\n' "$n" "$n"; done
    echo 'FROM scratch'
    for n in $(seq "$1"); do echo "COPY --link --from=s$n /x$n /x$n"; done
  } | dockerfile "graph$1"
}
graph 1250
graph 2500
for name in cutoff graph1250 graph2500; do printf '# a comment\nprogram\n' >"$work/cases/$name/source"; done
# Contexts of N small files.
many() {
  { echo 'FROM scratch'; echo 'COPY files /files'; } | dockerfile "many$1"
  (cd "$work/cases/many$1" && for n in $(seq "$(($1 / 500))"); do mkdir -p "files/d$((n / 20))/e$n"; done &&
    for dir in files/*/*; do (cd "$dir" && seq 500 | split -l 1 -a 3 -d - f); done)
}
many 50000
many 200000

if is_wanted kiln; then tools+=(kiln); fi
if is_wanted buildah && command -v buildah >/dev/null && buildah_works; then tools+=(buildah); fi
if is_wanted docker && docker info >/dev/null 2>&1; then tools+=(docker); fi
echo "tools: ${tools[*]}; log: $log" >&2

# --- measuring ---------------------------------------------------------------------------------

# sample CASE TOOL FLAGS...: appends a measurement to $work/CASE.TOOL
sample() {
  local row=$1 tool=$2; shift 2
  daemons=()
  [ "$tool" != docker ] || daemons=(dockerd containerd docker-buildx buildkitd)
  "${tool}_build" "$@" >>"$work/row.$row.$tool"
}

for tool in "${tools[@]}"; do
  daemons=()
  echo "warming up $tool" >&2
  "${tool}_build" one --no-cache >/dev/null
  "${tool}_reset"
done
for tool in "${tools[@]}"; do sample cold "$tool" context; done
for tool in "${tools[@]}"; do sample warm-up "$tool" cutoff; done
# A cache in a registry, written by a warm store and read by an empty one. Docker's own builder has none.
for tool in "${tools[@]}"; do
  [ "$tool" != docker ] || continue
  sample shared-to "$tool" cutoff "$("${tool}_shared" to)"
  sample shared-none "$tool" cutoff "$("${tool}_shared" to)"
  "${tool}_reset"
  sample shared-from "$tool" cutoff "$("${tool}_shared" from)"
done
# Only kiln: what takes the others minutes.
alone=(graph1250 graph2500 many50000 many200000)
for case in "${alone[@]}"; do is_wanted kiln && sample "first-$case" kiln "$case"; done
# What changed just now is looked at more closely; this is over after a moment.
sleep 3
for ((n = 0; n < REPEAT; n++)); do
  echo "round $((n + 1)) of $REPEAT" >&2
  for tool in "${tools[@]}"; do sample unchanged "$tool" context; done
  for tool in "${tools[@]}"; do sample one "$tool" one --no-cache; done
  for tool in "${tools[@]}"; do sample twenty "$tool" twenty --no-cache; done
  for tool in "${tools[@]}"; do sample stages "$tool" stages --no-cache; done
  for case in "${alone[@]}"; do is_wanted kiln && sample "$case" kiln "$case"; done
  echo "# $n" >>"$work/cases/cutoff/source"
  for tool in "${tools[@]}"; do sample cutoff "$tool" cutoff; done
  echo "$n" >>"$work/cases/context/d0/f0"
  for tool in "${tools[@]}"; do sample changed "$tool" context; done
done

# --- the table ---------------------------------------------------------------------------------

# times ROW TOOL: median (min-max) in the first column
times() {
  sort -n "$work/row.$1.$2" | awk '{ t[NR] = $1 } END {
    m = NR % 2 ? t[(NR + 1) / 2] : (t[NR / 2] + t[NR / 2 + 1]) / 2
    if (NR > 1) printf "%.0f ms (%.0f-%.0f)", m, t[1], t[NR]; else printf "%.0f ms", m }'
}
per_step() {
  paste <(sort -n "$work/row.twenty.$1") <(sort -n "$work/row.one.$1") |
    awk '{ t[NR] = ($1 - $3) / 19 } END { printf "%.1f ms", t[int((NR + 1) / 2)] }'
}
peak() {
  # The largest contexts have rows of their own.
  find "$work" -name "row.*.$1" ! -name 'row.*many*' ! -name 'row.*graph*' -exec sort -k2 -n {} + | tail -1 | awk '{ printf "%.0f MB", $2 * 1024 / 1e6 }'
}
# alone ROW [peak]: as times or peak, for what only kiln was asked
alone() {
  if [ "${*: -1}" != kiln ]; then echo -n "not asked"; return; fi
  times "$1" kiln
  sort -k2 -n "$work/row.$1.kiln" | tail -1 | awk '{ printf ", %.0f MB", $2 * 1024 / 1e6 }'
}
# shared ROW TOOL: as times, for what docker is not asked
shared() {
  if [ "$2" = docker ]; then echo -n "not asked"; else times "$@"; fi
}
row() { # LABEL AIM COMMAND...
  local label=$1 aim=$2 tool; shift 2
  printf '| %s | %s |' "$label" "$aim"
  for tool in "${tools[@]}"; do printf ' %s |' "$("$@" "$tool")"; done
  echo
}
version_of() {
  case $1 in
    kiln) "$kiln" --version ;;
    buildah) echo "$(buildah --version) (storage $buildah_storage, ${buildah_args[*]})" ;;
    docker) docker version --format 'docker {{.Server.Version}}' ;;
  esac
}
{
  echo "# Results"
  echo
  echo "Written by \`make bench\` on $(date -u +%Y-%m-%d); kiln at $(git -C "$top" describe --always --dirty 2>/dev/null || echo unknown)."
  echo
  echo "Machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) processors," \
    "$(awk '/MemTotal/ { printf "%.0f GB", $2 / 1e6 }' /proc/meminfo) memory," \
    "$(stat -f -c %T "$work") file system, Linux $(uname -r), $(. /etc/os-release && echo "$PRETTY_NAME")."
  echo
  for tool in "${tools[@]}"; do echo "- $(version_of "$tool")"; done
  echo
  echo "Wall clock of the whole command: median of $REPEAT (minimum-maximum). Memory: the highest sum of"
  echo "resident sets of all processes that the command started$(is_wanted docker && [[ " ${tools[*]} " == *" docker "* ]] && echo ", and of docker's daemons")."
  echo
  printf '| work | aim |'; printf ' %s |' "${tools[@]}"; echo
  printf '|---|---|'; for tool in "${tools[@]}"; do printf -- '---|'; done; echo
  row "per RUN: (20 x \`RUN true\` less 1) / 19" "≤ 8 ms" per_step
  row "one \`RUN true\`, nothing cached" "" times one
  row "unchanged rebuild, 12 steps, $FILES files, $((BYTES / 1000000)) MB" "≤ 50 ms" times unchanged
  row "one file of them changed" "" times changed
  row "the first time" "" times cold
  row "a change that the next step's output does not show: early cut-off, 10 steps of 0.2 s behind it" "" times cutoff
  row "the same 12 steps, all cached, written to a cache in a registry" "" shared shared-to
  row "the same again: nothing is new" "" shared shared-none
  row "the same with an empty store and that cache" "≤ 3 s" shared shared-from
  row "unchanged graph of 5000 trivial steps" "" alone graph1250
  row "unchanged graph of 10000 trivial steps" "≤ 500 ms" alone graph2500
  row "unchanged context of 50000 files" "" alone many50000
  row "unchanged context of 200000 files" "" alone many200000
  row "the first time: 200000 files" "" alone first-many200000
  row "8 stages of \`sleep 1\`" "≤ 1100 ms" times stages
  row "peak memory of all these" "≤ 100 MB" peak
  echo
  echo "The solver alone, with a worker that finds every vertex at once (\`cargo bench -p kiln-solver\`); aim for 10000: ≤ 500 ms:"
  echo
  echo '```'
  cargo bench --quiet --locked --manifest-path "$top/Cargo.toml" -p kiln-solver 2>/dev/null
  echo '```'
} | tee "$RESULTS"
