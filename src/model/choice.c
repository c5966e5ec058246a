/*  choice: which of a checkpoint's tensors a tuning trains: LoRA's targets, everything in full tuning, less
    what tune.freeze leaves out. Names and shapes only; no part, no file, no value.                    */

#include "model/internal.h"
#include "model/segment.h"

#include "assert.h"
#include "nearest.h"

#include <ctype.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double
tl_tune_scaling (const tl_tune_t *tune)
{
    return tune->alpha / (tune->rslora ? sqrt ((double)tune->rank) : (double)tune->rank);
}

//  A linear's module name without ".weight" ends in "." and the target.
bool
tl_tune_targets (const tl_tune_t *tune, const char *weight)
{
    size_t length = strlen (weight) - strlen (".weight");
    for (size_t i = 0; i < tune->target_count; i++) {
        size_t size = strlen (tune->targets[i]);
        if (size < length && weight[length - size - 1] == '.' &&
            memcmp (weight + length - size, tune->targets[i], size) == 0)
            return true;
    }
    return false;
}

//  ---------------------------------------------------------------------------------------------
//  Freeze patterns

static bool
s_in_block (const tl_slot_t *slot)
{
    return slot->role != TL_SLOT_EMBED && slot->role != TL_SLOT_FINAL &&
           slot->role != TL_SLOT_FINAL_BIAS && slot->role != TL_SLOT_HEAD;
}

static bool
s_is_norm (const tl_slot_t *slot)
{
    return slot->role == TL_SLOT_NORM1 || slot->role == TL_SLOT_NORM1_BIAS ||
           slot->role == TL_SLOT_NORM2 || slot->role == TL_SLOT_NORM2_BIAS ||
           slot->role == TL_SLOT_FINAL || slot->role == TL_SLOT_FINAL_BIAS;
}

static bool
s_is_bias (const tl_slot_t *slot)
{
    size_t length = strlen (slot->name);
    return slot->vector && length > 5 && strcmp (slot->name + length - 5, ".bias") == 0;
}

//  blocks.7, blocks.2-5 (both included) or blocks.4- (to the last). False if it is none of these.
static bool
s_blocks (const char *pattern, size_t *first, size_t *last)
{
    char *end;
    if (strncmp (pattern, "blocks.", 7) != 0 || !isdigit ((unsigned char)pattern[7]))
        return false;
    *first = *last = strtoull (pattern + 7, &end, 10);
    if (*end == '-' && !end[1]) {
        *last = SIZE_MAX;
        return true;
    }
    if (*end == '-' && isdigit ((unsigned char)end[1]))
        *last = strtoull (end + 1, &end, 10);
    return !*end;
}

static bool
s_hits (const char *pattern, const tl_slot_t *slot)
{
    size_t first, last;
    if (strcmp (pattern, "embedding") == 0)
        return slot->role == TL_SLOT_EMBED;
    if (strcmp (pattern, "head") == 0)
        return slot->role == TL_SLOT_HEAD;
    if (strcmp (pattern, "norms") == 0)
        return s_is_norm (slot);
    if (strcmp (pattern, "biases") == 0)
        return s_is_bias (slot);
    if (s_blocks (pattern, &first, &last))
        return s_in_block (slot) && slot->block >= first && slot->block <= last;
    return fnmatch (pattern, slot->name, 0) == 0;
}

static bool
s_frozen (const tl_tune_t *tune, const tl_slot_t *slot)
{
    for (size_t i = 0; i < tune->freeze_count; i++)
        if (s_hits (tune->freeze[i], slot))
            return true;
    return false;
}

static bool
s_trainable (const tl_tune_t *tune, const tl_slot_t *slot)
{
    if (tune->method == TL_TUNE_PTUNING)
        return slot->role == TL_SLOT_NORM1; //  a block's first tensor stands for its prefix
    return tune->method == TL_TUNE_FULL || (slot->linear && tl_tune_targets (tune, slot->name));
}

bool
tl_tune_trains (const tl_tune_t *tune, const tl_slot_t *slot)
{
    return !tune->frozen && s_trainable (tune, slot) && !s_frozen (tune, slot);
}

