/* my-plugin: puts another text in the place of one, in the texts that servers answer with.
 *
 *     plugin "my-plugin" "my_plugin.wasm" {
 *         on-failure "deny" status=503
 *         config { replace "app-1"; by "somewhere" }
 *     }
 *
 * What the canonical ABI asks of it, and the types of the contract, are in contract.h.
 */

#include "contract.h"

/* ── the configuration ──────────────────────────────────────────────────────────────────────────────────────────────────── */

/* Bytes of the text: so much is held back of each piece at most. */
enum { MOST = 1000 };

/* The text that is looked for, and what stands in its place then. */
static text replaced, by;

static setting settings[] = {
    {.name = IS("replace"), .place = IS("/replace"), .texts = &replaced, .most = 1},
    {.name = IS("by"), .place = IS("/by"), .texts = &by, .most = 1},
};

static fault configure(text config) {
    fault wrong = settings_of(config, settings, 2);
    if (wrong.message.at) return wrong;
    if (replaced.length < 1 || replaced.length > MOST) return FAULT("a text to look for has 1 to 1,000 bytes", "/replace");
    return wrong;
}

/* ── lifecycle ──────────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* These come along with each call. */
static const text wanted[] = {IS("response-header:content-type"), IS("response-header:content-encoding")};

EXPORT("gateway:policy/lifecycle@0.1.0#describe")
const description *describe(void) {
    static const description description = {
        .name = IS("my-plugin"),
        .version = IS("0.1.0"),
        .about = IS("Puts another text in the place of one in what servers answer."),
        .needs.response = {wanted, sizeof(wanted) / sizeof(*wanted)},
    };
    return &description;
}

EXPORT("gateway:policy/lifecycle@0.1.0#configure")
const configured *lifecycle_configure(const char *at, size_t length) {
    return configured_with(configure((text){at, length}));
}

/* ── response-body-filter ─────────────────────────────────────────────────────────────────────────────────────────────── */

/* How a body is to be filtered. */
typedef struct {
    uint8_t which;
    uint64_t most; /* For `BUFFERED`. */
} body_mode;

enum { SKIP = 0, STREAMED = 1 };

/* What becomes of a piece: the state that comes back with the next one, and what becomes of its bytes. */
typedef struct {
    text state;
    uint8_t verdict;
    union {
        text bytes;
        reply reply;
    };
} piece_outcome;

enum { REPLACE = 1 };

/* Whether a text begins here. */
static bool begins(text all, size_t at, text part) {
    return all.length - at >= part.length && equal((text){all.at + at, part.length}, part);
}

EXPORT("gateway:policy/response-body-filter@0.1.0#on-response-body")
const body_mode *on_response_body(const uint32_t *index, size_t numbers, const char *bytes, size_t length) {
    static body_mode mode;
    text type = first(index, numbers, bytes, length, 0);
    text coding = first(index, numbers, bytes, length, 1);
    /* What is compressed cannot be read here, and passes unseen. */
    mode.which = begins(type, 0, TEXT("text/")) && !coding.at ? STREAMED : SKIP;
    return &mode;
}

FORGET_AFTER("gateway:policy/response-body-filter@0.1.0#on-response-body", after_body)

static char *copy(char *to, text from) {
    for (size_t i = 0; i < from.length; i++) *to++ = from.at[i];
    return to;
}

EXPORT("gateway:policy/response-body-filter@0.1.0#on-response-piece")
const piece_outcome *on_response_piece(const char *state, size_t state_length, const char *at, size_t length, uint32_t last) {
    static piece_outcome outcome;
    /* Pieces are as the network brings them: the text may lie across two. So an end in which it may have begun is held back, and
     * comes again with the next piece. The last piece may be empty. */
    text all = {allocate(state_length + length), state_length + length};
    copy(copy((char *)all.at, (text){state, state_length}), (text){at, length});
    size_t found = 0, end = 0;
    for (size_t i = 0; i < all.length;) {
        bool is_here = begins(all, i, replaced);
        found += is_here;
        i += is_here ? replaced.length : 1;
        if (is_here) end = i;
    }
    size_t held = all.length - end < replaced.length - 1 ? all.length - end : replaced.length - 1;
    if (last) held = 0;
    end = all.length - held;
    char *goes_on = allocate(end + found * by.length);
    char *to = goes_on;
    for (size_t i = 0; i < end;) {
        bool is_here = begins(all, i, replaced);
        to = copy(to, is_here ? by : (text){all.at + i, 1});
        i += is_here ? replaced.length : 1;
    }
    outcome.state = (text){all.at + end, held};
    outcome.verdict = REPLACE;
    outcome.bytes = (text){goes_on, (size_t)(to - goes_on)};
    return &outcome;
}

FORGET_AFTER("gateway:policy/response-body-filter@0.1.0#on-response-piece", after_piece)
