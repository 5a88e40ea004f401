#!/usr/bin/env bash
# Makes sure that there is a redis-server. Tests of what goes through Redis start
# their own ones from it, and need none that runs.
set -euo pipefail

if command -v redis-server >/dev/null; then
	exit 0
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
	as_root=(sudo -n)
fi
if ! command -v apt-get >/dev/null || { [ ${#as_root[@]} != 0 ] && ! sudo -n true 2>/dev/null; }; then
	echo "The tests need redis-server, which is not installed, and this script cannot install it:" >&2
	echo "it takes apt-get, and root or sudo without a password." >&2
	echo "Install it (Debian, Ubuntu: apt-get install redis-server; macOS: brew install redis)," >&2
	echo "then run this again." >&2
	exit 1
fi
echo "No redis-server: installing it for the tests."
"${as_root[@]}" apt-get update -qq
# RUNLEVEL=1 keeps the package from starting a server of its own.
"${as_root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
	apt-get install -y -qq --no-install-recommends redis-server >/dev/null
