/*  bench_schedule TRUNKLINE BENCH_PING BENCH_STAGES DIR [--only GROUP] [--quick yes] [--clients N]: what schedules are worth, over real
    processes and sockets. Groups: modes, links, load, engine, simulate, auto, tiny, naive. Prints one JSON object; docs/performance.md says
    what each figure means.                                                                         */

#include "bench/bench_schedule.h"

#include "error.h"
#include "file.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void
bench_put (bench_t *self, const char *key, double value)
{
    json_object_set_new (self->result, key, json_real (value));
    fprintf (stderr, "%s: %.4g\n", key, value);
}

void
bench_skip (bench_t *self, const char *key, const char *why)
{
    json_object_set_new (self->result, key, json_null ());
    json_object_set_new (self->skipped, key, json_string (why));
    fprintf (stderr, "%s: skipped: %s\n", key, why);
}

char *
bench_words (const bench_t *self)
{
    enum { EXAMPLES = 256, WORDS = 64 };
    static const char *const words[] = {"animal", "plant", "water", "tree",  "with", "long",
                                        "leaf",   "genus", "small", "green", "of",   "that"};
    char *path = tl_format ("%s/words.jsonl", self->stage.dir);
    FILE *file = fopen (path, "we");
    unsigned state = 1;
    for (int i = 0; file && i < EXAMPLES; i++) {
        fprintf (file, "{\"text\": \"");
        for (int k = 0; k < WORDS; k++) {
            state = state * 1664525u + 1013904223u;
            fprintf (file, "%s ", words[(state >> 16) % 12]);
        }
        fprintf (file, "\"}\n");
    }
    if (!file || fclose (file)) {
        fprintf (stderr, "%s can't be written\n", path);
        exit (1);
    }
    return path;
}

static const struct {
    const char *name;
    void (*run) (bench_t *self);
} s_groups[] = {{"modes", bench_schedule_modes},       {"links", bench_schedule_links},
                {"load", bench_schedule_load},         {"engine", bench_schedule_engine},
                {"simulate", bench_schedule_simulate}, {"auto", bench_schedule_auto},
                {"tiny", bench_schedule_tiny},         {"naive", bench_schedule_naive}};

enum { GROUPS = sizeof s_groups / sizeof *s_groups };

static int
s_usage (void)
{
    fprintf (stderr, "usage: bench_schedule TRUNKLINE BENCH_PING BENCH_STAGES DIR\n"
                     "       [--only modes|links|load|engine|simulate|auto|tiny|naive] "
                     "[--quick yes] [--clients N] [--format json]\n");
    return TL_BAD_INPUT;
}

int
main (int argc, char **argv)
{
    bench_t self = {.peers = getenv ("TL_PEERS"),
                    .result = json_pack ("{ss}", "bench", "schedule")};
    const char *only = NULL;
    if (argc < 5 || argc % 2 == 0)
        return s_usage ();
    for (int i = 5; i < argc; i += 2) {
        if (strcmp (argv[i], "--only") == 0)
            only = argv[i + 1];
        else if (strcmp (argv[i], "--quick") == 0)
            self.quick = strcmp (argv[i + 1], "yes") == 0;
        else if (strcmp (argv[i], "--clients") == 0)
            self.clients = strtoul (argv[i + 1], NULL, 10);
        else if (strcmp (argv[i], "--format") != 0 || strcmp (argv[i + 1], "json") != 0)
            return s_usage ();
    }
    size_t known = 0;
    while (only && known < GROUPS && strcmp (only, s_groups[known].name) != 0)
        known++;
    tl_error_t err;
    if (only && known == GROUPS)
        return s_usage ();
    if (tl_mkdirs (argv[4], &err)) {
        fprintf (stderr, "bench schedule: %s\n", err.text);
        return (int)err.code;
    }
    self.stage = (stage_dir_t){.trunkline = argv[1],
                               .ping = argv[2],
                               .dir = argv[4],
                               .log = tl_format ("%s/log", argv[4]),
                               .patience = 600};
    self.stages = argv[3];
    self.detail = json_object ();
    self.skipped = json_object ();
    setenv ("TL_LOG", "warn", 0);
    unlink (self.stage.log);
    for (size_t i = 0; i < GROUPS; i++)
        if (!only || i == known)
            s_groups[i].run (&self);
    json_object_set_new (self.result, "skipped", self.skipped);
    json_object_set_new (self.result, "detail", self.detail);
    json_dumpf (self.result, stdout, JSON_INDENT (2) | JSON_REAL_PRECISION (5));
    putchar ('\n');
    json_decref (self.result);
    free (self.stage.log);
    return 0;
}
