/*  A site's and a trunk's share of a step against training in one place, without messages in between:
    one client gives the same losses and the same trained tensors bit for bit; several clients that share
    a trunk only, the same within the stated tolerance.                                             */

#include "unit/cmocka_all.h"

#include "fed/aggregate.h"
#include "fed/local.h"
#include "fed/site.h"
#include "fed/trunk.h"
#include "file.h"
#include "memory.h"
#include "model/safetensors.h"
#include "rig.h"
#include "tiny_model.h"
#include "tiny_tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 5, MAX_SITES = 3, MAX_MICROS = 4 };

typedef struct {
    char *directory; //  model, text and topology
    tl_topology_t *topology;
} fixture_t;

static void
s_must (bool good, const tl_error_t *err)
{
    if (!good)
        fail_msg ("%s", err->text);
}

//  Site number n has examples whose answers are n + 1 times as long.
static void
s_write_text (const char *directory, int site)
{
    char *path = tl_format ("%s/%d.jsonl", directory, site);
    FILE *file = fopen (path, "w");
    assert_non_null (file);
    for (int i = 0; i < 9; i++) {
        fprintf (file, "{\"prompt\": \"word %d\", \"completion\": \"", i);
        for (int j = 0; j < (1 + i % 3) * (1 + 2 * site); j++)
            fprintf (file, "%c%c", 'a' + (i + j) % 26, 'a' + (3 * i + j * j) % 26);
        fprintf (file, "\"}\n");
    }
    fclose (file);
    free (path);
}

static fixture_t
s_fixture (const tiny_model_t *model, int sites, const char *const *settings, size_t count)
{
    tl_error_t err;
    fixture_t self = {.directory = tiny_directory ()};
    tiny_model_t spec = *model;
    spec.vocab = tiny_tokenizer_vocab (spec.family);
    s_must (tiny_model_write (&spec, self.directory, &err) == 0, &err);
    s_must (tiny_tokenizer_write (spec.family, self.directory, &err) == 0, &err);

    char *yaml = tl_format ("version: 1\nname: t\nmodel: {path: %s}\n"
                            "train: {steps: %d, batch_size: 4, max_length: 64, lr: 2e-3}\n"
                            "wire: {dtype: fp32}\nworkers: [{name: w}]\nclients:\n",
                            self.directory, STEPS);
    for (int i = 0; i < sites; i++) {
        s_write_text (self.directory, i);
        char *more =
            tl_format ("%s  - {name: c%d, data: %s/%d.jsonl}\n", yaml, i, self.directory, i);
        free (yaml);
        yaml = more;
    }
    char *path = tl_format ("%s/t.yaml", self.directory);
    s_must (tl_file_write (path, yaml, strlen (yaml), 0644, &err) == 0, &err);
    self.topology = tl_topology_read (path, settings, count, &err);
    s_must (self.topology != NULL, &err);
    free (path);
    free (yaml);
    return self;
}

static void
s_clear (fixture_t *self)
{
    tl_topology_destroy (&self->topology);
    tl_remove_tree (self->directory);
    free (self->directory);
}

//  ---------------------------------------------------------------------------------------------
//  Several batches as the worker sees them: one after another, without ids and labels

typedef struct {
    tl_batch_t batch;
    uint32_t length[64], context[64], mask[64];
    uint64_t number[64];
    float *rows, *gradient; //  [rows, hidden] of all members
} joined_t;

static void
s_join (joined_t *self, const tl_batch_t *const *members, size_t count, size_t hidden)
{
    memset (self, 0, sizeof *self);
    tl_batch_t *all = &self->batch;
    for (size_t m = 0; m < count; m++) {
        for (size_t i = 0; i < members[m]->sequences; i++, all->sequences++) {
            self->length[all->sequences] = members[m]->length[i];
            self->context[all->sequences] = members[m]->context[i];
            self->mask[all->sequences] = members[m]->mask[i];
            self->number[all->sequences] = members[m]->number[i];
        }
        all->rows += members[m]->rows;
    }
    all->length = self->length;
    all->context = self->context;
    all->mask = self->mask;
    all->number = self->number;
    self->rows = tl_alloc_aligned (all->rows * hidden * sizeof (float));
    self->gradient = tl_alloc_aligned (all->rows * hidden * sizeof (float));
}

