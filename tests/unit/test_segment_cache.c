//  Generation: keys and values kept from row to row give what reading everything at once gives, for every
//  family and behind a prefix; what others published is in test_published.c.

#include "unit/cmocka_all.h"

#include "memory.h"
#include "model/segment.h"
#include "rig.h"
#include "tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const tl_tune_t s_lora = {.method = TL_TUNE_LORA, .rank = 4, .alpha = 8, .seed = 5};
static const tl_tune_t s_prefix = {.method = TL_TUNE_PTUNING, .prefix = 3, .seed = 5};

static double
s_distance (const float *one, const float *two, size_t count)
{
    double most = 0;
    for (size_t i = 0; i < count; i++) {
        double d = fabs ((double)one[i] - two[i]);
        most = d <= most ? most : d;
    }
    return most;
}

//  Makes B of every LoRA pair nonzero, so that adapters show.
static void
s_stir (rig_t *rig)
{
    for (size_t p = 0; p < rig->part_count; p++)
        for (size_t i = 0; i < tl_part_tensors (rig->parts[p]); i++) {
            const tl_tensor_t *tensor = tl_part_tensor (rig->parts[p], i);
            for (size_t j = 0; j < tensor->shape[0] * tensor->shape[1]; j++)
                tensor->value[j] += 0.02f * (float)((int)(j % 7) - 3);
        }
}

//  The sequence in pieces through a cut model with one cache a segment, against one forward.
static void
s_compare (const tiny_model_t *spec, const tl_tune_t *tune, size_t front, size_t tail,
           const size_t *pieces, size_t count)
{
    tl_model_t *model = tiny_model_open (spec);
    rig_t *rig = rig_new (model, front, tail, tune);
    s_stir (rig);
    tl_batch_t *batch = tiny_batch (rig->config, 6, 1, 17, 17, 0);
    size_t h = rig->config->hidden, last = rig->chain_length - 1, read = 0;
    ((uint32_t *)batch->context)[0] = (uint32_t)pieces[0] - 1;
    ((uint32_t *)batch->mask)[0] = (uint32_t)pieces[0] - 3;
    tl_tape_t *tapes[3];
    rig_forward (rig, batch, 0, false, tapes);
    tl_cache_t *caches[3];
    for (size_t i = 0; i <= last; i++)
        caches[i] = tl_cache_new (rig->chain[i], 17);
    float *rows = tl_alloc (17 * h * sizeof *rows), *next = tl_alloc (17 * h * sizeof *next);
    for (size_t piece = 0; piece < count; piece++) {
        tl_batch_t so_far = *batch;
        uint32_t length = (uint32_t)(read + pieces[piece]);
        so_far.length = &length;
        so_far.ids = batch->ids + read;
        for (size_t i = 0; i <= last; i++) {
            tl_error_t err = {.text = ""};
            if (tl_segment_extend (rig->chain[i], &caches[i], &so_far, pieces[piece],
                                   i ? rows : NULL, next, &err))
                fail_msg ("%s", err.text);
            memcpy (rows, next, pieces[piece] * h * sizeof *rows);
        }
        double d = s_distance (rows, tl_tape_output (tapes[last]) + read * h, pieces[piece] * h);
        if (!(d < 2e-5))
            fail_msg ("rows %zu to %u differ by %g", read, length - 1, d);
        read = length;
    }
    for (size_t i = 0; i <= last; i++) {
        tl_cache_destroy (&caches[i]);
        tl_tape_destroy (&tapes[i]);
    }
    free (rows);
    free (next);
    tiny_batch_destroy (&batch);
    rig_destroy (&rig);
    tl_model_destroy (&model);
}

