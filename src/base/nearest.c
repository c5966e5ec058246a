//  nearest: optimal string alignment over short words; anything longer than 63 bytes is near nothing.

#include "nearest.h"

#include <ctype.h>
#include <string.h>

enum { LONGEST = 63 };

static size_t
s_min (size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t
s_distance (const char *a, size_t a_size, const char *b, size_t b_size)
{
    size_t rows[3][LONGEST + 1]; //  row i lives in rows [i % 3]: swaps look two rows back

    for (size_t j = 0; j <= b_size; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a_size; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            int x = tolower ((unsigned char)a[i - 1]), y = tolower ((unsigned char)b[j - 1]);
            row[j] = s_min (above[j - 1] + (x != y), s_min (above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && x == tolower ((unsigned char)b[j - 2]) &&
                y == tolower ((unsigned char)a[i - 2]))
                row[j] = s_min (row[j], above2[j - 2] + 1);
        }
    }
    return rows[a_size % 3][b_size];
}

const char *
tl_nearest (const char *text, const char *const *words, size_t count)
{
    const char *best = NULL;
    size_t best_distance = 0, size = strlen (text);

    if (size > LONGEST)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t other = strlen (words[i]);
        if (other > LONGEST)
            continue;
        size_t distance = s_distance (text, size, words[i], other);
        size_t third = (size > other ? size : other) / 3;
        if (distance <= (third > 2 ? third : 2) && distance < other &&
            (!best || distance < best_distance)) {
            best = words[i];
            best_distance = distance;
        }
    }
    return best;
}