//  federate.clients sync: each site's gradient becomes that of all, and terms become its terms.
static void
s_sum (tl_site_t **sites, size_t count, tl_norm_term_t *terms)
{
    tl_error_t err;
    tl_contribution_t parts[MAX_SITES] = {{.name = "one"}, {.name = "two"}, {.name = "three"}};
    for (size_t s = 0; s < count; s++)
        parts[s].blob = tl_site_gradient (sites[s], &parts[s].size);
    size_t size;
    void *sum = tl_aggregate_sum (parts, count, &size, &err);
    s_must (sum != NULL, &err);
    for (size_t s = 0; s < count; s++) {
        s_must (tl_site_sum_up (sites[s], sum, size, terms, &err) == 0, &err);
        free ((void *)parts[s].blob);
    }
    free (sum);
}

//  One step of some sites and a trunk; micros are all in flight before the first way back. Returns the
//  mean loss.
static double
s_split_step (tl_site_t **sites, size_t count, tl_trunk_t *trunk, uint64_t step, size_t micros,
              bool sync)
{
    tl_error_t err;
    size_t hidden = tl_trunk_hidden (trunk);
    static joined_t joined[MAX_MICROS];
    const tl_batch_t *batches[MAX_MICROS][MAX_SITES];
    for (size_t s = 0; s < count; s++)
        tl_site_begin (sites[s], step, micros);
    tl_trunk_begin (trunk, step, micros);
    for (size_t m = 0; m < micros; m++) {
        const float *fronts[MAX_SITES];
        for (size_t s = 0; s < count; s++)
            fronts[s] = tl_site_front (sites[s], m, &batches[m][s]);
        s_join (&joined[m], batches[m], count, hidden);
        size_t at = 0;
        for (size_t s = 0; s < count; at += batches[m][s]->rows * hidden, s++)
            memcpy (joined[m].rows + at, fronts[s], batches[m][s]->rows * hidden * sizeof (float));
        const float *out = tl_trunk_forward (trunk, m, &joined[m].batch, joined[m].rows);
        at = 0;
        for (size_t s = 0; s < count; at += batches[m][s]->rows * hidden, s++)
            tl_site_tail (sites[s], m, out + at, joined[m].gradient + at);
    }
    for (size_t m = 0; m < micros; m++) {
        tl_trunk_backward (trunk, m, joined[m].gradient, joined[m].rows);
        size_t at = 0;
        for (size_t s = 0; s < count; at += batches[m][s]->rows * hidden, s++)
            if (tl_site_wants_gradient (sites[s]))
                tl_site_back (sites[s], m, joined[m].rows + at);
        free (joined[m].rows);
        free (joined[m].gradient);
    }
    tl_norm_term_t terms[256];
    size_t term_count = 0;
    uint64_t labels = 0;
    double total = 0;
    for (size_t s = 0; s < count; s++) {
        uint64_t own;
        double nll;
        s_must (tl_site_commit (sites[s], terms + term_count, &own, &nll, &err) == 0, &err);
        term_count += tl_part_tensors (tl_site_part (sites[s]));
        labels += own;
        total += nll;
    }
    if (sync) {
        s_sum (sites, count, terms);
        term_count /= count;
    }
    double norm = tl_trunk_norm (trunk, terms, term_count, labels);
    s_must (tl_trunk_update (trunk, labels, norm, &err) == 0, &err);
    for (size_t s = 0; s < count; s++)
        s_must (tl_site_update (sites[s], labels, norm, &err) == 0, &err);
    return total / (double)labels;
}