static void
test_pieces_give_what_the_whole_gives (void **state)
{
    const size_t one_by_one[] = {5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, all[] = {17};
    const size_t some[] = {9, 3, 1, 4};
    const tiny_model_t specs[] = {tiny_chatglm (),  tiny_llama (true), tiny_llama (false),
                                  tiny_glm (false), tiny_glm (true),   tiny_qwen2 (true)};
    for (size_t i = 0; i < 6; i++)
        for (size_t front = 0; front <= 2; front++) {
            //  With [MASK] inside the context in ChatGLM-6B's case.
            s_compare (&specs[i], &s_lora, front, front ? 2 : 0, one_by_one, 13);
            s_compare (&specs[i], &s_lora, front, front ? 1 : 0, some, 4);
            s_compare (&specs[i], &s_lora, front, front ? 1 : 0, all, 1);
        }
    const tiny_model_t prefixed[] = {tiny_chatglm (), tiny_glm (false), tiny_glm (true)};
    for (size_t i = 0; i < 3; i++)
        for (size_t front = 0; front <= 1; front++) {
            s_compare (&prefixed[i], &s_prefix, front, front, one_by_one, 13);
            s_compare (&prefixed[i], &s_prefix, front, front, some, 4);
        }
}

//  Reads of sequence i the rows [from [i], to [i]) of a whole batch, together, and compares them with
//  expected [rows of all, h].
static void
s_read_together (rig_t *rig, tl_cache_t *const *caches, const tl_batch_t *all, const uint32_t *from,
                 const uint32_t *to, const float *expected)
{
    size_t h = rig->config->hidden, count = 0, offset = 0, row = 0;
    int32_t ids[128];
    tl_batch_t batch = *all;
    for (size_t i = 0; i < all->sequences; offset += all->length[i++])
        for (uint32_t at = from[i]; at < to[i]; at++)
            ids[count++] = all->ids[offset + at];
    batch.length = to;
    batch.ids = ids;
    float *rows = tl_alloc (count * h * sizeof *rows);
    tl_error_t err = {.text = ""};
    if (tl_segment_extend (rig->chain[0], caches, &batch, count, NULL, rows, &err))
        fail_msg ("%s", err.text);
    offset = 0;
    for (size_t i = 0; i < all->sequences; offset += all->length[i++])
        for (uint32_t at = from[i]; at < to[i]; at++, row++) {
            double d = s_distance (rows + row * h, expected + (offset + at) * h, h);
            if (!(d < 2e-5))
                fail_msg ("sequence %zu, row %u differs by %g", i, at, d);
        }
    free (rows);
}

static void
test_several_sequences_grow_together_and_go_back (void **state)
{
    const struct {
        tiny_model_t spec;
        const tl_tune_t *tune;
    } cases[] = {{tiny_chatglm (), &s_lora},   {tiny_llama (true), &s_lora},
                 {tiny_glm (false), &s_lora},  {tiny_qwen2 (false), &s_lora},
                 {tiny_chatglm (), &s_prefix}, {tiny_glm (false), &s_prefix}};
    for (size_t s = 0; s < sizeof cases / sizeof *cases; s++) {
        tl_model_t *model = tiny_model_open (&cases[s].spec);
        rig_t *rig = rig_new (model, 0, 0, cases[s].tune);
        s_stir (rig);
        tl_batch_t *all = tiny_batch (rig->config, 11, 3, 9, 30, 0);
        tl_tape_t *tapes[3];
        rig_forward (rig, all, 0, false, tapes);
        const float *expected = tl_tape_output (tapes[0]);
        tl_cache_t *caches[3];
        uint32_t from[3] = {0}, to[3];
        for (size_t i = 0; i < 3; i++) {
            caches[i] = tl_cache_new (rig->chain[0], all->length[i]);
            to[i] = all->context[i];
        }
        s_read_together (rig, caches, all, from, to, expected);
        for (size_t i = 0; i < 3; i++) {
            from[i] = to[i];
            to[i] = all->length[i];
        }
        //  One that has nothing new to read is refused, and nothing is read then.
        tl_error_t err = {.text = ""};
        float row[32];
        if (from[0] < to[0]) {
            tl_batch_t none = *all;
            none.length = from;
            assert_int_equal (tl_segment_extend (rig->chain[0], caches, &none, 1, NULL, row, &err),
                              -1);
            assert_non_null (strstr (err.text, "order"));
            assert_int_equal (tl_cache_rows (caches[0]), from[0]);
        }
        for (size_t i = 0; i < 3; i++)
            if (from[i] == to[i])
                tl_cache_cut (caches[i], --from[i]);
        s_read_together (rig, caches, all, from, to, expected);
        //  Back to the context, and on again.
        for (size_t i = 0; i < 3; i++) {
            from[i] = all->context[i] < to[i] ? all->context[i] : to[i] - 1;
            tl_cache_cut (caches[i], from[i]);
        }
        s_read_together (rig, caches, all, from, to, expected);
        for (size_t i = 0; i < 3; i++)
            tl_cache_destroy (&caches[i]);
        tl_tape_destroy (&tapes[0]);
        tiny_batch_destroy (&all);
        rig_destroy (&rig);
        tl_model_destroy (&model);
    }
}

static void
test_bad_extensions_get_a_sentence (void **state)
{
    tiny_model_t spec = tiny_chatglm ();
    tl_model_t *model = tiny_model_open (&spec);
    rig_t *rig = rig_new (model, 0, 0, &s_lora);
    tl_batch_t *batch = tiny_batch (rig->config, 6, 1, 9, 9, 0);
    tl_cache_t *cache = tl_cache_new (rig->chain[0], 8);
    float output[9 * 32];
    tl_error_t err = {.text = ""};
    assert_int_equal (tl_segment_extend (rig->chain[0], &cache, batch, 9, NULL, output, &err), -1);
    assert_non_null (strstr (err.text, "cache"));
    ((uint32_t *)batch->length)[0] = 4;
    ((uint32_t *)batch->context)[0] = 5;
    assert_int_equal (tl_segment_extend (rig->chain[0], &cache, batch, 4, NULL, output, &err), -1);
    assert_non_null (strstr (err.text, "prompt"));
    ((uint32_t *)batch->context)[0] = 3;
    ((uint32_t *)batch->mask)[0] = 2;
    ((int32_t *)batch->ids)[1] = 96;
    assert_int_equal (tl_segment_extend (rig->chain[0], &cache, batch, 4, NULL, output, &err), -1);
    assert_non_null (strstr (err.text, "vocabulary"));
    ((int32_t *)batch->ids)[1] = 95;
    assert_int_equal (tl_segment_extend (rig->chain[0], &cache, batch, 4, NULL, output, &err), 0);
    assert_int_equal (tl_segment_extend (rig->chain[0], &cache, batch, 1, NULL, output, &err), -1);
    assert_non_null (strstr (err.text, "order"));
    tl_cache_destroy (&cache);
    tl_cache_destroy (&cache);
    tiny_batch_destroy (&batch);
    rig_destroy (&rig);
    tl_model_destroy (&model);
}

int
main (void)
{
    tl_kernels_use (1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_pieces_give_what_the_whole_gives),
        cmocka_unit_test (test_several_sequences_grow_together_and_go_back),
        cmocka_unit_test (test_bad_extensions_get_a_sentence),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
