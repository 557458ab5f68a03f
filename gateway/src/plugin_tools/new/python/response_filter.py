"""my-plugin: keeps in what servers say when they fail, and tells clients of other responses that it has looked."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import lifecycle
from wit_world.imports import response_edits, types

# Positions in the list of needs, in the order of `configure`.
STATUS = 0

hidden = []


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return lifecycle.Description(
            name="my-plugin",
            version="0.1.0",
            about="Keeps in what servers say when they fail.",
            needs=needs([]),
            metrics=[],
        )

    def configure(self, config):
        """The operator's `config { … }` as JSON: `{"hide": 500}` or `{"hide": [500, 502]}`."""
        global hidden
        config = json.loads(config)
        for name in config.keys() - {"hide"}:
            refuse(f"there is no `{name}`", f"/{name}")
        hidden = config.get("hide", [])
        hidden = hidden if isinstance(hidden, list) else [hidden]
        if not hidden or not all(type(status) is int and 400 <= status <= 599 for status in hidden):
            refuse("say which errors are kept in: an error has a status of 400 to 599", "/hide")
        # The status comes along with each call, and costs no call to read.
        return needs(["status"])


class ResponseFilter(exports.ResponseFilter):
    def on_response(self, facts):
        """A reply is sent in the place of the response; None, where there is none."""
        status = int(first(facts, STATUS))
        if status in hidden:
            return types.Reply(status=status, headers=[], body=b"my-plugin says no more\n")
        # An edit that the gateway refuses raises: the call fails then, and the operator's `on-failure` decides.
        response_edits.set_header("x-checked-by", b"my-plugin")
        return None


def first(facts, need):
    """The first value of a fact: three numbers each, its need and where its value begins and ends."""
    index = facts.index
    for at in range(0, len(index), 3):
        if index[at] == need:
            return facts.bytes[index[at + 1] : index[at + 2]]
    return None


def needs(response):
    return types.Needs(request=[], response=response, log=[], connection=[])


def refuse(message, at):
    """The error of the contract: the gateway shows the message, and points at the place in the configuration."""
    raise Err(lifecycle.ConfigError(message=message, at=at))
