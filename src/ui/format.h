//  format: how a result is written to stdout.

#ifndef TL_FORMAT_H
#define TL_FORMAT_H

typedef enum {
    TL_FORMAT_TEXT, //  for people
    TL_FORMAT_JSON, //  one document
    TL_FORMAT_JSONL //  one object a line, as they come
} tl_format_t;

#endif
