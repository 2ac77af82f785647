#!/bin/sh
# An environment for the tests of medexpert.inspect_voc: inspect_ai's pins (fsspec, typing) conflict
# with those of training. Usage: inspect_env.sh FOLDER; then, from the repository root,
#   PYTHONPATH=src FOLDER/bin/python -m pytest -n 0 tests/test_inspect_voc.py
set -eu
python3 -m venv "$1"
"$1/bin/python" -m pip install --quiet "inspect_ai==0.3.285" "jinja2>=3.1" \
    pytest pytest-timeout pytest-socket pytest-xdist
