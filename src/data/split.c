/*  split: see split.h. Runs compiled expressions over text with PCRE2 (JIT where it has one). Knows nothing of tokens;
    what expressions may hold is pattern.c's business.                                              */

#include "split.h"

#include "pattern.h"
#include "utf8.h"

#include "log.h"
#include "memory.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_STAGES = 8,
    //  Backtracking steps of one match. The known expressions need a few for each byte: a run of spaces is tried as line ends
    //  first, and given up blank by blank.
    MATCH_LIMIT = 1000000,
    MATCH_LIMIT_A_BYTE = 16,
    DEPTH_LIMIT = 10000, //  of the interpreter, where there is no JIT
    HEAP_LIMIT_KB = 65536
};

typedef struct {
    pcre2_code *code;
    tl_split_keep_t keep;
} stage_t;

struct tl_split {
    stage_t stages[MOST_STAGES];
    size_t count;
    pcre2_match_context *limits; //  of short texts
    atomic_bool *told; //  that an expression gave up; a pointer, for a splitter is shared as const
};

tl_split_t *
tl_split_new (void)
{
    tl_split_t *self = tl_alloc (sizeof *self);
    self->told = tl_alloc (sizeof *self->told);
    self->limits = pcre2_match_context_create (NULL);
    if (!self->limits)
        abort ();
    pcre2_set_match_limit (self->limits, MATCH_LIMIT);
    pcre2_set_depth_limit (self->limits, DEPTH_LIMIT);
    pcre2_set_heap_limit (self->limits, HEAP_LIMIT_KB);
    return self;
}

void
tl_split_destroy (tl_split_t **self_p)
{
    tl_split_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->count; i++)
        pcre2_code_free (self->stages[i].code);
    pcre2_match_context_free (self->limits);
    free (self->told);
    free (self);
    *self_p = NULL;
}

//  ---------------------------------------------------------------------------------------------
//  Running

//  One pass over a text.
typedef struct {
    const tl_split_t *of;
    pcre2_match_data *found[MOST_STAGES];
    pcre2_match_context *limits;
    bool gave_up;
    tl_split_fn *take;
    void *arg;
} run_t;

static void
s_take (void *arg, const char *piece, size_t size)
{
}

