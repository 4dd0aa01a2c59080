#!/usr/bin/env bash
# Installs the clients that the tests of this folder use: Python packages into the virtual environment of the first
# argument, and Debian's Chromium with its driver, as root or with sudo. Without Chromium, the test of the page is skipped.
set -euo pipefail
cd "$(dirname "$0")"
python3 -m venv "$1"
"$1/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
if command -v chromium > /dev/null && command -v chromedriver > /dev/null; then exit 0; fi
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
{ $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
  chromium chromium-driver fonts-dejavu-core > /dev/null; } || echo "chromium could not be installed" >&2
