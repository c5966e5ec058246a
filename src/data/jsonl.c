#include "jsonl.h"

#include "utf8.h"

#include <stdbool.h>
#include <string.h>

//  The line that is read.
typedef struct {
    const char *name; //  of the file
    size_t line;      //  from 1
    json_t *object;   //  the line, once parsed
    tl_error_t *err;
} s_line_t;

//  ---------------------------------------------------------------------------------------------
//  Lines

static int
s_parse (s_line_t *line, const char *text, size_t size)
{
    size_t valid = tl_utf8_valid (text, size);
    if (valid < size)
        return tl_fail (line->err, TL_BAD_INPUT,
                        "%s:%zu: byte %zu (0x%02x) is not valid UTF-8; save the file as UTF-8",
                        line->name, line->line, valid + 1, (unsigned char)text[valid]);
    json_error_t reason;
    line->object =
        json_loadb (text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &reason);
    if (!json_is_object (line->object) && line->line == 1 && *text == '[')
        return tl_fail (
            line->err, TL_BAD_INPUT,
            "%s:1: the file is one JSON list, expected JSONL (one object a line); convert "
            "it, for example with: jq -c '.[]' FILE",
            line->name);
    if (!line->object)
        return tl_fail (line->err, TL_BAD_INPUT,
                        "%s:%zu: not valid JSON (%s, at byte %d); correct the line", line->name,
                        line->line, reason.text, reason.position);
    if (!json_is_object (line->object))
        return tl_fail (line->err, TL_BAD_INPUT,
                        "%s:%zu: the line is not a JSON object; write one {\"prompt\": ..., "
                        "\"completion\": ...} a line",
                        line->name, line->line);
    return 0;
}

static bool
s_blank (const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!strchr (" \t\r", text[i]) || !text[i])
            return false;
    return true;
}

int
tl_jsonl_read (const char *name, const char *data, size_t size, size_t limit, tl_jsonl_fn *take,
               void *arg, tl_error_t *err)
{
    s_line_t line = {.name = name, .err = err};
    size_t at = size >= 3 && memcmp (data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0, taken = 0;
    while (at < size && (limit == 0 || taken < limit)) {
        const char *text = data + at, *end = memchr (text, '\n', size - at);
        size_t length = end ? (size_t)(end - text) : size - at;
        at += length + 1;
        line.line++;
        if (s_blank (text, length))
            continue;
        int rc = s_parse (&line, text, length);
        if (rc == 0)
            rc = take (arg, line.object, name, line.line, err);
        json_decref (line.object);
        line.object = NULL;
        if (rc != 0)
            return -1;
        taken++;
    }
    return 0;
}