//  ---------------------------------------------------------------------------------------------
//  Comparing

typedef struct {
    size_t tensors;    //  compared
    size_t different;  //  with any other bit
    double worst_max;  //  max|d| / max|tensor|
    double worst_norm; //  |d| / |tensor|, Frobenius
} difference_t;

static void
s_compare (difference_t *self, tl_part_t *part, const tl_safetensors_t *file)
{
    for (size_t i = 0; i < tl_part_tensors (part); i++) {
        const tl_tensor_t *tensor = tl_part_tensor (part, i);
        size_t count = tensor->shape[0] * tensor->shape[1];
        float *values = rig_saved (tensor, file);
        if (!values)
            fail_msg ("the adapter has no %s of that size", tensor->name);
        double d_max = 0, t_max = 1e-30, d_sum = 0, t_sum = 1e-30;
        for (size_t j = 0; j < count; j++) {
            double d = fabs ((double)tensor->value[j] - values[j]), t = fabs (values[j]);
            d_max = fmax (d_max, d);
            t_max = fmax (t_max, t);
            d_sum += d * d;
            t_sum += t * t;
        }
        self->different += memcmp (tensor->value, values, count * sizeof *values) != 0;
        free (values);
        self->worst_max = fmax (self->worst_max, d_max / t_max);
        self->worst_norm = fmax (self->worst_norm, sqrt (d_sum / t_sum));
        self->tensors++;
    }
}

static const char *
s_adapter_file (const tl_topology_t *topology)
{
    return topology->tune.method == TL_METHOD_FULL ? "model.safetensors"
                                                   : "adapter_model.safetensors";
}

//  Runs both ways; losses [STEPS] of each.
static difference_t
s_run_both (fixture_t *fixture, double *local_losses, double *split_losses)
{
    tl_error_t err;
    const tl_topology_t *topology = fixture->topology;
    size_t count = topology->client_count;
    bool sync = topology->federate.clients == TL_CLIENTS_SYNC;
    tl_site_t *sites[MAX_SITES] = {NULL};
    tl_local_t *local = tl_local_new (topology, NULL, 0, &err);
    s_must (local != NULL, &err);
    for (size_t s = 0; s < count; s++)
        s_must ((sites[s] = tl_site_new (topology, s, true, &err)) != NULL, &err);
    tl_trunk_t *trunk = tl_trunk_new (topology, 0, &err);
    s_must (trunk != NULL, &err);

    for (uint64_t step = 0; step < STEPS; step++) {
        tl_local_step_t result;
        s_must (tl_local_step (local, &result, &err) == 0, &err);
        local_losses[step] = result.loss;
        split_losses[step] = s_split_step (sites, count, trunk, step, topology->train.micros, sync);
    }
    char *adapter = tl_format ("%s/adapter", fixture->directory);
    s_must (tl_local_save_adapter (local, adapter, &err) == 0, &err);
    char *path = tl_format ("%s/%s", adapter, s_adapter_file (topology));
    tl_safetensors_t *file = tl_safetensors_open (path, &err);
    s_must (file != NULL, &err);
    difference_t difference = {0};
    for (size_t s = 0; s < count; s++)
        s_compare (&difference, tl_site_part (sites[s]), file);
    s_compare (&difference, tl_trunk_part (trunk), file);
    const tl_tensor_t *one = tl_part_tensor (tl_trunk_part (trunk), 0);
    size_t again = sync ? (count - 1) * tl_part_tensors (tl_site_part (sites[0])) : 0;
    assert_int_equal (difference.tensors, rig_saved_count (file, one->shape[1]) + again);

    tl_safetensors_destroy (&file);
    free (path);
    free (adapter);
    tl_trunk_destroy (&trunk);
    for (size_t s = 0; s < count; s++)
        tl_site_destroy (&sites[s]);
    tl_local_destroy (&local);
    return difference;
}

//  ---------------------------------------------------------------------------------------------