bool
tl_tune_any (const tl_tune_t *tune, const tl_model_t *model, const tl_range_t *range)
{
    const tl_config_t *config = tl_model_config (model);
    tl_tune_t filled = *tune;
    if (filled.target_count == 0) {
        const char *const *targets = tl_default_targets (config, &filled.target_count);
        memcpy (filled.targets, targets, filled.target_count * sizeof *targets);
    }
    for (size_t i = 0; i < tl_layout_count (config); i++) {
        tl_slot_t slot;
        tl_layout_at (config, i, &slot);
        bool inside = s_in_block (&slot) ? slot.block >= range->first && slot.block < range->last
                      : slot.role == TL_SLOT_EMBED ? range->embed || (range->head && config->tied)
                                                   : range->head;
        if (inside && tl_tune_trains (&filled, &slot))
            return true;
    }
    return false;
}

//  ---------------------------------------------------------------------------------------------
//  Checks

static int
s_check_word (const char *pattern, tl_error_t *err)
{
    static const char *const words[] = {"embedding", "head", "norms", "biases", "blocks.0"};
    if (strpbrk (pattern, ".*?["))
        return 0;
    for (size_t i = 0; i < 4; i++)
        if (strcmp (pattern, words[i]) == 0)
            return 0;
    const char *near = tl_nearest (pattern, words, 5);
    return tl_fail (
        err, TL_BAD_INPUT,
        "tune.freeze: '%s' is neither embedding, head, norms, biases, blocks.FIRST-LAST "
        "nor a pattern of tensor names such as '*.mlp.*'; write %s%s",
        pattern, near ? near : "one of these", near ? " if that was meant" : "");
}

//  A pattern that leaves nothing out was meant otherwise.
static int
s_check_pattern (const tl_tune_t *tune, const tl_config_t *config, const char *pattern,
                 tl_error_t *err)
{
    size_t first, last;
    if (s_check_word (pattern, err) != 0)
        return -1;
    if (s_blocks (pattern, &first, &last) &&
        (first > last || first >= config->blocks || (last != SIZE_MAX && last >= config->blocks)))
        return tl_fail (err, TL_BAD_INPUT,
                        "tune.freeze: '%s' is no range of this model's blocks, 0 to %zu; choose "
                        "among them",
                        pattern, config->blocks - 1);
    for (size_t i = 0; i < tl_layout_count (config); i++) {
        tl_slot_t slot;
        tl_layout_at (config, i, &slot);
        if (s_hits (pattern, &slot) && s_trainable (tune, &slot))
            return 0;
    }
    bool tied = config->tied && strcmp (pattern, "head") == 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "tune.freeze: '%s' names nothing that tune.method %s would train in this "
                    "model; %s",
                    pattern, tl_method_name (tune->method),
                    tied ? "its head is the embedding: write embedding" : "remove or correct it");
}

//  PEFT can leave out whole blocks, not a linear here and there.
static int
s_check_mixed (const tl_tune_t *tune, const tl_config_t *config, tl_error_t *err)
{
    bool any = false;
    const char *in = NULL, *out = NULL;
    char names[2][sizeof ((tl_slot_t *)0)->name];
    size_t block = SIZE_MAX;
    for (size_t i = 0; i < tl_layout_count (config); i++) {
        tl_slot_t slot;
        tl_layout_at (config, i, &slot);
        if (!s_trainable (tune, &slot))
            continue;
        if (slot.block != block)
            in = out = NULL;
        block = slot.block;
        bool frozen = s_frozen (tune, &slot);
        any = any || !frozen;
        const char **kind = frozen ? &out : &in;
        snprintf (names[frozen], sizeof names[0], "%s", slot.name);
        *kind = names[frozen];
        if (in && out && tune->method == TL_TUNE_LORA)
            return tl_fail (err, TL_BAD_INPUT,
                            "tune.freeze leaves out %s but not %s of the same block, which an "
                            "adapter can't say; freeze whole blocks, or name fewer tune.targets",
                            out, in);
    }
    return any ? 0
               : tl_fail (err, TL_BAD_INPUT,
                          "tune.freeze leaves nothing to train; remove some of it");
}

int
tl_tune_check_freeze (const tl_tune_t *tune, const tl_config_t *config, tl_error_t *err)
{
    tl_assert (tune->freeze_count <= TL_MAX_FREEZE);
    for (size_t i = 0; i < tune->freeze_count; i++)
        if (s_check_pattern (tune, config, tune->freeze[i], err) != 0)
            return -1;
    return tune->freeze_count ? s_check_mixed (tune, config, err) : 0;
}
