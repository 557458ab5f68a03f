/* Takes query parameters that only follow people around out of requests, so that servers and caches see one address for one
 * page:
 *
 *     plugin "tracking" "tracking.wasm" {
 *         on-failure "skip"
 *         config { param "utm_*" "gclid" "fbclid" }
 *     }
 *
 * There is no C library and no bindings: what the component model's canonical ABI asks of a module is below, and it is little.
 * A list or a text is an address and a length; a record is its fields one after the other; a variant is a byte that says
 * which, and its value at the next multiple of 4. Results that do not fit one number are written somewhere, and the address
 * of that is returned.
 *
 *     clang --target=wasm32 -Os -nostdlib -Wl,--no-entry,--stack-first,-z,stack-size=16384 \
 *         -o tracking.module.wasm tracking.c
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

static void copy(char *to, const char *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) to[i] = from[i];
}

/* The gateway asks for room for what it hands over. */
EXPORT("cabi_realloc")
void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    (void)align; /* At most 8, as everything here. */
    char *at = allocate(size);
    if (old) copy(at, old, old_size < size ? old_size : size);
    return at;
}

/* ── the configuration: {"param": "a"} or {"param": ["a", "b"]} ─────────────────────────────────────────────────────────── */

enum { MAX_PARAMS = 64 };

static text params[MAX_PARAMS];
static size_t param_count;

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

/* A text without escapes: names of parameters need none. */
static bool takes_text(reader *from, text *found) {
    if (!takes(from, '"')) return false;
    found->at = from->at;
    while (from->at < from->end && *from->at != '"' && *from->at != '\\') from->at++;
    found->length = (size_t)(from->at - found->at);
    return takes(from, '"');
}

static bool equal(text one, text other) {
    if (one.length != other.length) return false;
    for (size_t i = 0; i < one.length; i++) {
        if (one.at[i] != other.at[i]) return false;
    }
    return true;
}

/* What is wrong with it; none when it is right. */
static text configure(text config) {
    reader from = {config.at, config.at + config.length};
    text name;
    if (!takes(&from, '{') || !takes_text(&from, &name) || !equal(name, TEXT("param")) || !takes(&from, ':'))
        return TEXT("say `param` and nothing else");
    bool is_list = takes(&from, '[');
    do {
        if (param_count == MAX_PARAMS) return TEXT("there are at most 64 parameters");
        if (!takes_text(&from, &params[param_count])) return TEXT("a parameter is a text without quotes and backslashes");
        if (params[param_count++].length == 0) return TEXT("a parameter has a name");
    } while (is_list && takes(&from, ','));
    if ((is_list && !takes(&from, ']')) || !takes(&from, '}')) return TEXT("say `param` and nothing else");
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

static const text query[] = {{"query", 5}};

EXPORT("gateway:policy/lifecycle@0.1.0#describe")
const void *describe(void) {
    static struct {
        text name, version, about;
        needs needs;
        texts metrics;
    } description;
    description.name = TEXT("tracking");
    description.version = TEXT("0.1.0");
    description.about = TEXT("Takes query parameters that only follow people around out of requests.");
    description.needs.request = (texts){query, 1};
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
        result.error.place = TEXT("/param");
    }
    /* The texts of the configuration stay where they were handed over. */
    kept = next;
    return &result;
}

/* ── request-filter ─────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* `set-query: func(query: option<list<u8>>) -> result<_, string>`: a variant's byte and its value are parameters, and the
 * result is written where the last one says. */
__attribute__((import_module("gateway:policy/request-edits@0.1.0"), import_name("set-query")))
void set_query(int32_t is_some, const char *at, size_t length, void *result);

static bool follows_people(text name) {
    for (size_t i = 0; i < param_count; i++) {
        text param = params[i];
        if (param.at[param.length - 1] == '*') {
            param.length--;
            if (name.length >= param.length && equal((text){name.at, param.length}, param)) return true;
        } else if (equal(name, param)) {
            return true;
        }
    }
    return false;
}

/* `index` has three numbers a fact: its need, and where its value begins and ends in `bytes`. There is one need, and a request
 * has one query or none. */
EXPORT("gateway:policy/request-filter@0.1.0#on-request")
const void *on_request(const uint32_t *index, size_t numbers, const char *bytes, size_t length) {
    /* An outcome: `proceed` is the first case, and has no value. */
    static const uint32_t proceed[12];
    if (numbers < 3 || index[1] > index[2] || index[2] > length) return proceed;
    const char *at = bytes + index[1], *end = bytes + index[2];
    char *left = allocate((size_t)(end - at) + 1), *to = left;
    bool changed = false;
    for (;;) {
        const char *next_pair = at, *name_end = NULL;
        for (; next_pair < end && *next_pair != '&'; next_pair++) {
            if (*next_pair == '=' && !name_end) name_end = next_pair;
        }
        text name = {at, (size_t)((name_end ? name_end : next_pair) - at)};
        if (follows_people(name)) {
            changed = true;
        } else {
            if (to != left) *to++ = '&';
            copy(to, at, (size_t)(next_pair - at));
            to += next_pair - at;
        }
        if (next_pair == end) break;
        at = next_pair + 1;
    }
    if (changed) {
        struct {
            uint8_t is_error;
            text message;
        } result = {0};
        set_query(to != left, left, (size_t)(to - left), &result);
        /* An edit that is refused is a mistake of this plugin's: the call fails. */
        if (result.is_error) __builtin_trap();
    }
    return proceed;
}

/* Called when the result has been read: the memory of the call is free again. */
EXPORT("cabi_post_gateway:policy/request-filter@0.1.0#on-request")
void after_request(const void *result) {
    (void)result;
    next = kept;
}
