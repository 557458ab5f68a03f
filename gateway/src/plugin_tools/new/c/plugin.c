/* my-plugin: turns away requests whose method the operator has not allowed, and tells the server that it has looked.
 *
 *     plugin "my-plugin" "my_plugin.wasm" {
 *         on-failure "deny" status=503
 *         config { allow "GET" "HEAD" }
 *     }
 *
 * There is no C library and there are no bindings: what the component model's canonical ABI asks of a module is below. A list
 * or a text is an address and a length; a record is its fields one after the other; a variant is a number that says which, and
 * its value behind it. Results that do not fit one number are written somewhere, and the address of that is returned.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))

typedef struct {
    const char *at;
    size_t length;
} text;

#define TEXT(literal) ((text){literal, sizeof(literal) - 1})

static bool equal(text one, text other) {
    if (one.length != other.length) return false;
    for (size_t i = 0; i < one.length; i++) {
        if (one.at[i] != other.at[i]) return false;
    }
    return true;
}

/* ── memory ─────────────────────────────────────────────────────────────────────────────────────────────────────────────── */

extern unsigned char __heap_base;

/* What was never handed out begins here; none before the first time. */
static uintptr_t next;

/* Where that was when the plugin had been configured: what comes after it is of one call, and is given back after it. */
static uintptr_t kept;

enum { PAGE = 65536 };

static void *allocate(size_t bytes) {
    if (next == 0) next = (uintptr_t)&__heap_base;
    uintptr_t at = (next + 7) & ~(uintptr_t)7;
    uintptr_t end = at + bytes;
    uintptr_t there = (uintptr_t)__builtin_wasm_memory_size(0) * PAGE;
    if (end < at) __builtin_trap();
    /* The gateway says how much there may be: a call that wants more fails, and `on-failure` decides. */
    if (end > there && __builtin_wasm_memory_grow(0, (end - there + PAGE - 1) / PAGE) == (size_t)-1) __builtin_trap();
    next = end;
    return (void *)at;
}

/* The gateway asks for room for what it hands over. */
EXPORT("cabi_realloc")
void *cabi_realloc(const char *old, size_t old_size, size_t align, size_t size) {
    (void)align; /* At most 8, as everything here. */
    char *at = allocate(size);
    for (size_t i = 0; old && i < old_size && i < size; i++) at[i] = old[i];
    return at;
}

/* ── the configuration: {"allow": "GET"} or {"allow": ["GET", "HEAD"]} ──────────────────────────────────────────────────── */

enum { MAX_ALLOWED = 16 };

static text allowed[MAX_ALLOWED];
static size_t allowed_count;

typedef struct {
    const char *at;
    const char *end;
} reader;

static bool takes(reader *from, char wanted) {
    while (from->at < from->end && (*from->at == ' ' || *from->at == '\n' || *from->at == '\t')) from->at++;
    if (from->at == from->end || *from->at != wanted) return false;
    from->at++;
    return true;
}

/* A text without escapes: names of methods need none. */
static bool takes_text(reader *from, text *found) {
    if (!takes(from, '"')) return false;
    found->at = from->at;
    while (from->at < from->end && *from->at != '"' && *from->at != '\\') from->at++;
    found->length = (size_t)(from->at - found->at);
    return takes(from, '"');
}

/* What is wrong with it; none when it is right. */
static text configure(text config) {
    const text shape = TEXT("say `allow` with the methods that are let through, and nothing else");
    reader from = {config.at, config.at + config.length};
    text key;
    if (!takes(&from, '{') || !takes_text(&from, &key) || !equal(key, TEXT("allow")) || !takes(&from, ':')) return shape;
    bool is_list = takes(&from, '[');
    do {
        if (allowed_count == MAX_ALLOWED) return TEXT("at most 16 methods can be allowed");
        if (!takes_text(&from, &allowed[allowed_count])) return shape;
        if (allowed[allowed_count++].length == 0) return TEXT("a method has a name, as `GET`");
    } while (is_list && takes(&from, ','));
    if ((is_list && !takes(&from, ']')) || !takes(&from, '}')) return shape;
    return (text){0};
}

/* ── lifecycle ──────────────────────────────────────────────────────────────────────────────────────────────────────────── */

typedef struct {
    const text *at;
    size_t length;
} texts;

typedef struct {
    texts request, response, log, connection;
} needs;

/* The method comes along with each call. */
static const text wanted[] = {{"method", 6}};

EXPORT("gateway:policy/lifecycle@0.1.0#describe")
const void *describe(void) {
    static struct {
        text name, version, about;
        needs needs;
        texts metrics;
    } description;
    description.name = TEXT("my-plugin");
    description.version = TEXT("0.1.0");
    description.about = TEXT("Turns away requests whose method is not allowed.");
    description.needs.request = (texts){wanted, 1};
    return &description;
}

EXPORT("gateway:policy/lifecycle@0.1.0#configure")
const void *lifecycle_configure(const char *at, size_t length) {
    static struct {
        uint8_t is_error;
        union {
            needs further; /* None: `describe` has said all. */
            struct {
                text message;
                uint8_t has_place;
                text place;
            } error;
        };
    } result;
    text wrong = configure((text){at, length});
    if (wrong.at) {
        result.is_error = 1;
        result.error.message = wrong;
        result.error.has_place = 1;
        result.error.place = TEXT("/allow");
    }
    /* The texts of the configuration stay where they were handed over. */
    kept = next;
    return &result;
}

/* ── request-filter ─────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* `set-header: func(name: string, value: list<u8>) -> result<_, string>`: the result is written where the last parameter says. */
__attribute__((import_module("gateway:policy/request-edits@0.1.0"), import_name("set-header")))
void set_header(const char *name, size_t name_length, const char *value, size_t value_length, void *result);

/* The contract's `outcome`. */
typedef struct {
    uint8_t which;
    union {
        struct {
            uint16_t status;
            struct {
                const void *at;
                size_t length;
            } headers;
            text body;
        } reply;
        /* As large as the largest case, `call`. */
        uint32_t space[13];
    };
} outcome;

enum { PROCEED = 0, REPLY = 1 };

/* `index` has three numbers a fact: which need it answers, and where its value begins and ends in `bytes`. There is one need,
 * and a request has one method. */
EXPORT("gateway:policy/request-filter@0.1.0#on-request")
const outcome *on_request(const uint32_t *index, size_t numbers, const char *bytes, size_t length) {
    static outcome outcome;
    text method = {0};
    if (numbers >= 3 && index[1] <= index[2] && index[2] <= length) {
        method = (text){bytes + index[1], index[2] - index[1]};
    }
    bool is_allowed = false;
    for (size_t i = 0; i < allowed_count; i++) is_allowed |= equal(allowed[i], method);
    if (!is_allowed) {
        outcome.which = REPLY;
        outcome.reply.status = 403;
        outcome.reply.body = TEXT("my-plugin says no\n");
        return &outcome;
    }
    struct {
        uint8_t is_error;
        text message;
    } result = {0};
    const text name = TEXT("x-checked-by"), value = TEXT("my-plugin");
    set_header(name.at, name.length, value.at, value.length, &result);
    /* An edit that is refused is a mistake of this plugin's: the call fails. */
    if (result.is_error) __builtin_trap();
    outcome.which = PROCEED;
    return &outcome;
}

/* Called when the result has been read: the memory of the call is free again. */
EXPORT("cabi_post_gateway:policy/request-filter@0.1.0#on-request")
void after_request(const outcome *read) {
    (void)read;
    next = kept;
}
