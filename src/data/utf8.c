//  utf8: see utf8.h.

#include "utf8.h"

#include "memory.h"

#include <string.h>

size_t
tl_utf8_length (const char *text, size_t size, size_t *bad, bool *open)
{
    const unsigned char *byte = (const unsigned char *)text;
    const unsigned char lead = byte[0];
    *bad = 1;
    *open = false;
    if (lead < 0x80)
        return 1;
    size_t length = lead >= 0xc2 && lead < 0xe0   ? 2
                    : (lead & 0xf0) == 0xe0       ? 3
                    : lead >= 0xf0 && lead < 0xf5 ? 4
                                                  : 0;
    if (length == 0)
        return 0;
    //  The second byte has a narrower range after some leads.
    unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    for (size_t i = 1; i < length; i++) {
        if (i == size) {
            *open = true;
            return 0;
        }
        if (byte[i] < low || byte[i] > high)
            return 0;
        *bad = i + 1;
        low = 0x80;
        high = 0xbf;
    }
    return length;
}

size_t
tl_utf8_valid (const char *text, size_t size)
{
    size_t at = 0, bad;
    bool open;
    while (at < size) {
        size_t length = tl_utf8_length (text + at, size - at, &bad, &open);
        if (length == 0)
            break;
        at += length;
    }
    return at;
}

char *
tl_utf8_repair (const char *text, size_t size, size_t *repaired_size)
{
    char *repaired = tl_alloc (3 * size + 1), *to = repaired;
    for (size_t at = 0; at < size;) {
        size_t bad;
        bool open;
        size_t length = tl_utf8_length (text + at, size - at, &bad, &open);
        if (length) {
            memcpy (to, text + at, length);
            to += length;
            at += length;
        } else {
            to = stpcpy (to, TL_UTF8_REPLACEMENT);
            at += bad;
        }
    }
    *to = 0;
    *repaired_size = (size_t)(to - repaired);
    return repaired;
}

size_t
tl_utf8_write (uint32_t character, char *out)
{
    if (character < 0x80) {
        out[0] = (char)character;
        return 1;
    }
    size_t length = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, character >>= 6)
        out[i] = (char)(0x80 | (character & 0x3f));
    out[0] = (char)((0xf00u >> length & 0xf0) | character);
    return length;
}

uint32_t
tl_utf8_read (const char *text, size_t length)
{
    const unsigned char *byte = (const unsigned char *)text;
    uint32_t character = length == 1 ? byte[0] : byte[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++)
        character = character << 6 | (byte[i] & 0x3f);
    return character;
}
