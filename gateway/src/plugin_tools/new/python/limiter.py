"""my-plugin: lets each client make so many requests in a time. All workers count together: the host keeps the buckets."""

import json
import re

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import lifecycle, limiter
from wit_world.imports import buckets, types

# Positions in the list of needs, in the order of `configure`.
CLIENT = 0

# Milliseconds of a unit of time.
UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

rate = None


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return lifecycle.Description(
            name="my-plugin",
            version="0.1.0",
            about="Lets each client make so many requests in a time.",
            needs=needs([]),
            metrics=[],
        )

    def configure(self, config):
        """The operator's `config { … }` as JSON: `{"quota": 3, "per": "1m"}`."""
        global rate
        config = json.loads(config)
        for name in config.keys() - {"quota", "per"}:
            refuse(f"there is no `{name}`", f"/{name}")
        quota, per = config.get("quota"), config.get("per")
        if type(quota) is not int or not 1 <= quota < 2**53:
            refuse("say how many requests a client may make, at least one", "/quota")
        time = re.fullmatch(r"([1-9][0-9]{0,6})(ms|s|m|h|d)", per) if isinstance(per, str) else None
        if not time:
            refuse("say in which time, as `1m`", "/per")
        rate = buckets.Rate(tokens=quota, period_ms=int(time[1]) * UNITS[time[2]], burst=quota)
        # The address comes along with each call, and costs no call to read.
        return needs(["client-ip"])


class Limiter(exports.Limiter):
    def policies(self):
        return [limiter.Policy(name="my-plugin", quota=rate.burst, window_ms=rate.period_ms)]

    def check(self, facts):
        """None, where no limit applies."""
        client = first(facts, CLIENT)
        if client is None:
            return None
        taken = buckets.take("client", client, rate, 1)
        missing = rate.burst - taken.remaining
        return limiter.Verdict(
            allowed=taken.allowed,
            # The first of `policies`.
            policy=0,
            remaining=taken.remaining,
            reset_ms=-(-missing * rate.period_ms // rate.tokens),
            retry_after_ms=taken.retry_after_ms,
        )


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
