#!/usr/bin/env bash
# bases.sh - base images as OCI image layouts, made of what a Debian machine has.
#
#   bases.sh busybox DIR     DIR/busybox, tag latest: the machine's static busybox (package busybox-static)
#   bases.sh debian DIR      DIR/debian, tag bookworm: a minimal Debian 12 (package mmdebstrap; about a minute)
#   bases.sh layout ROOTFS.tar OUT TAG [gzip|zstd|none]
#                            a layout of one layer from any archive of a root file system
#
# A base is made once, and again when this script changes. Several may run at once.
set -euo pipefail

stamp=2026-01-01T00:00:00Z
search_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# blob LAYOUT FILE: moves a file to its place in the layout; prints digest and size
blob() {
  local hash size
  hash=$(sha256sum "$2"); hash=${hash%% *}
  size=$(stat -c %s "$2")
  mv "$2" "$1/blobs/sha256/$hash"
  echo "sha256:$hash $size"
}

# layout ROOTFS.tar OUT TAG [COMPRESSION]
layout() {
  local tar=$1 out=$2 tag=$3 compression=${4:-gzip} part suffix diff_id config layer manifest arch
  part=$(mktemp -d "$out.XXXXXX"); chmod 755 "$part"; mkdir -p "$part/blobs/sha256"
  arch=$(dpkg --print-architecture)
  diff_id=$(sha256sum "$tar"); diff_id=sha256:${diff_id%% *}
  case $compression in
    gzip) gzip -n -6 <"$tar" >"$part/layer"; suffix=+gzip ;;
    zstd) zstd -q -c <"$tar" >"$part/layer"; suffix=+zstd ;;
    none) cp "$tar" "$part/layer"; suffix= ;;
    *) echo "bases.sh: no such compression: $compression" >&2; return 2 ;;
  esac
  printf '{"created":"%s","architecture":"%s","os":"linux","config":{"Env":["PATH=%s"],"Cmd":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":["%s"]},"history":[{"created":"%s","created_by":"%s"}]}' \
    $stamp "$arch" $search_path "$diff_id" $stamp "rootfs of ${out##*/}" >"$part/config"
  read -r -a config <<<"$(blob "$part" "$part/config")"
  read -r -a layer <<<"$(blob "$part" "$part/layer")"
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar%s","digest":"%s","size":%s}]}' \
    "${config[@]}" "$suffix" "${layer[@]}" >"$part/manifest"
  read -r -a manifest <<<"$(blob "$part" "$part/manifest")"
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"%s"}}]}' \
    "${manifest[@]}" "$arch" "$tag" >"$part/index.json"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$part/oci-layout"
  rm -rf "$out"; mv "$part" "$out"
}

# busybox_tar OUT: a root file system of one static program and links to it
busybox_tar() {
  local busybox dir name
  busybox=$(command -v busybox)
  dir=$(mktemp -d)
  mkdir -p "$dir"/{bin,etc,root,usr/bin,usr/sbin,sbin,dev,proc,sys,var}
  mkdir -m 1777 "$dir/tmp"; chmod 755 "$dir"; chmod 700 "$dir/root"
  install -m 755 "$busybox" "$dir/bin/busybox"
  for name in $("$busybox" --list); do
    [ "$name" = busybox ] || ln -s busybox "$dir/bin/$name"
  done
  printf 'root:x:0:0:root:/root:/bin/sh\nwww:x:1000:1000:www:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$dir/etc/passwd"
  printf 'root:x:0:\nwww:x:1000:\nstaff:x:50:www\nnogroup:x:65534:\n' >"$dir/etc/group"
  tar --sort=name --mtime="$stamp" --owner=0 --group=0 --numeric-owner -C "$dir" -cf "$1" .
  rm -rf "$dir"
}

debian_tar() {
  mmdebstrap --variant=minbase --quiet --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' bookworm "$1"
}

# base NAME TAG DIR: DIR/NAME, made unless it is there
base() {
  mkdir -p "$3"
  exec 9>"$3/.$1.lock"; flock 9
  local made_by
  made_by=$(sha256sum <"$0")
  if [ "$made_by" = "$(cat "$3/$1/made-by" 2>/dev/null)" ]; then return; fi
  rm -rf "$3/$1.part.tar"
  "$1_tar" "$3/$1.part.tar"
  layout "$3/$1.part.tar" "$3/$1" "$2"
  rm "$3/$1.part.tar"
  echo "$made_by" >"$3/$1/made-by"
}

case ${1-} in
  busybox) base busybox latest "$2" ;;
  debian) base debian bookworm "$2" ;;
  layout) shift; layout "$@" ;;
  *) sed -n 's/^# \{0,1\}//; 2,9p' "$0" >&2; exit 2 ;;
esac
