#!/usr/bin/env bash
# s3.sh DIR - installs a small S3 server (the npm package s3rver) in DIR, unless it is there.
set -euo pipefail
dir=$1
if [ -x "$dir/node_modules/.bin/s3rver" ]; then exit 0; fi
mkdir -p "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" s3rver@3.7.1 >&2
