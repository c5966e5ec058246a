//  json: jansson writes everything but reals and what they stand in; its reals have a fixed number of digits.

#include "ui/json.h"

#include "assert.h"
#include "number.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    FILE *out;     //  grows in memory
    bool indented; //  two blanks a level, else one line
} s_writer_t;

static void s_value (const s_writer_t *self, const json_t *value, int depth);

static void
s_break (const s_writer_t *self, int depth)
{
    if (self->indented)
        fprintf (self->out, "\n%*s", 2 * depth, "");
}

//  A real stays one: jansson reads "1" as an integer.
static void
s_real (const s_writer_t *self, double number)
{
    char text[32];
    tl_number_text (text, number);
    fprintf (self->out, "%s%s", text, strpbrk (text, ".e") ? "" : ".0");
}

static void
s_array (const s_writer_t *self, const json_t *array, int depth)
{
    size_t count = json_array_size (array);
    fputc ('[', self->out);
    for (size_t i = 0; i < count; i++) {
        fputs (i ? "," : "", self->out);
        s_break (self, depth + 1);
        s_value (self, json_array_get (array, i), depth + 1);
    }
    if (count)
        s_break (self, depth);
    fputc (']', self->out);
}

static void
s_object (const s_writer_t *self, const json_t *object, int depth)
{
    const char *key;
    json_t *value;
    bool first = true;
    fputc ('{', self->out);
    json_object_foreach ((json_t *)object, key, value)
    {
        fputs (first ? "" : ",", self->out);
        s_break (self, depth + 1);
        json_t *name = json_string (key);
        json_dumpf (name, self->out, JSON_ENCODE_ANY);
        json_decref (name);
        fputs (self->indented ? ": " : ":", self->out);
        s_value (self, value, depth + 1);
        first = false;
    }
    if (!first)
        s_break (self, depth);
    fputc ('}', self->out);
}

static void
s_value (const s_writer_t *self, const json_t *value, int depth)
{
    if (json_is_object (value))
        s_object (self, value, depth);
    else if (json_is_array (value))
        s_array (self, value, depth);
    else if (json_is_real (value))
        s_real (self, json_real_value (value));
    else
        json_dumpf (value, self->out, JSON_ENCODE_ANY);
}

json_t *
tl_json_string (const char *text)
{
    json_t *value = json_string (text);
    return value ? value : json_string ("(not UTF-8)");
}

char *
tl_json_text (const json_t *value, bool indented)
{
    char *text = NULL;
    size_t size;
    s_writer_t self = {open_memstream (&text, &size), indented};
    tl_assert (self.out);
    s_value (&self, value, 0);
    tl_assert (fclose (self.out) == 0);
    return text;
}

void
tl_json_print (const json_t *value, bool indented)
{
    char *text = tl_json_text (value, indented);
    puts (text);
    fflush (stdout);
    free (text);
}
