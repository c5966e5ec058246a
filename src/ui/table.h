/*  table: the same rows as a text table, as JSON or as JSON lines.

    Made for results of a few hundred rows at most: everything is kept until it is printed.        */

#ifndef TL_TABLE_H
#define TL_TABLE_H

#include "ui/format.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *name;   //  the JSON key
    const char *header; //  over the column of the text table
    int digits;         //  of reals in the text table, after the point
} tl_column_t;

typedef struct tl_table tl_table_t;

//  columns [count] must outlive the table. title is the JSON key of the list of rows.
tl_table_t *tl_table_new (const char *title, const tl_column_t *columns, size_t count);
void tl_table_destroy (tl_table_t **self_p);

//  Fill one row from left to right; a row is begun by the first cell after a full one.
void tl_table_text (tl_table_t *self, const char *text); //  NULL: an empty cell, null in JSON
void tl_table_count (tl_table_t *self, uint64_t number);
void tl_table_real (tl_table_t *self, double number); //  not finite: null in JSON

//  To stdout. json is {"title": [rows]}, jsonl a row a line.
void tl_table_print (const tl_table_t *self, tl_format_t format);

#endif
