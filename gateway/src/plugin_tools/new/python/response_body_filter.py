"""my-plugin: puts another text in the place of one, in the texts that servers answer with."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import lifecycle
from wit_world.imports import types

# Positions in the list of needs, in the order of `configure`.
CONTENT_TYPE, CODING = range(2)

# Bytes of the text: so much is held back of each piece at most.
MOST = 1_000

wanted = by = b""


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return lifecycle.Description(
            name="my-plugin",
            version="0.1.0",
            about="Puts another text in the place of one in what servers answer.",
            needs=needs([]),
            metrics=[],
        )

    def configure(self, config):
        """The operator's `config { … }` as JSON: `{"replace": "app-1", "by": "somewhere"}`."""
        global wanted, by
        config = json.loads(config)
        for name in config.keys() - {"replace", "by"}:
            refuse(f"there is no `{name}`", f"/{name}")
        for name in ("replace", "by"):
            if not isinstance(config.get(name), str):
                refuse("say which text is looked for, and which stands in its place", f"/{name}")
        wanted, by = config["replace"].encode(), config["by"].encode()
        if not 1 <= len(wanted) <= MOST:
            refuse("a text to look for has 1 to 1,000 bytes", "/replace")
        # These come along with each call, and cost no call to read.
        return needs(["response-header:content-type", "response-header:content-encoding"])


class ResponseBodyFilter(exports.ResponseBodyFilter):
    def on_response_body(self, facts):
        is_text = (first(facts, CONTENT_TYPE) or b"").startswith(b"text/")
        # What is compressed cannot be read here, and passes unseen.
        if is_text and first(facts, CODING) is None:
            return types.BodyMode_Streamed()
        return types.BodyMode_Skip()

    def on_response_piece(self, piece):
        # Pieces are as the network brings them: the text may lie across two. So an end in which it may have begun is held
        # back, and comes again with the next piece. The last piece may be empty.
        *parts, rest = (piece.state + piece.bytes).split(wanted)
        end = len(rest) if piece.last else max(0, len(rest) - (len(wanted) - 1))
        goes_on = by.join([*parts, rest[:end]])
        return types.PieceOutcome(state=rest[end:], verdict=types.PieceVerdict_Replace(goes_on))


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
