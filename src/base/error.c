#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int
tl_fail (tl_error_t *err, tl_code_t code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start (args, format);
        vsnprintf (err->text, sizeof err->text, format, args);
        va_end (args);
        err->code = code;
    }
    return -1;
}

int
tl_fail_in (tl_error_t *err, const char *format, ...)
{
    if (err) {
        char prefix[512], rest[sizeof err->text];
        va_list args;
        va_start (args, format);
        vsnprintf (prefix, sizeof prefix - 2, format, args);
        va_end (args);
        strcat (prefix, ": ");
        memcpy (rest, err->text, sizeof rest);
        size_t used = strlen (prefix), length = strlen (rest);
        if (length > sizeof err->text - used - 1)
            length = sizeof err->text - used - 1;
        memcpy (err->text, prefix, used);
        memcpy (err->text + used, rest, length);
        err->text[used + length] = 0;
    }
    return -1;
}

int
tl_fail_on (tl_error_t *err, const char *format, ...)
{
    if (err) {
        size_t used = strlen (err->text);
        if (used + 2 < sizeof err->text)
            used += (size_t)snprintf (err->text + used, sizeof err->text - used, ": ");
        va_list args;
        va_start (args, format);
        vsnprintf (err->text + used, sizeof err->text - used, format, args);
        va_end (args);
    }
    return -1;
}
