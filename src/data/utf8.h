/*  utf8: where characters begin and end, and where bytes are none. Well-formed means Unicode's table 3-7: no
    overlong forms, no surrogates, nothing above U+10FFFF.                                          */

#ifndef TL_DATA_UTF8_H
#define TL_DATA_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TL_UTF8_REPLACEMENT "\xef\xbf\xbd" //  U+FFFD

//  Bytes of the well-formed character that text [size >= 1] begins with; 0 if it begins with none. Then *bad is how many
//  bytes make one U+FFFD (the longest beginning of a character, at least 1), and *open says that text ended before
//  the character did.
size_t tl_utf8_length (const char *text, size_t size, size_t *bad, bool *open);
//  Index of the first byte that isn't part of well-formed text; size when all is well.
size_t tl_utf8_valid (const char *text, size_t size);
//  A fresh copy with every ill-formed part as one U+FFFD and a NUL behind it; the caller frees.
char *tl_utf8_repair (const char *text, size_t size, size_t *repaired_size);
//  Writes a character below 0x110000 to out [4]; returns its bytes.
size_t tl_utf8_write (uint32_t character, char *out);
//  Reads the well-formed character at text of length bytes.
uint32_t tl_utf8_read (const char *text, size_t length);

#endif
