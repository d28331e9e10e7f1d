#!/bin/sh
# Installs one program of token.place into a folder of its own: install.sh FOLDER PROGRAM [EXTRAS]
#
#   relay      what the blind middle needs and nothing that could open a seal: no `cryptography`, no model
#   all else   the package with the extras that are named, such as `node` or `gateway,valkey`
#
# Run from the root of a clone. The images use it, and so does the test that stands in for them.
set -eu
folder=$1 program=$2 extras=${3:-$2}
python=${PYTHON:-python3}

"$python" -m venv --without-pip "$folder"
pip() { "$python" -m pip --disable-pip-version-check --quiet --python "$folder/bin/python" "$@"; }

if [ "$program" = relay ]; then
  "$python" deploy/docker/relay_requirements.py > "$folder/requirements.txt"
  pip install --no-cache-dir --constraint constraints.txt --requirement "$folder/requirements.txt"
  pip install --no-cache-dir --no-deps .
else
  pip install --no-cache-dir --constraint constraints.txt ".[$extras]"
fi
find "$folder" -type d -name __pycache__ -prune -exec rm -rf {} +
