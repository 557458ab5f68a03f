"""my-plugin: asks another service about each request, and lets in what it answers with 200."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import lifecycle
from wit_world.imports import request_edits, types

# Positions in the list of needs, in the order of `configure`.
CREDENTIALS = 0

backend = path = ""


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return lifecycle.Description(
            name="my-plugin",
            version="0.1.0",
            about="Asks another service about each request.",
            needs=needs([]),
            metrics=[],
        )

    def configure(self, config):
        """The operator's `config { … }` as JSON: `{"backend": "auth", "path": "/check"}`."""
        global backend, path
        config = json.loads(config)
        for name in config.keys() - {"backend", "path"}:
            refuse(f"there is no `{name}`", f"/{name}")
        # The plugin has to be granted it: `call "auth"`.
        backend, path = config.get("backend"), config.get("path")
        if not isinstance(backend, str) or not backend:
            refuse("say which backend is asked", "/backend")
        if not isinstance(path, str) or not path.startswith("/"):
            refuse("a path begins with `/`", "/path")
        return needs(["header:authorization"])


class RequestFilter(exports.RequestFilter):
    def on_request(self, facts):
        credentials = first(facts, CREDENTIALS)
        if credentials is None:
            return reply(401, b"my-plugin wants to know who you are\n")
        call = types.Call(
            backend=backend,
            method="GET",
            target=path.encode(),
            headers=[types.Field(name="authorization", value=credentials)],
            body=b"",
            # The operator's `timeout`.
            timeout_ms=0,
            # No instance waits for the answer. What the other hook has to know goes in here.
            state=b"",
        )
        return types.Outcome_Call(call)


class CallAnswered(exports.CallAnswered):
    def on_answer(self, facts, answer, state):
        # It did not come in time, was too long, or never came at all.
        if isinstance(answer, Err):
            return reply(503, b"my-plugin could not ask\n")
        answer = answer.value
        if answer.status != 200:
            return reply(403, b"my-plugin says no\n")
        # The service says who it is; nobody else is believed.
        user = next((field.value for field in answer.headers if field.name == "x-user"), b"")
        # An edit that the gateway refuses raises: the call fails then, and the operator's `on-failure` decides.
        request_edits.set_header("x-user", user)
        return types.Outcome_Proceed()


def reply(status, body):
    return types.Outcome_Reply(types.Reply(status=status, headers=[], body=body))


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
