#include "merge_job.h"

#include "actors/events.h"
#include "actors/save.h"
#include "clock.h"
#include "memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const tl_merge_kind_names[TL_MERGE_KINDS] = {"trunk", "clients", "sum"};

void
tl_mergers_open (tl_mergers_t *self, const tl_server_spec_t *server)
{
    *self = (tl_mergers_t){.merged = {0}};
    for (size_t i = 0; i < TL_MERGE_MEANS; i++)
        self->aggregates[i] = tl_aggregate_new (server);
}

void
tl_mergers_close (tl_mergers_t *self)
{
    for (size_t i = 0; i < TL_MERGE_MEANS; i++)
        tl_aggregate_destroy (&self->aggregates[i]);
}

static tl_server_t *
s_server (const tl_mergers_t *mergers, size_t kind)
{
    return tl_aggregate_server (mergers->aggregates[kind]);
}

void
tl_merge_job_free (void *arg)
{
    tl_merge_job_t *job = arg;
    for (size_t i = 0; i < job->count; i++)
        tl_assembly_destroy (&job->brought[i].part);
    free (job->brought);
    tl_packed_destroy (&job->result);
    free (job->directory);
    free (job);
}

//  --- a merge ----------------------------------------------------------------------------------

static void __attribute__ ((format (printf, 3, 4)))
s_say (tl_merge_job_t *job, const char *name, const char *format, ...)
{
    size_t used = strlen (job->text), room = sizeof job->text - used;
    va_list args;
    int size = snprintf (job->text + used, room, "%s%s is left out: ", used ? "; " : "", name);
    if (size < 0 || (size_t)size >= room)
        return;
    va_start (args, format);
    vsnprintf (job->text + used + size, room - (size_t)size, format, args);
    va_end (args);
}

//  Label tokens are a member's claim, and its weight: more than the steps since the last merge can hold are none.
static bool
s_labels_good (tl_merge_job_t *job, const tl_brought_t *brought)
{
    //  A copy for who came back has no weight to lie about.
    if (job->kind == TL_MERGE_KIND_SUM || job->count == 1 || brought->labels <= job->most_labels)
        return true;
    s_say (job, brought->name,
           "it says that it learnt from %llu label tokens, more than a period can hold; run the "
           "same trunkline everywhere",
           (unsigned long long)brought->labels);
    return false;
}

void
tl_merge_job_run (void *arg)
{
    tl_merge_job_t *job = arg;
    int64_t began = tl_clock_us ();
    tl_contribution_t *parts = tl_alloc ((job->count + 1) * sizeof *parts);
    size_t *places = tl_alloc ((job->count + 1) * sizeof *places), count = 0, size;
    for (size_t i = 0; i < job->count; i++) {
        const tl_brought_t *brought = &job->brought[i];
        if (!brought->part)
            s_say (job, brought->name, "%s", brought->why);
        else if (s_labels_good (job, brought)) {
            parts[count].name = brought->name;
            parts[count].labels = brought->labels;
            places[count] = i;
            parts[count].blob = tl_assembly_take (brought->part, &parts[count].size);
            count++;
        }
    }
    void *blob = job->kind == TL_MERGE_KIND_SUM
                     ? tl_aggregate_sum (parts, count, &size, &job->err)
                     : tl_aggregate_mean (job->mergers->aggregates[job->kind], parts, count,
                                          job->quorum, &size, &job->err);
    for (size_t i = 0; i < count; i++) {
        if (*parts[i].refusal)
            s_say (job, parts[i].name, "%s", parts[i].refusal);
        job->used += parts[i].used;
        job->brought[places[i]].used = parts[i].used;
        free ((void *)parts[i].blob);
    }
    free (parts);
    free (places);
    if (blob) {
        job->result = tl_pack_own (blob, size);
        if (job->kind < TL_MERGE_MEANS)
            job->mergers->merged[job->kind] = job->step;
    } else
        snprintf (job->text, sizeof job->text, "%s", job->err.text);
    job->us = (uint64_t)(tl_clock_us () - began);
}

