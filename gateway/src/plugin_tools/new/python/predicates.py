"""my-plugin: answers a question for acls: whether a request's method is one that the operator has allowed."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import lifecycle
from wit_world.imports import types

# Positions in the list of needs, in the order of `configure`.
METHOD = 0

allowed = []


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return lifecycle.Description(
            name="my-plugin",
            version="0.1.0",
            about="Tells whether a request's method is allowed.",
            needs=needs([]),
            metrics=[],
        )

    def configure(self, config):
        """The operator's `config { … }` as JSON: `{"allow": "GET"}` or `{"allow": ["GET", "HEAD"]}`."""
        global allowed
        config = json.loads(config)
        for name in config.keys() - {"allow"}:
            refuse(f"there is no `{name}`", f"/{name}")
        methods = config.get("allow", [])
        methods = methods if isinstance(methods, list) else [methods]
        if not methods or not all(isinstance(method, str) and method for method in methods):
            refuse("say which methods are allowed, as `GET`", "/allow")
        # What comes from the network is bytes.
        allowed = [method.encode() for method in methods]
        # The method comes along with each call, and costs no call to read.
        return needs(["method"])


class Predicates(exports.Predicates):
    def names(self):
        """At most 64 questions; all of them are answered in one call."""
        return ["allowed"]

    def evaluate(self, facts):
        """A bit for each question, in the order of their names."""
        return int(first(facts, METHOD) in allowed)


def first(facts, need):
    """The first value of a fact: three numbers each, its need and where its value begins and ends."""
    index = facts.index
    for at in range(0, len(index), 3):
        if index[at] == need:
            return facts.bytes[index[at + 1] : index[at + 2]]
    return None


def needs(request):
    return types.Needs(request=request, response=[], log=[], connection=[])


def refuse(message, at):
    """The error of the contract: the gateway shows the message, and points at the place in the configuration."""
    raise Err(lifecycle.ConfigError(message=message, at=at))
