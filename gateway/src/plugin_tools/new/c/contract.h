/* What a plugin in C needs of the contract: the component model's canonical ABI, as far as this plugin meets it.
 *
 * There is no C library and there are no bindings. A list or a text is an address and a length; a record is its fields one after the
 * other; a variant is a number that says which, and its value behind it. Results that do not fit one number are written somewhere,
 * and the address of that is returned.
 */

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define IMPORT(interface, function) __attribute__((import_module(interface), import_name(function)))

/* Bytes: a text or a list of them. */
typedef struct {
    const char *at;
    size_t length;
} text;

#define TEXT(literal) ((text)IS(literal))
#define IS(literal) {literal, sizeof(literal) - 1}

static inline bool equal(text one, text other) {
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

static inline void *allocate(size_t bytes) {
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

/* The memory of a call is free again: after its result has been read, or where that is one number. */
static inline void forget(void) {
    next = kept;
}

/* Has that done when the result of a hook has been read. */
#define FORGET_AFTER(hook, name) \
    EXPORT("cabi_post_" hook)    \
    void name(const void *read) { \
        (void)read;              \
        forget();                \
    }

/* ── the configuration: a JSON object ───────────────────────────────────────────────────────────────────────────────────── */

/* What an operator may write: texts or numbers under a name, one or a list of them. All of it has to be said. */
typedef struct {
    text name;
    text place; /* The name, with `/` in front. */
    text *texts; /* Where texts go, or */
    uint64_t *numbers; /* where numbers go; */
    size_t most; /* so many at most. */
    size_t count; /* How many were said. */
} setting;

/* Why a configuration was refused: what is wrong, if anything, and where. */
typedef struct {
    text message;
    uint8_t has_place;
    text place;
} fault;

#define FAULT(message, place) ((fault){IS(message), 1, IS(place)})

typedef struct {
    const char *at;
    const char *end;
} reader;

static inline bool takes(reader *from, char wanted) {
    while (from->at < from->end && (*from->at == ' ' || *from->at == '\n' || *from->at == '\t')) from->at++;
    if (from->at == from->end || *from->at != wanted) return false;
    from->at++;
    return true;
}

/* A text without escapes: none of those that are wanted here needs one. */
static inline bool takes_text(reader *from, text *found) {
    if (!takes(from, '"')) return false;
    found->at = from->at;
    while (from->at < from->end && *from->at != '"' && *from->at != '\\') from->at++;
    found->length = (size_t)(from->at - found->at);
    return takes(from, '"');
}

/* A whole number of at most 18 digits, without a sign. */
static inline bool takes_number(reader *from, uint64_t *found) {
    const char *start = from->at;
    for (*found = 0; from->at < from->end && *from->at >= '0' && *from->at <= '9'; from->at++) {
        if (from->at - start == 18) return false;
        *found = *found * 10 + (uint64_t)(*from->at - '0');
    }
    return from->at > start;
}

/* Reads the settings of a configuration. What it finds wrong has a message. */
static inline fault settings_of(text config, setting *settings, size_t count) {
    reader from = {config.at, config.at + config.length};
    if (!takes(&from, '{')) return FAULT("the configuration is an object", "");
    while (!takes(&from, '}')) {
        text name;
        takes(&from, ',');
        if (!takes_text(&from, &name) || !takes(&from, ':')) return FAULT("a name has no escapes", "");
        setting *found = NULL;
        for (size_t i = 0; i < count; i++) {
            if (equal(settings[i].name, name)) found = &settings[i];
        }
        if (!found) return FAULT("there is a setting that this plugin does not know", "");
        bool is_list = takes(&from, '[');
        do {
            if (found->count == found->most) return (fault){IS("there are more of these than can be"), 1, found->place};
            bool is_read = found->texts ? takes_text(&from, &found->texts[found->count])
                                        : takes_number(&from, &found->numbers[found->count]);
            if (!is_read && found->texts) return (fault){IS("a text is wanted here, without `\\` and `\"`"), 1, found->place};
            if (!is_read) return (fault){IS("a whole number is wanted here"), 1, found->place};
            found->count++;
        } while (is_list && takes(&from, ','));
        if (is_list && !takes(&from, ']')) return (fault){IS("a list is wanted here, of one kind"), 1, found->place};
    }
    for (size_t i = 0; i < count; i++) {
        if (settings[i].count == 0) return (fault){IS("this has to be said"), 1, settings[i].place};
    }
    return (fault){0};
}

/* ── lifecycle ──────────────────────────────────────────────────────────────────────────────────────────────────────────── */

typedef struct {
    const text *at;
    size_t length;
} texts;

/* The attributes that come along with each call. */
typedef struct {
    texts request, response, log, connection;
} needs;

/* Who the plugin is. */
typedef struct {
    text name, version, about;
    needs needs;
    texts metrics;
} description;

/* What `configure` answers. */
typedef struct {
    uint8_t is_error;
    union {
        needs further; /* None: `describe` has said all. */
        fault fault;
    };
} configured;

/* The answer of `configure`. The texts of the configuration stay where they were handed over. */
static inline const configured *configured_with(fault wrong) {
    static configured result;
    if (wrong.message.at) {
        result.is_error = 1;
        result.fault = wrong;
    }
    kept = next;
    return &result;
}

/* ── what hooks are asked with, and what they answer ────────────────────────────────────────────────────────────────────── */

/* The first value of a fact; no address where there is none. `index` has three numbers a fact: which need it answers, from 0, and
 * where its value begins and ends in `bytes`. */
static inline text first(const uint32_t *index, size_t numbers, const char *bytes, size_t length, uint32_t need) {
    for (size_t i = 0; i + 2 < numbers; i += 3) {
        uint32_t begin = index[i + 1], end = index[i + 2];
        if (index[i] == need && begin <= end && end <= length) return (text){bytes + begin, end - begin};
    }
    return (text){0};
}

/* A header field. */
typedef struct {
    text name, value;
} field;

/* A response in the place of a server's. */
typedef struct {
    uint16_t status;
    struct {
        const field *at;
        size_t length;
    } headers;
    text body;
} reply;

/* What an edit comes to: it is refused with a message, or made. */
typedef struct {
    uint8_t is_error;
    text message;
} edited;