//  Where the next match at or after from begins and ends; false when there is none.
static bool
s_match (run_t *self, size_t stage, const char *text, size_t size, size_t from, size_t *first,
         size_t *last)
{
    //  text is known to be well-formed, and from to be between characters.
    int rc = pcre2_match (self->of->stages[stage].code, (PCRE2_SPTR)text, size, from,
                          PCRE2_NO_UTF_CHECK, self->found[stage], self->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match (self->of->stages[stage].code, (PCRE2_SPTR)text, size, from,
                          PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, self->found[stage], self->limits);
    if (rc < 0) {
        self->gave_up |= rc != PCRE2_ERROR_NOMATCH;
        return false;
    }
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer (self->found[stage]);
    *first = place[0];
    *last = place[1];
    return true;
}

static void
s_run (run_t *self, size_t stage, const char *text, size_t size)
{
    if (size == 0)
        return;
    if (stage == self->of->count) {
        self->take (self->arg, text, size);
        return;
    }
    const bool gaps = self->of->stages[stage].keep == TL_SPLIT_BOTH;
    size_t done = 0, from = 0, first, last;
    while (from <= size && s_match (self, stage, text, size, from, &first, &last)) {
        if (last == first) {
            //  A match of nothing cuts nothing.
            if (first >= size)
                break;
            size_t bad;
            bool open;
            from = first + tl_utf8_length (text + first, size - first, &bad, &open);
            continue;
        }
        if (gaps)
            s_run (self, stage + 1, text + done, first - done);
        s_run (self, stage + 1, text + first, last - first);
        done = from = last;
    }
    if (gaps || self->gave_up)
        s_run (self, stage + 1, text + done, size - done);
}

//  Returns whether no expression gave up.
static bool
s_run_all (const tl_split_t *self, const char *text, size_t size, tl_split_fn *take, void *arg)
{
    run_t run = {.of = self, .take = take, .arg = arg};
    run.limits = pcre2_match_context_copy (self->limits);
    if (!run.limits)
        abort ();
    size_t more =
        size < UINT32_MAX / (2 * MATCH_LIMIT_A_BYTE) ? size * MATCH_LIMIT_A_BYTE : UINT32_MAX / 2;
    pcre2_set_match_limit (run.limits, (uint32_t)(MATCH_LIMIT + more));
    for (size_t i = 0; i < self->count; i++)
        if (!(run.found[i] = pcre2_match_data_create (1, NULL)))
            abort ();
    s_run (&run, 0, text, size);
    for (size_t i = 0; i < self->count; i++)
        pcre2_match_data_free (run.found[i]);
    pcre2_match_context_free (run.limits);
    return !run.gave_up;
}

void
tl_split_run (const tl_split_t *self, const char *text, size_t size, tl_split_fn *take, void *arg)
{
    if (!s_run_all (self, text, size, take, arg) && !atomic_exchange (self->told, true))
        tl_warn ("the tokenizer's expression takes too many steps on some text, the rest of which "
                 "stays uncut; use the tokenizer file that came with the model");
}

//  ---------------------------------------------------------------------------------------------
//  Adding

//  An expression that needs a million steps for these isn't one that splits text.
static bool
s_is_bearable (const tl_split_t *self)
{
    enum { PROBE = 400 };
    static const char *const units[] = {"a", "1",  " ", "\n", "!", "'s", "a1", " a", "\xe4\xb8\xad",
                                        "_", "\t", "A", "-",  "0", "\"", "<"};
    char probe[3 * PROBE + 2];
    bool bearable = true;
    for (size_t i = 0; bearable && i < sizeof units / sizeof *units; i++) {
        size_t unit = strlen (units[i]), size = 0;
        for (int k = 0; k < PROBE; k++, size += unit)
            memcpy (probe + size, units[i], unit);
        bearable = s_run_all (self, probe, size, s_take, NULL);
        //  Something that doesn't fit, behind it.
        probe[size] = '\x01';
        bearable = bearable && s_run_all (self, probe, size + 1, s_take, NULL);
    }
    return bearable;
}

static int
s_add (tl_split_t *self, const char *name, const char *pattern, size_t length, uint32_t options,
       tl_split_keep_t keep, tl_error_t *err)
{
    if (self->count == MOST_STAGES)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: text is split in more than %d ways, which isn't supported; use a "
                        "model of a supported family",
                        name, MOST_STAGES);
    int problem = 0;
    PCRE2_SIZE where = 0;
    pcre2_code *code = pcre2_compile ((PCRE2_SPTR)pattern, length,
                                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | options,
                                      &problem, &where, NULL);
    if (!code) {
        char words[160] = "";
        pcre2_get_error_message (problem, (PCRE2_UCHAR *)words, sizeof words);
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: the expression '%.*s' is broken (%s); fetch the file again", name,
                        (int)(length < 200 ? length : 200), pattern, words);
    }
    //  Without JIT it is slower, not other.
    pcre2_jit_compile (code, PCRE2_JIT_COMPLETE);
    self->stages[self->count++] = (stage_t){code, keep};
    if (!s_is_bearable (self))
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: the expression '%.*s' takes for ever on simple texts; use the file "
                        "that came with the model",
                        name, (int)(length < 200 ? length : 200), pattern);
    return 0;
}

int
tl_split_add (tl_split_t *self, const char *name, const char *pattern, size_t length,
              unsigned unicode, tl_split_keep_t keep, tl_error_t *err)
{
    tl_text_t translated = {0};
    int rc = tl_pattern_translate (name, pattern, length, unicode, &translated, err);
    if (rc == 0)
        rc = s_add (self, name, translated.data, translated.size, 0, keep, err);
    free (translated.data);
    return rc;
}

int
tl_split_add_literal (tl_split_t *self, const char *name, const char *text, size_t length,
                      tl_error_t *err)
{
    return s_add (self, name, text, length, PCRE2_LITERAL, TL_SPLIT_BOTH, err);
}
