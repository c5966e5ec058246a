//  table: rows are jansson objects; the text table is laid out by libsmartcols.

#include "ui/table.h"

#include "assert.h"
#include "memory.h"
#include "ui/json.h"

#include <jansson.h>
#include <libsmartcols.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

struct tl_table {
    const char *title;          //  JSON key
    const tl_column_t *columns; //  [count]
    size_t count;               //  columns
    json_t *rows;               //  array of objects
    size_t filled;              //  cells of the last row, count when it is full
};

tl_table_t *
tl_table_new (const char *title, const tl_column_t *columns, size_t count)
{
    tl_table_t *self = tl_alloc (sizeof *self);
    *self = (tl_table_t){title, columns, count, json_array (), count};
    tl_assert (self->rows);
    return self;
}

void
tl_table_destroy (tl_table_t **self_p)
{
    tl_assert (self_p);
    if (!*self_p)
        return;
    json_decref ((*self_p)->rows);
    free (*self_p);
    *self_p = NULL;
}

static void
s_put (tl_table_t *self, json_t *value)
{
    if (self->filled == self->count) {
        json_array_append_new (self->rows, json_object ());
        self->filled = 0;
    }
    json_t *row = json_array_get (self->rows, json_array_size (self->rows) - 1);
    json_object_set_new (row, self->columns[self->filled++].name, value);
}

void
tl_table_text (tl_table_t *self, const char *text)
{
    s_put (self, text ? tl_json_string (text) : json_null ());
}

void
tl_table_count (tl_table_t *self, uint64_t number)
{
    s_put (self, json_integer ((json_int_t)number));
}

void
tl_table_real (tl_table_t *self, double number)
{
    s_put (self, isfinite (number) ? json_real (number) : json_null ());
}

static void
s_set_cell (struct libscols_line *line, const tl_column_t *column, size_t index,
            const json_t *value)
{
    char text[64];
    if (json_is_string (value))
        scols_line_set_data (line, index, json_string_value (value));
    else if (json_is_real (value)) {
        snprintf (text, sizeof text, "%.*f", column->digits, json_real_value (value));
        scols_line_set_data (line, index, text);
    } else if (json_is_integer (value)) {
        snprintf (text, sizeof text, "%lld", (long long)json_integer_value (value));
        scols_line_set_data (line, index, text);
    } else
        scols_line_set_data (line, index, "-");
}

static bool
s_has_text (const tl_table_t *self, size_t column)
{
    for (size_t r = 0; r < json_array_size (self->rows); r++)
        if (json_is_string (
                json_object_get (json_array_get (self->rows, r), self->columns[column].name)))
            return true;
    return false;
}

static void
s_print_text (const tl_table_t *self)
{
    size_t rows = json_array_size (self->rows);
    struct libscols_table *table = scols_new_table ();
    tl_assert (table);
    for (size_t i = 0; i < self->count; i++) {
        int flags = s_has_text (self, i) ? 0 : SCOLS_FL_RIGHT;
        scols_table_new_column (table, self->columns[i].header, 0, flags);
    }
    scols_table_enable_maxout (table, 0);
    scols_table_set_termforce (table, SCOLS_TERMFORCE_NEVER);
    for (size_t r = 0; r < rows; r++) {
        struct libscols_line *line = scols_table_new_line (table, NULL);
        for (size_t i = 0; i < self->count; i++)
            s_set_cell (line, &self->columns[i], i,
                        json_object_get (json_array_get (self->rows, r), self->columns[i].name));
    }
    scols_print_table (table);
    scols_unref_table (table);
}

void
tl_table_print (const tl_table_t *self, tl_format_t format)
{
    tl_assert (self->filled == self->count);
    if (format == TL_FORMAT_TEXT)
        s_print_text (self);
    else if (format == TL_FORMAT_JSON) {
        json_t *document = json_pack ("{sO}", self->title, self->rows);
        tl_json_print (document, true);
        json_decref (document);
    } else
        for (size_t r = 0; r < json_array_size (self->rows); r++)
            tl_json_print (json_array_get (self->rows, r), false);
}