static void
s_one_client (const tiny_model_t *model, const char *const *settings, size_t count)
{
    double local[STEPS], split[STEPS];
    fixture_t fixture = s_fixture (model, 1, settings, count);
    difference_t difference = s_run_both (&fixture, local, split);
    for (int step = 0; step < STEPS; step++)
        if (local[step] != split[step])
            fail_msg ("step %d: in one place %.17g, split %.17g", step + 1, local[step],
                      split[step]);
    assert_true (local[0] != local[STEPS - 1]);
    if (difference.different)
        fail_msg ("%zu of %zu tensors differ, by %g of their largest value at worst",
                  difference.different, difference.tensors, difference.worst_max);
    s_clear (&fixture);
}

//  prefix: the family has P-tuning, too.
static void
s_every_setting (const tiny_model_t *model, bool prefix)
{
    static const char *const methods[] = {"tune={method: lora, dropout: 0.05, rank: 4}",
                                          "tune={method: full}",
                                          "tune={method: ptuning, prefix: 3}"};
    static const char *const clips[] = {"train.clip=0.05", "train.clip=0"};
    static const char *const micros[] = {"train.micros=1", "train.micros=3"};
    static const char *const splits[] = {"split={front: 1, tail: 1}", "split={front: 2, tail: 1}",
                                         "split={front: 1, tail: 2}", "split={front: 2, tail: 2}"};
    for (size_t i = 0; i < (prefix ? 48 : 32); i++) {
        const char *settings[] = {methods[i / 16], clips[i & 1], micros[i >> 1 & 1],
                                  splits[i >> 2 & 3]};
        s_one_client (model, settings, 4);
    }
}

static void
test_one_client_chatglm (void **state)
{
    tiny_model_t model = tiny_chatglm ();
    s_every_setting (&model, true);
}

static void
test_one_client_glm (void **state)
{
    tiny_model_t original = tiny_glm (false), hf = tiny_glm (true);
    s_every_setting (&original, true);
    s_every_setting (&hf, false);
}

static void
test_one_client_llama (void **state)
{
    tiny_model_t tied = tiny_llama (true), untied = tiny_llama (false);
    s_every_setting (&tied, false);
    s_every_setting (&untied, false);
}

static void
test_one_client_qwen2 (void **state)
{
    tiny_model_t tied = tiny_qwen2 (true);
    s_every_setting (&tied, false);
}

static void
test_trunk_only_is_one_client_too (void **state)
{
    const char *settings[] = {"tune.parts=trunk"};
    tiny_model_t model = tiny_chatglm ();
    s_one_client (&model, settings, 1);
}

//  Three sites with unequal label counts and frozen front and tail: one trunk, one batch.
static void
test_several_clients (void **state)
{
    const tiny_model_t models[] = {tiny_chatglm (), tiny_llama (true), tiny_glm (false)};
    for (int i = 0; i < 6; i++) {
        double local[STEPS], split[STEPS];
        const char *settings[] = {"tune.parts=trunk", i & 1 ? "train.micros=3" : "train.micros=1",
                                  "train.clip=0.1"};
        fixture_t fixture = s_fixture (&models[i >> 1], 3, settings, 3);
        difference_t difference = s_run_both (&fixture, local, split);
        for (int step = 0; step < STEPS; step++)
            if (!(fabs (local[step] - split[step]) <= 2e-6 * fabs (local[step])))
                fail_msg ("step %d: in one place %.17g, split %.17g", step + 1, local[step],
                          split[step]);
        if (difference.worst_max > 1e-4 || difference.worst_norm > 1e-5)
            fail_msg ("tensors differ by %g of the largest value (allowed 1e-4), %g in norm (1e-5)",
                      difference.worst_max, difference.worst_norm);
        s_clear (&fixture);
    }
}

