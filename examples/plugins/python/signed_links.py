"""Tells whether a link has been signed and is still good: one predicate, `signed`, for an acl to ask.

    plugin "links" "signed-links.wasm" {
        grant "clock"
        on-failure "deny" status=503
        config { key "at least sixteen characters" }
    }
    frontend "web" {
        acl "signed" { plugin "links" predicate="signed" }
        deny status=403 unless="signed"
    }

A link is /PATH?expires=SECONDS&signature=HEX, where HEX is the HMAC with SHA-256 over `PATH?expires=SECONDS`.
"""

import hashlib
import hmac
import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import clock, types
from wit_world.exports import lifecycle

# Positions in the list of needs, in the order of `configure`.
PATH, EXPIRES, SIGNATURE = range(3)

key = b""


def mac(text):
    return hmac.new(key, text, hashlib.sha256).hexdigest().encode()


# There are no files to import from once the component has been made: what is imported late is so now.
mac(b"")


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return lifecycle.Description(
            name="signed-links",
            version="0.1.0",
            about="Tells whether a link has been signed and is still good.",
            needs=needs([]),
            metrics=[],
        )

    def configure(self, config):
        global key
        config = json.loads(config)
        for name in config.keys() - {"key"}:
            refuse(f"there is no `{name}`", f"/{name}")
        text = config.get("key")
        if not isinstance(text, str) or len(text) < 16:
            refuse("a key has at least 16 characters", "/key")
        key = text.encode()
        return needs(["path", "query-param:expires", "query-param:signature"])


class Predicates(exports.Predicates):
    def names(self):
        return ["signed"]

    def evaluate(self, facts):
        return int(is_signed(facts))


def is_signed(facts):
    path, expires, signature = (values(facts, need) for need in (PATH, EXPIRES, SIGNATURE))
    # One of each: of two, the server might look at the other.
    if not len(path) == len(expires) == len(signature) == 1:
        return False
    expires = expires[0]
    if not (expires.isdigit() and len(expires) <= 12):
        return False
    expected = mac(path[0] + b"?expires=" + expires)
    # In constant time.
    return hmac.compare_digest(signature[0], expected) and clock.now_ms() < int(expires) * 1000


def values(facts, need):
    """Every value of a fact: three numbers each, its need and where its value begins and ends."""
    index = facts.index
    return [
        facts.bytes[index[at + 1] : index[at + 2]]
        for at in range(0, len(index), 3)
        if index[at] == need
    ]


def needs(request):
    return types.Needs(request=request, response=[], log=[], connection=[])


def refuse(message, at):
    """The error of the contract: the gateway shows the message, and points at the place in the configuration."""
    raise Err(lifecycle.ConfigError(message=message, at=at))
