#!/bin/sh
# Makes my_plugin.wasm. Needs componentize-py: `pip install -r requirements.txt`.
set -eu
cd "$(dirname "$0")"
# Components get no WASI: what Python would ask of one is answered inside the component.
componentize-py -d wit -w my-plugin componentize --stub-wasi app -o my_plugin.wasm