//  The same with fronts and tails that train, by one gradient: the whole model is centralised training's.
static void
test_sync (void **state)
{
    const tiny_model_t models[] = {tiny_chatglm (), tiny_llama (true)};
    for (int i = 0; i < 4; i++) {
        double local[STEPS], split[STEPS];
        const char *settings[] = {"federate.clients=sync",
                                  i & 1 ? "tune={method: full}" : "tune={method: lora, rank: 4}",
                                  "train.clip=0.1", "train.lr=1e-3"};
        fixture_t fixture = s_fixture (&models[i >> 1], 3, settings, 4);
        difference_t difference = s_run_both (&fixture, local, split);
        for (int step = 0; step < STEPS; step++)
            if (!(fabs (local[step] - split[step]) <= 1e-5 * fabs (local[step])))
                fail_msg ("step %d: in one place %.17g, split %.17g", step + 1, local[step],
                          split[step]);
        //  Without the sum each site would go its own way, far beyond this.
        if (difference.worst_norm > 1e-3)
            fail_msg ("tensors differ by %g in norm (allowed 1e-3)", difference.worst_norm);
        s_clear (&fixture);
    }
}

//  The embedding and the head alone at the client: no block is left to either end.
static void
test_no_blocks_at_the_client (void **state)
{
    static const char *const splits[] = {"split={front: 0, tail: 0}", "split={front: 0, tail: 1}",
                                         "split={front: 1, tail: 0}"};
    const tiny_model_t models[] = {tiny_chatglm (), tiny_llama (true), tiny_llama (false)};
    for (int i = 0; i < 18; i++) {
        const char *settings[] = {splits[i % 3], "privacy.allow_unsafe_split=true",
                                  i % 2 ? "tune={method: full}" : "tune={method: lora, rank: 4}",
                                  "train.clip=0.05"};
        s_one_client (&models[i / 6], settings, 4);
    }
}

//  split: none. A site alone learns what training in one place does.
static void
test_no_split (void **state)
{
    const tiny_model_t models[] = {tiny_chatglm (), tiny_llama (true)};
    for (int i = 0; i < 4; i++) {
        tl_error_t err;
        const char *settings[] = {
            "split=none",          "federate.clients=average",
            "schedule.mode=batch", i & 1 ? "tune={method: full}" : "tune={method: lora, rank: 4}",
            "train.clip=0.05",     "train.micros=2"};
        fixture_t fixture = s_fixture (&models[i >> 1], 1, settings, 6);
        tl_local_t *local = tl_local_new (fixture.topology, NULL, 0, &err);
        tl_site_t *site = tl_site_new (fixture.topology, 0, true, &err);
        s_must (local && site, &err);
        for (uint64_t step = 0; step < STEPS; step++) {
            tl_local_step_t result;
            tl_norm_term_t terms[256];
            uint64_t labels;
            double nll;
            s_must (tl_local_step (local, &result, &err) == 0, &err);
            tl_site_begin (site, step, 2);
            tl_site_learn (site, 0);
            tl_site_learn (site, 1);
            s_must (tl_site_commit (site, terms, &labels, &nll, &err) == 0, &err);
            s_must (tl_site_update (site, labels, 0, &err) == 0, &err);
            assert_true (nll / (double)labels == result.loss && labels == result.labels);
        }
        assert_int_equal (tl_site_learnt (site), tl_local_labels (local));
        tl_site_destroy (&site);
        tl_local_destroy (&local);
        s_clear (&fixture);
    }
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_one_client_chatglm),
        cmocka_unit_test (test_one_client_llama),
        cmocka_unit_test (test_one_client_qwen2),
        cmocka_unit_test (test_one_client_glm),
        cmocka_unit_test (test_trunk_only_is_one_client_too),
        cmocka_unit_test (test_several_clients),
        cmocka_unit_test (test_sync),
        cmocka_unit_test (test_no_blocks_at_the_client),
        cmocka_unit_test (test_no_split),
    };
    tl_kernels_use (1);
    return cmocka_run_group_tests_name ("split_run", tests, NULL, NULL);
}