//  --- state: the magic, the steps of the last merges, the first blob's size, both blobs ----------

static const char s_magic[8] = "TLMERGE";

typedef struct {
    char magic[sizeof s_magic];
    uint64_t merged[TL_MERGE_MEANS];
    uint64_t sizes[TL_MERGE_MEANS];
} tl_head_t;

void
tl_merge_job_save (void *arg)
{
    tl_merge_job_t *job = arg;
    tl_head_t head;
    void *blobs[TL_MERGE_MEANS];
    size_t size = sizeof head;
    memcpy (head.magic, s_magic, sizeof head.magic);
    memcpy (head.merged, job->mergers->merged, sizeof head.merged);
    for (size_t i = 0; i < TL_MERGE_MEANS; i++) {
        size_t one;
        blobs[i] = tl_server_state_get (s_server (job->mergers, i), &one);
        head.sizes[i] = one;
        size += one;
    }
    char *state = tl_alloc (size), *at = state + sizeof head;
    memcpy (state, &head, sizeof head);
    for (size_t i = 0; i < TL_MERGE_MEANS; i++) {
        memcpy (at, blobs[i], head.sizes[i]);
        at += head.sizes[i];
        free (blobs[i]);
    }
    int rc = tl_save_write (job->directory, job->step, state, size, &job->err);
    for (size_t i = 0; i < TL_MERGE_MEANS && rc == 0; i++)
        tl_server_keep (s_server (job->mergers, i));
    free (state);
    snprintf (job->text, sizeof job->text, "%.500s", rc ? job->err.text : job->directory);
}

static int
s_set (tl_mergers_t *mergers, const char *state, size_t size, tl_error_t *err)
{
    tl_head_t head;
    size_t left = size - sizeof head;
    bool good = size >= sizeof head;
    if (good) {
        memcpy (&head, state, sizeof head);
        good = memcmp (head.magic, s_magic, sizeof s_magic) == 0;
    }
    const char *at = state + sizeof head;
    for (size_t i = 0; good && i < TL_MERGE_MEANS; i++) {
        if (!(good = head.sizes[i] <= left))
            break;
        //  Read in place, which wants it aligned.
        void *blob = tl_alloc_aligned (head.sizes[i] + 1);
        memcpy (blob, at, head.sizes[i]);
        int rc = tl_server_state_set (s_server (mergers, i), blob, head.sizes[i], err);
        free (blob);
        if (rc != 0)
            return -1;
        mergers->merged[i] = head.merged[i];
        at += head.sizes[i];
        left -= head.sizes[i];
    }
    return good && left == 0
               ? 0
               : tl_fail (
                     err, TL_BAD_INPUT,
                     "the saved state of the aggregator is not one of this version; go on with the "
                     "trunkline that began the run, or begin it anew with --replace");
}

void
tl_merge_job_restore (void *arg)
{
    tl_merge_job_t *job = arg;
    size_t size;
    uint64_t told = job->step;
    void *state = told ? tl_save_read_newest (job->directory, &job->step, &size, &job->err) : NULL;
    if (job->directory)
        tl_save_forget_after (job->directory, told);
    for (size_t i = 0; i < TL_MERGE_MEANS; i++) {
        tl_server_fresh (s_server (job->mergers, i));
        job->mergers->merged[i] = 0;
    }
    if (state && s_set (job->mergers, state, size, &job->err) == 0)
        snprintf (job->text, sizeof job->text, "with its save of step %llu",
                  (unsigned long long)job->step);
    else
        snprintf (job->text, sizeof job->text, "%.500s",
                  job->err.code ? job->err.text : "at the start");
    free (state);
}

void
tl_merge_job_tell (const tl_merge_job_t *job)
{
    if (!tl_events_heard ())
        return;
    json_t *members = json_array ();
    for (size_t i = 0; i < job->count; i++)
        if (job->brought[i].used)
            json_array_append_new (members, json_string (job->brought[i].name));
    tl_event ("made", "{sssIso}", "kind", tl_merge_kind_names[job->kind], "step",
              (json_int_t)job->step, "members", members);
}
