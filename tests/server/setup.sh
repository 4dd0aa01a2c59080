#!/usr/bin/env bash
# Installs the clients that the tests of this folder use: Python packages into the virtual environment of the first
# argument, nginx beside them, and Debian's Chromium with its driver, as root or with sudo. Without nginx or Chromium, the
# tests that need them are skipped.
set -euo pipefail
environment=$(realpath -m "$1")
cd "$(dirname "$0")"
python3 -m venv "$environment"
"$environment/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
has_browser() { command -v chromium > /dev/null && command -v chromedriver > /dev/null; }
has_nginx() { [ -e "$environment/nginx" ] || command -v nginx > /dev/null; }
if has_browser && has_nginx; then exit 0; fi
$sudo apt-get update -qq || true
if ! has_browser; then
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
    chromium chromium-driver fonts-dejavu-core > /dev/null || echo "chromium could not be installed" >&2
fi
if ! has_nginx; then
  # unpacked, so that no service of it is started
  packages=$(mktemp -d)
  { (cd "$packages" && apt-get download -qq nginx) && dpkg -x "$packages"/nginx_*.deb "$environment/nginx"; } \
    || echo "nginx could not be got" >&2
  rm -rf "$packages"
fi
