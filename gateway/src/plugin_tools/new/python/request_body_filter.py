"""my-plugin: turns away requests whose body has a text that the operator does not want there."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import lifecycle
from wit_world.imports import types

# Bytes of a body that is looked at.
MOST = 64 * 1024

forbidden = []


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return lifecycle.Description(
            name="my-plugin",
            version="0.1.0",
            about="Turns away requests whose body has a text that is not wanted.",
            needs=no_needs(),
            metrics=[],
        )

    def configure(self, config):
        """The operator's `config { … }` as JSON: `{"forbid": "<script"}` or a list of texts."""
        global forbidden
        config = json.loads(config)
        for name in config.keys() - {"forbid"}:
            refuse(f"there is no `{name}`", f"/{name}")
        texts = config.get("forbid", [])
        texts = texts if isinstance(texts, list) else [texts]
        if not texts or not all(isinstance(text, str) and text for text in texts):
            refuse("say which texts no body may have, each of at least a byte", "/forbid")
        forbidden = [text.encode() for text in texts]
        return no_needs()


class RequestBodyFilter(exports.RequestBodyFilter):
    def on_request_body(self, facts):
        # The whole body comes at once, while its head is held: a text cannot lie across two pieces, and there may still be a
        # reply. A longer body is refused with 413; the operator's `limit body=` may allow less.
        return types.BodyMode_Buffered(MOST)

    def on_request_piece(self, piece):
        if any(text in piece.bytes for text in forbidden):
            refused = types.Reply(status=403, headers=[], body=b"my-plugin does not take this\n")
            verdict = types.PieceVerdict_Reply(refused)
        else:
            verdict = types.PieceVerdict_Pass()
        return types.PieceOutcome(state=b"", verdict=verdict)


def no_needs():
    return types.Needs(request=[], response=[], log=[], connection=[])


def refuse(message, at):
    """The error of the contract: the gateway shows the message, and points at the place in the configuration."""
    raise Err(lifecycle.ConfigError(message=message, at=at))
