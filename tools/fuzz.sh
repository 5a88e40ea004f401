#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, each as long as the
# first argument says (30s, 1000000x), and ends with a table of their executions.
# All targets run even if one fails; then the exit status is 1.
set -euo pipefail

fuzztime=${1:-30s}
go=${GO:-go}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# go test -list prints the names of a package's targets, then a line with the package.
targets=$("$go" test -list '^Fuzz' ./... | awk '
	/^Fuzz/       { names[n++] = $1 }
	$1 == "ok"    { for (i = 0; i < n; i++) print $2, names[i]; n = 0 }
')
if [ -z "$targets" ]; then
	echo "no fuzz targets"
	exit 0
fi

table=
status=0
while read -r package name; do
	echo "== $package $name"
	verdict=ok
	"$go" test -run='^$' -fuzz="^$name\$" -fuzztime="$fuzztime" "$package" 2>&1 | tee "$log" || verdict=FAILED
	[ $verdict = ok ] || status=1
	execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
	table+=$(printf '%-6s %14s executions  %s %s' "$verdict" "${execs:-0}" "$package" "$name")$'\n'
done <<<"$targets"

printf '\n%s' "$table"
exit $status
