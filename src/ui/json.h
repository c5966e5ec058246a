/*  json: JSON for stdout and files, with every number as short as it can be: 0.1, not 0.10000000000000001, and
    still the same double when it is read again.                                                    */

#ifndef TL_JSON_H
#define TL_JSON_H

#include <jansson.h>
#include <stdbool.h>

//  A string of any bytes, like a path: what isn't UTF-8 becomes "(not UTF-8)".
json_t *tl_json_string (const char *text);
//  One value as text without a newline at its end: on one line, or indented. The caller frees.
char *tl_json_text (const json_t *value, bool indented);
//  To stdout, a newline after it, and flushed: a reader of lines has it now.
void tl_json_print (const json_t *value, bool indented);

#endif
