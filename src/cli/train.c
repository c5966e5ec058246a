/*  train: one process, all sites' text. What a split run is compared with, and how a model is pre-trained.

    The loop is here because it is all about a person: progress, signals, saves. A step is fed/local. */

#include "cli/verbs.h"

#include "clock.h"
#include "fed/local.h"
#include "file.h"
#include "kernels/kernels.h"
#include "log.h"
#include "memory.h"
#include "ui/json.h"
#include "ui/progress.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *site;      //  --site
    const char *out;       //  --out
    uint64_t label_tokens; //  --label-tokens
    uint64_t threads;      //  --threads
    bool resume;           //  --resume
} s_options_t;

typedef struct {
    const tl_arguments_t *arguments;
    const s_options_t *options;
    const tl_topology_t *topology;
    tl_local_t *local;
    char *out;              //  directory of saves and of the adapter
    int lock;               //  on it, -1: none
    size_t before;          //  bytes this process had before the model was opened
    size_t planned;         //  bytes the plan says on top of that
    int64_t start_us;       //  of the first step
    uint64_t rows;          //  computed so far by this process
    double first, last;     //  losses
    uint64_t first_step;    //  0-based step this process began with
    tl_progress_t progress; //  the line on stderr
} s_run_t;

static volatile sig_atomic_t s_stop = 0;

static void
s_on_signal (int number)
{
    s_stop = number;
}

