#!/usr/bin/env bash
# Makes sure that there is a C compiler, which the race detector needs: go links
# its runtime with cgo. Everything else in this project is built without one.
set -euo pipefail

cc=$(go env CC)
if command -v "${cc%% *}" >/dev/null; then
	exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
	echo "The race detector needs a C compiler, and $cc is not installed." >&2
	echo "Install one (Debian, Ubuntu: apt-get install gcc libc6-dev), then run this again." >&2
	exit 1
fi
echo "No C compiler: installing gcc for the race detector."
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null
