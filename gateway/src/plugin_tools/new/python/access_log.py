"""my-plugin: writes a line into the gateway's log for each exchange that ended with an error."""

import json
from ipaddress import ip_address

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import lifecycle
from wit_world.imports import log, types

# Positions in the list of needs, in the order of `configure`.
STATUS, METHOD, PATH, CLIENT = range(4)

lowest = 0


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return lifecycle.Description(
            name="my-plugin",
            version="0.1.0",
            about="Writes a line for each exchange that ended with an error.",
            needs=needs([]),
            metrics=[],
        )

    def configure(self, config):
        """The operator's `config { … }` as JSON: `{"from": 400}`, the lowest status that is told of."""
        global lowest
        config = json.loads(config)
        for name in config.keys() - {"from"}:
            refuse(f"there is no `{name}`", f"/{name}")
        lowest = config.get("from")
        if type(lowest) is not int or not 100 <= lowest <= 599:
            refuse("a status is 100 to 599", "/from")
        return needs(["status", "method", "path", "client-ip"])


class AccessLog(exports.AccessLog):
    def on_log(self, facts):
        # No status: the client was sent none.
        status = int(first(facts, STATUS) or b"0")
        client = first(facts, CLIENT)
        if status < lowest or client is None:
            return
        # Bytes from the network are not promised to be UTF-8: this does not fail. The host escapes control characters.
        method = (first(facts, METHOD) or b"?").decode(errors="replace")
        path = (first(facts, PATH) or b"?").decode(errors="replace")
        log.write(log.Level.WARN, f"{ip_address(client)} got {status} for {method} {path}")


def first(facts, need):
    """The first value of a fact: three numbers each, its need and where its value begins and ends."""
    index = facts.index
    for at in range(0, len(index), 3):
        if index[at] == need:
            return facts.bytes[index[at + 1] : index[at + 2]]
    return None


def needs(facts):
    return types.Needs(request=[], response=[], log=facts, connection=[])


def refuse(message, at):
    """The error of the contract: the gateway shows the message, and points at the place in the configuration."""
    raise Err(lifecycle.ConfigError(message=message, at=at))