static void
s_catch_signals (void)
{
    //  The second one of a kind ends the process at once.
    struct sigaction action = {.sa_handler = s_on_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction (SIGINT, &action, NULL);
    sigaction (SIGTERM, &action, NULL);
}

static double
s_mb (size_t bytes)
{
    return (double)bytes / 1e6;
}

static int
s_report_plan (s_run_t *self, tl_error_t *err)
{
    tl_plan_t plan;
    if (tl_local_plan (self->local, &plan, err) != 0)
        return tl_fail_in (err, "%s", self->topology->source);
    self->planned = tl_plan_total (&plan);
    fprintf (
        stderr,
        "memory plan: %.1f MB = weights %.1f + trained %.1f + activations %.1f + workspace %.1f "
        "+ saves %.1f + process %.1f\n",
        s_mb (self->planned), s_mb (plan.weights), s_mb (plan.trained), s_mb (plan.activations),
        s_mb (plan.workspace), s_mb (plan.state), s_mb (plan.process));
    return 0;
}

static size_t
s_peak (const s_run_t *self)
{
    size_t peak = tl_memory_peak ();
    return peak > self->before ? peak - self->before : 0;
}

static void
s_report_step (s_run_t *self, const tl_local_step_t *step, double seconds)
{
    uint64_t steps = tl_local_steps (self->local), done = step->step + 1;
    double elapsed = (double)(tl_clock_us () - self->start_us) / 1e6;
    double per_step = elapsed / (double)(done - self->first_step);
    char left[16];
    tl_duration (left, per_step * (double)(steps - done));
    self->rows += step->rows;
    tl_progress_line (&self->progress, done == steps,
                      "step %llu/%llu  loss %.9g  norm %.4g  lr %.3g  %.0f tokens/s  %s left",
                      (unsigned long long)done, (unsigned long long)steps, step->loss, step->norm,
                      step->lr, (double)self->rows / elapsed, left);
    if (self->arguments->format == TL_FORMAT_JSONL) {
        json_t *line =
            json_pack ("{sI sf sf sf sI sI sf}", "step", (json_int_t)done, "loss", step->loss,
                       "norm", step->norm, "lr", step->lr, "labels", (json_int_t)step->labels,
                       "rows", (json_int_t)step->rows, "seconds", seconds);
        tl_json_print (line, false);
        json_decref (line);
    }
}

static int
s_loop (s_run_t *self, tl_error_t *err)
{
    uint64_t every = self->topology->checkpoint.every;
    self->first_step = tl_local_next (self->local);
    self->start_us = tl_clock_us ();
    while (tl_local_next (self->local) < tl_local_steps (self->local) && !s_stop) {
        tl_local_step_t step;
        int64_t begin = tl_clock_us ();
        if (tl_local_step (self->local, &step, err) != 0)
            return -1;
        if (step.step == self->first_step)
            self->first = step.loss;
        self->last = step.loss;
        s_report_step (self, &step, (double)(tl_clock_us () - begin) / 1e6);
        if ((step.step + 1) % every == 0 && tl_local_save (self->local, self->out, err) != 0)
            return -1;
    }
    return 0;
}

static void
s_print_result (const s_run_t *self, const char *adapter)
{
    double seconds = (double)(tl_clock_us () - self->start_us) / 1e6;
    uint64_t done = tl_local_next (self->local), computed = done - self->first_step;
    size_t peak = s_peak (self);
    fprintf (stderr, "memory peak: %.1f MB, plan %.1f MB\n", s_mb (peak), s_mb (self->planned));
    if (self->arguments->format == TL_FORMAT_TEXT && computed == 0) {
        printf ("%s without a step: %llu of %llu are done\nadapter: %s\n",
                s_stop ? "stopped" : "done", (unsigned long long)done,
                (unsigned long long)tl_local_steps (self->local), adapter);
        return;
    }
    if (self->arguments->format == TL_FORMAT_TEXT) {
        printf ("%s after step %llu of %llu: loss %.6g at first, %.6g at last, %llu label token%s, "
                "%.1f s\nadapter: %s\n",
                s_stop ? "stopped" : "done", (unsigned long long)done,
                (unsigned long long)tl_local_steps (self->local), self->first, self->last,
                (unsigned long long)tl_local_labels (self->local),
                tl_local_labels (self->local) == 1 ? "" : "s", seconds, adapter);
        return;
    }
    json_t *result = json_pack ("{sb so sI sI sI sI sf sI sI}", "done", !s_stop, "adapter",
                                tl_json_string (adapter), "step", (json_int_t)done, "steps",
                                (json_int_t)tl_local_steps (self->local), "label_tokens",
                                (json_int_t)tl_local_labels (self->local), "computed_steps",
                                (json_int_t)computed, "seconds", seconds, "plan_bytes",
                                (json_int_t)self->planned, "peak_bytes", (json_int_t)peak);
    if (computed > 0) {
        json_object_set_new (result, "first_loss", json_real (self->first));
        json_object_set_new (result, "last_loss", json_real (self->last));
    }
    tl_json_print (result, self->arguments->format == TL_FORMAT_JSON);
    json_decref (result);
}

//  Saves whatever the loop came to, also when it failed: the failed step changed nothing.
static int
s_finish (s_run_t *self, int rc, tl_error_t *err)
{
    tl_progress_end (&self->progress);
    char *adapter = tl_format ("%s/adapter", self->out);
    tl_error_t save;
    if (tl_local_save_adapter (self->local, adapter, &save) != 0) {
        if (rc == 0)
            *err = save;
        else
            tl_error ("the adapter could not be saved either: %s", save.text);
        rc = -1;
    } else if (rc != 0)
        fprintf (stderr, "the adapter of the last good step, %llu, is saved in %s\n",
                 (unsigned long long)tl_local_next (self->local), adapter);
    else {
        //  One that was stopped goes on with --resume, one that has ended with more train.steps.
        if (tl_local_next (self->local) % self->topology->checkpoint.every != 0 ||
            tl_local_next (self->local) == self->first_step)
            rc = tl_local_save (self->local, self->out, err);
        if (rc == 0)
            s_print_result (self, adapter);
    }
    free (adapter);
    return rc;
}

static int
s_begin (s_run_t *self, tl_error_t *err)
{
    const s_options_t *options = self->options;
    int threads = options->threads ? (int)options->threads : self->topology->workers[0].threads;
    tl_kernels_use (threads);
    self->before = tl_memory_now ();
    self->local = tl_local_new (self->topology, options->site, options->label_tokens, err);
    if (!self->local)
        return -1;
    self->out = options->out ? tl_strdup (options->out)
                             : tl_format ("%s/%s/train%s%s", self->topology->checkpoint.dir,
                                          self->topology->name, options->site ? "-" : "",
                                          options->site ? options->site : "");
    if (tl_dir_lock (self->out, "wait for it or stop it, or give this one another --out",
                     &self->lock, err))
        return -1;
    uint64_t older = 0;
    char *adapter = tl_format ("%s/adapter", self->out);
    bool there = tl_local_newest (self->out, &older) || tl_exists (adapter);
    if (there && !options->resume)
        fprintf (stderr,
                 "replaces the run in %s, step %llu; --resume goes on with it, another --out "
                 "keeps it\n",
                 self->out, (unsigned long long)older);
    bool bare = tl_exists (adapter) && options->resume && !tl_local_newest (self->out, &older);
    free (adapter);
    if (bare)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s holds an adapter and no save to go on from; leave --resume out to "
                        "replace it, or give another --out",
                        self->out);
    if (!options->resume)
        tl_local_forget (self->out);
    int found = options->resume ? tl_local_resume (self->local, self->out, err) : 0;
    if (found > 0)
        fprintf (stderr, "goes on after step %llu\n",
                 (unsigned long long)tl_local_next (self->local));
    else if (found == 0 && options->resume)
        fprintf (stderr, "%s holds no save; begins anew\n", self->out);
    return found < 0 ? -1 : 0;
}

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    s_run_t self = {.arguments = arguments, .options = arguments->options, .lock = -1};
    tl_topology_t *topology = tl_verb_topology (arguments, arguments->words[0], err);
    if (!topology)
        return -1;
    self.topology = topology;
    tl_progress_init (&self.progress);
    s_catch_signals ();
    int rc = s_begin (&self, err);
    if (rc == 0) {
        rc = s_report_plan (&self, err);
        if (rc == 0)
            rc = s_finish (&self, s_loop (&self, err), err);
    }
    tl_local_destroy (&self.local);
    tl_dir_unlock (&self.lock);
    free (self.out);
    tl_topology_destroy (&topology);
    return rc;
}

static const s_options_t s_defaults = {NULL, NULL, 0, 0, false};

static const tl_option_t s_table[] = {
    {"site", TL_OPTION_TEXT, offsetof (s_options_t, site), "NAME", 0, 0,
     "train on this client's text only (all)"},
    {"out", TL_OPTION_TEXT, offsetof (s_options_t, out), "DIR", 0, 0,
     "where saves and the adapter go (checkpoint.dir/NAME/train)"},
    {"label-tokens", TL_OPTION_COUNT, offsetof (s_options_t, label_tokens), "N", 1, 1e15,
     "spend exactly so many label tokens instead of train.steps"},
    {"threads", TL_OPTION_COUNT, offsetof (s_options_t, threads), "N", 1, 1024,
     "threads that compute (the first worker's)"},
    {"resume", TL_OPTION_FLAG, offsetof (s_options_t, resume), NULL, 0, 0,
     "go on from the newest save in DIR, bit for bit"},
    {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_train = {
    .name = "train",
    .words = "TOPOLOGY",
    .min_words = 1,
    .max_words = 1,
    .help = "train in one process on the text of all sites, or of one",
    .more = "Writes DIR/adapter at the end, and a save every checkpoint.every steps. Ctrl-C "
            "finishes the\n"
            "step, saves and ends. With --format jsonl every step is a line on stdout.",
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
