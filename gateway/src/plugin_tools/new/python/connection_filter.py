"""my-plugin: lets in connections from addresses that the operator names, before a byte of them is read."""

import json
from ipaddress import ip_address

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import connection_filter, lifecycle
from wit_world.imports import types

# Positions in the list of needs, in the order of `configure`.
CLIENT = 0

allowed = []


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return lifecycle.Description(
            name="my-plugin",
            version="0.1.0",
            about="Lets in connections from known addresses.",
            needs=needs([]),
            metrics=[],
        )

    def configure(self, config):
        """The operator's `config { … }` as JSON: `{"allow": "192.0.2.1"}` or a list of addresses."""
        global allowed
        config = json.loads(config)
        for name in config.keys() - {"allow"}:
            refuse(f"there is no `{name}`", f"/{name}")
        addresses = config.get("allow", [])
        addresses = addresses if isinstance(addresses, list) else [addresses]
        if not addresses or not all(isinstance(address, str) for address in addresses):
            refuse("say who may come in, as `192.0.2.1`", "/allow")
        try:
            # As bytes, as clients' addresses are: 4 or 16.
            allowed = [packed(ip_address(address)) for address in addresses]
        except ValueError as error:
            refuse(str(error), "/allow")
        # The address comes along with each call, and costs no call to read.
        return needs(["client-ip"])


class ConnectionFilter(exports.ConnectionFilter):
    def on_connect(self, facts):
        if first(facts, CLIENT) in allowed:
            return connection_filter.Verdict_Accept()
        return connection_filter.Verdict_Refuse()


def packed(address):
    """IPv4 as such, however it is written: so are clients' addresses."""
    return (getattr(address, "ipv4_mapped", None) or address).packed


def first(facts, need):
    """The first value of a fact: three numbers each, its need and where its value begins and ends."""
    index = facts.index
    for at in range(0, len(index), 3):
        if index[at] == need:
            return facts.bytes[index[at + 1] : index[at + 2]]
    return None


def needs(connection):
    return types.Needs(request=[], response=[], log=[], connection=connection)


def refuse(message, at):
    """The error of the contract: the gateway shows the message, and points at the place in the configuration."""
    raise Err(lifecycle.ConfigError(message=message, at=at))
