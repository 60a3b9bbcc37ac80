#!/usr/bin/env bash
# Installs the clients that the tests write with into target/clients, when they are not there in these versions.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/clients
there=${CARGO_TARGET_DIR:-target}/clients
[ ! -f "$there/versions" ] || ! cat $here/requirements.txt $here/package.json | cmp -s - "$there/versions" || exit 0

echo "Installing clients of InfluxDB into $there" >&2
rm -rf "$there"
mkdir -p "$there/npm"
# The system's Python, for which Debian's packages are.
/usr/bin/python3 -m venv "$there/python"
"$there/python/bin/pip" install -q --disable-pip-version-check -r $here/requirements.txt
cp $here/package.json "$there/npm/"
npm install --prefix "$there/npm" --no-audit --no-fund --no-package-lock --loglevel=error >&2
cat $here/requirements.txt $here/package.json > "$there/versions"
