#!/usr/bin/env bash
# Fails if go generate changes anything. Uncommitted work does not matter: the
# files are compared with themselves, before and after.
set -euo pipefail

snapshot() { find . -name .git -prune -o -type f -print0 | sort -z | xargs -0 sha256sum; }

before=$(snapshot)
"${GO:-go}" generate ./...
after=$(snapshot)
if ! changed=$(diff <(echo "$before") <(echo "$after")); then
	echo "Generated code differs from its source; run make generate and commit:" >&2
	echo "$changed" | awk '/^[<>]/ { print "  " $3 }' | sort -u >&2
	exit 1
fi
