//  schema_value: the way back: what a topology holds, as it would be written in the file.

#include "schema.h"

#include "memory.h"
#include "number.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *
s_joined (char *list, const char *word)
{
    char *longer = tl_format ("%s%s%s", list, *list ? "," : "", word);
    free (list);
    return longer;
}

//  The words of a choice whose value is stored, or of all bits that are set.
static char *
s_words_of (const tl_setting_t *row, int stored)
{
    bool bits = row->kind == TL_SETTING_PARTS;
    char *list = tl_strdup ("");
    for (const tl_choice_t *choice = row->choices; choice->word; choice++)
        if (!choice->refusal && (bits ? stored & choice->value : stored == choice->value))
            list = s_joined (list, choice->word);
    return list;
}

//  The row lies in an option that was left out.
static bool
s_left_out (const tl_topology_t *topology, const tl_setting_t *row)
{
    size_t count;
    const tl_setting_t *rows = tl_schema (&count);
    for (size_t i = 0; i < count; i++) {
        size_t size = strlen (rows[i].path);
        if (rows[i].kind == TL_SETTING_OPTION && !strstr (rows[i].path, "[]") &&
            strncmp (row->path, rows[i].path, size) == 0 && row->path[size] == '.' &&
            !*(const bool *)((const char *)topology + rows[i].offset))
            return true;
    }
    return false;
}

char *
tl_schema_value (const tl_topology_t *topology, const tl_setting_t *row)
{
    const void *field = (const char *)topology + row->offset;
    char number[32], *list;
    if (strstr (row->path, "[]") || s_left_out (topology, row))
        return NULL;
    switch (row->kind) {
    case TL_SETTING_COUNT:
        return tl_format ("%llu", (unsigned long long)*(const uint64_t *)field);
    case TL_SETTING_MEGABYTES:
        return tl_format ("%zu", *(const size_t *)field >> 20);
    case TL_SETTING_INTEGER:
        return tl_format ("%d", *(const int *)field);
    case TL_SETTING_MS:
        return tl_format ("%lld", (long long)*(const int64_t *)field);
    case TL_SETTING_REAL:
        tl_number_text (number, *(const double *)field);
        return tl_strdup (number);
    case TL_SETTING_TEXT:
    case TL_SETTING_NAME:
    case TL_SETTING_ADDRESS:
        return tl_strdup (*(char *const *)field ? *(char *const *)field : "");
    case TL_SETTING_CHOICE:
    case TL_SETTING_PARTS:
        return s_words_of (row, *(const int *)field);
    case TL_SETTING_FLAG:
        return s_words_of (row, *(const bool *)field);
    case TL_SETTING_TARGETS:
        list = tl_strdup ("");
        for (size_t i = 0; i < topology->tune.target_count; i++)
            list = s_joined (list, topology->tune.targets[i]);
        return list;
    case TL_SETTING_FREEZE:
        list = tl_strdup ("");
        for (size_t i = 0; i < topology->tune.freeze_count; i++)
            list = s_joined (list, topology->tune.freeze[i]);
        return list;
    case TL_SETTING_SECTION:
    case TL_SETTING_OPTION:
    case TL_SETTING_PEERS:
    case TL_SETTING_ONLY:
    case TL_SETTING_LATER:
        break;
    }
    return NULL;
}
