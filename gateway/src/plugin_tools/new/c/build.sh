#!/bin/sh
# Makes my_plugin.wasm. Needs clang and lld (Debian: `apt-get install clang lld`). GATEWAY says which gateway, where it is not on
# the path.
set -eu
cd "$(dirname "$0")"
clang --target=wasm32 -Os -nostdlib -fno-builtin -Wall -Wextra -Wl,--no-entry,--stack-first,-z,stack-size=16384 \
    -o my_plugin.module.wasm plugin.c
# A module says nothing of the types in its interfaces: the world does.
"${GATEWAY:-gateway}" plugin build my_plugin.module.wasm --world my-plugin --wit wit/world.wit -o my_plugin.wasm
