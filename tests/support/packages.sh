#!/usr/bin/env bash
# packages.sh demo|test|bench - installs the Debian packages that a make target needs and that are missing.
#
# Only root can install; for others it says what is missing and ends with status 1.
set -euo pipefail

# program=package
build="cc=gcc make=make"
demo="$build busybox=busybox-static docker-registry=docker-registry skopeo=skopeo newuidmap=uidmap"
test="$demo c++=g++ umoci=umoci runc=runc buildah=buildah mmdebstrap=mmdebstrap strace=strace zstd=zstd openssl=openssl unshare=util-linux"
bench="$demo buildah=buildah runc=runc"

case ${1-} in
  demo) needed=$demo ;;
  test) needed=$test ;;
  bench) needed=$bench ;;
  *) sed -n 's/^# \{0,1\}//; 2,4p' "$0" >&2; exit 2 ;;
esac

missing=()
PATH=$PATH:/usr/sbin:/sbin
for pair in $needed; do
  command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
done
# gcc alone has no headers.
if [ ! -e /usr/include/stdio.h ]; then missing+=(libc6-dev); fi
# A small S3 server; where npm is not, the test that wants it is skipped.
if [ "$1" = test ] && command -v npm >/dev/null; then
  here=$(cd "$(dirname "$0")" && pwd)
  timeout 120 "$here/s3.sh" "$here/../../target/tmp/s3rver" || echo "s3rver cannot be installed" >&2
fi
if ((${#missing[@]} == 0)); then exit 0; fi

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing: ${missing[*]}" >&2
  echo "install them as root: apt-get install -y --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
echo "installing ${missing[*]}" >&2
apt-get -qq update >&2
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2
