"""my-plugin: turns away requests whose method the operator has not allowed, and tells the server that it has looked."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import lifecycle
from wit_world.imports import request_edits, types

# Positions in the list of needs, in the order of `configure`.
METHOD = 0

allowed = []


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return lifecycle.Description(
            name="my-plugin",
            version="0.1.0",
            about="Turns away requests whose method is not allowed.",
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
            refuse("say which methods are let through, as `GET`", "/allow")
        # What comes from the network is bytes.
        allowed = [method.encode() for method in methods]
        # The method comes along with each call, and costs no call to read.
        return needs(["method"])


class RequestFilter(exports.RequestFilter):
    def on_request(self, facts):
        if first(facts, METHOD) not in allowed:
            return types.Outcome_Reply(types.Reply(status=403, headers=[], body=b"my-plugin says no\n"))
        # An edit that the gateway refuses raises: the call fails then, and the operator's `on-failure` decides.
        request_edits.set_header("x-checked-by", b"my-plugin")
        return types.Outcome_Proceed()


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
