//  case: see case.h.

#include "equivalence/case.h"

#include "fed/parts.h"
#include "file.h"
#include "memory.h"
#include "model/safetensors.h"
#include "ports.h"
#include "rig.h"
#include "tiny_tokenizer.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_OUTPUT = 1 << 24, MOST_ARGUMENTS = 12 };

void
case_fail (const case_t *self, const char *format, ...)
{
    va_list args;
    va_start (args, format);
    fputs ("FAILED: ", stderr);
    vfprintf (stderr, format, args);
    va_end (args);
    fprintf (stderr, "\nThe case's files are left in %s\n", self->directory);
    exit (1);
}

static void
s_must (const case_t *self, bool good, const tl_error_t *err)
{
    if (!good)
        case_fail (self, "%s", err->text);
}

//  --- making it

//  Letters that look random and are a function of site, example and place.
static void
s_write_text (const case_t *self, size_t site)
{
    const case_spec_t *spec = self->spec;
    char *path = tl_format ("%s/%zu.jsonl", self->directory, site);
    FILE *file = fopen (path, "w");
    if (!file)
        case_fail (self, "%s: %s", path, strerror (errno));
    for (size_t i = 0; i < spec->examples; i++) {
        size_t letters = spec->letters[site];
        if (!spec->even)
            letters = 1 + (letters - 1) * (1 + i % 4) / 4;
        fprintf (file, "{\"prompt\": \"%c word %zu\", \"completion\": \"", (char)('a' + site), i);
        for (size_t j = 0; j < letters; j++)
            fputc ('a' + (int)((i * 7 + j * (3 + i) + j * j * 5 + site) % 26), file);
        fputs ("\"}\n", file);
    }
    fclose (file);
    free (path);
}

static void
s_write_topology (const case_t *self)
{
    int ports[3];
    tests_ports (ports, 3);
    int threads = self->spec->threads ? self->spec->threads : 1;
    FILE *file = fopen (self->yaml, "w");
    if (!file)
        case_fail (self, "%s: %s", self->yaml, strerror (errno));
    fprintf (file,
             "version: 1\nname: case\nmodel: {path: %s}\n%s"
             "checkpoint: {dir: %s/runs, every: %llu, keep: 2}\nkeys: %s/keys\n"
             "broker: {control: \"tcp://127.0.0.1:%d\", clients: \"tcp://127.0.0.1:%d\", "
             "workers: \"tcp://127.0.0.1:%d\"}\n"
             "workers:\n  - {name: trunk, threads: %d}\n",
             self->directory, self->spec->settings, self->directory,
             (unsigned long long)self->spec->save_every, self->directory, ports[0], ports[1],
             ports[2], threads);
    for (size_t i = 1; i < self->spec->workers; i++)
        fprintf (file, "  - {name: trunk-%zu, threads: %d}\n", i + 1, threads);
    fprintf (file, "clients:\n");
    for (size_t i = 0; i < self->spec->sites; i++)
        fprintf (file, "  - {name: site-%zu, threads: %d, data: %s/%zu.jsonl}\n", i, threads,
                 self->directory, i);
    fclose (file);
}

case_t *
case_new (const case_spec_t *spec)
{
    tl_error_t err;
    case_t *self = tl_alloc (sizeof *self);
    self->spec = spec;
    self->directory = tiny_directory ();
    self->yaml = tl_format ("%s/case.yaml", self->directory);
    tiny_model_t model = spec->model;
    model.vocab = tiny_tokenizer_vocab (model.family);
    s_must (self, tiny_model_write (&model, self->directory, &err) == 0, &err);
    s_must (self, tiny_tokenizer_write (model.family, self->directory, &err) == 0, &err);
    for (size_t i = 0; i < spec->sites; i++)
        s_write_text (self, i);
    s_write_topology (self);
    self->topology = tl_topology_read (self->yaml, NULL, 0, &err);
    s_must (self, self->topology != NULL, &err);
    return self;
}

void
case_destroy (case_t **self_p)
{
    case_t *self = *self_p;
    if (!self)
        return;
    tl_topology_destroy (&self->topology);
    tl_remove_tree (self->directory);
    free (self->directory);
    free (self->yaml);
    free (self);
    *self_p = NULL;
}

//  --- running the program

static void
s_redirect (const char *path, int fd)
{
    int file = open (path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || dup2 (file, fd) < 0)
        _exit (127);
    close (file);
}

//  Output goes to directory/what.out and .err; returns the former's text, the caller frees.
static char *
s_program (const case_t *self, const char *what, const char *const *arguments)
{
    const char *program = getenv ("TRUNKLINE");
    if (!program)
        case_fail (self, "TRUNKLINE is not set: run with ctest, or set it to the program");
    char *out = tl_format ("%s/%s.out", self->directory, what);
    char *error = tl_format ("%s/%s.err", self->directory, what);
    pid_t pid = fork ();
    if (pid == 0) {
        prctl (PR_SET_PDEATHSIG, SIGTERM); //  a test that is stopped leaves nothing running
        s_redirect (out, STDOUT_FILENO);
        s_redirect (error, STDERR_FILENO);
        execv (program, (char *const *)arguments);
        _exit (127);
    }
    int status = -1;
    while (waitpid (pid, &status, 0) < 0 && errno == EINTR)
        ;
    tl_error_t err;
    if (status != 0) {
        char *words = tl_file_read (error, MOST_OUTPUT, NULL, &err);
        case_fail (self, "'%s %s' ended with %d:\n%s", program, what,
                   WIFEXITED (status) ? WEXITSTATUS (status) : -WTERMSIG (status),
                   words ? words : err.text);
    }
    char *text = tl_file_read (out, MOST_OUTPUT, NULL, &err);
    s_must (self, text != NULL, &err);
    free (out);
    free (error);
    return text;
}

static double
s_real (const json_t *line, const char *key)
{
    return json_number_value (json_object_get (line, key));
}

static uint64_t
s_count (const json_t *line, const char *key)
{
    return (uint64_t)json_integer_value (json_object_get (line, key));
}

//  A line of either kind that is about a step; numbers have 17 digits, so equal text is equal bits.
static void
s_take_line (const case_t *self, const json_t *line, bool up, case_step_t *steps)
{
    const char *event = json_string_value (json_object_get (line, "event"));
    uint64_t step = s_count (line, "step"), site = 0;
    if (up && event && strcmp (event, "step") == 0)
        site = (uint64_t)tl_topology_client (self->topology,
                                             json_string_value (json_object_get (line, "name")));
    else if (!up && json_object_get (line, "loss"))
        step--; //  train counts from 1
    else
        return;
    if (step >= self->spec->steps || site >= self->spec->sites)
        case_fail (self, "step %llu of site %llu is none of the run's", (unsigned long long)step,
                   (unsigned long long)site);
    case_step_t *at = &steps[site * self->spec->steps + step];
    if (at->seen)
        case_fail (self, "step %llu of site %llu came twice", (unsigned long long)step,
                   (unsigned long long)site);
    *at = (case_step_t){.loss = s_real (line, "loss"),
                        .norm = s_real (line, "norm"),
                        .lr = s_real (line, "lr"),
                        .labels = s_count (line, "labels"),
                        .rows = s_count (line, "rows"),
                        .bytes = s_count (line, "bytes"),
                        .seen = true};
}

static void
s_take (const case_t *self, char *text, bool up, case_step_t *steps)
{
    memset (steps, 0, (up ? self->spec->sites : 1) * self->spec->steps * sizeof *steps);
    char *rest = text, *line;
    while ((line = strsep (&rest, "\n"))) {
        json_error_t error;
        json_t *json = *line ? json_loads (line, 0, &error) : NULL;
        if (*line && !json)
            case_fail (self, "not a JSON line (%s): %s", error.text, line);
        if (json)
            s_take_line (self, json, up, steps);
        json_decref (json);
    }
    free (text);
}

//  What a sanitizer finds in a part may come after the run is done and change nobody's exit code.
static void
s_check_log (const case_t *self)
{
    tl_error_t err;
    char *path = tl_format ("%s/runs/case/trunkline.log", self->directory);
    char *log = tl_file_read (path, MOST_OUTPUT, NULL, &err);
    s_must (self, log != NULL, &err);
    if (strstr (log, "Sanitizer") || strstr (log, "runtime error:"))
        case_fail (self, "a part's sanitizer complains:\n%s", log);
    free (log);
    free (path);
}

void
case_up (const case_t *self, const char *override, case_step_t *steps)
{
    char *runs = tl_format ("%s/runs/case", self->directory);
    tl_remove_tree (runs);
    free (runs);
    const char *arguments[MOST_ARGUMENTS] = {"trunkline", "up", self->yaml, "--format", "jsonl"};
    if (override) {
        arguments[5] = "--set";
        arguments[6] = override;
    }
    s_take (self, s_program (self, "up", arguments), true, steps);
    s_check_log (self);
}

void
case_train (const case_t *self, const char *override, case_step_t *steps)
{
    char *out = tl_format ("%s/train", self->directory);
    tl_remove_tree (out);
    const char *arguments[MOST_ARGUMENTS] = {"trunkline", "train", self->yaml, "--format",
                                             "jsonl",     "--out", out};
    if (override) {
        arguments[7] = "--set";
        arguments[8] = override;
    }
    s_take (self, s_program (self, "train", arguments), false, steps);
    for (uint64_t i = 0; i < self->spec->steps; i++)
        if (!steps[i].seen)
            case_fail (self, "train said nothing of step %llu", (unsigned long long)i + 1);
    free (out);
}

//  --- adapters

char *
case_adapter (const case_t *self, const char *part)
{
    return tl_format ("%s/runs/case/%s/adapter", self->directory, part);
}

char *
case_train_adapter (const case_t *self)
{
    return tl_format ("%s/train/adapter", self->directory);
}

static tl_safetensors_t *
s_train_file (const case_t *self)
{
    tl_error_t err;
    char *directory = case_train_adapter (self);
    char *path =
        tl_format ("%s/%s", directory,
                   self->topology->tune.method == TL_METHOD_FULL ? "model.safetensors"
                                                                 : "adapter_model.safetensors");
    tl_safetensors_t *file = tl_safetensors_open (path, &err);
    s_must (self, file != NULL, &err);
    free (path);
    free (directory);
    return file;
}

size_t
case_train_tensors (const case_t *self)
{
    tl_safetensors_t *file = s_train_file (self);
    const tiny_model_t *model = &self->spec->model;
    size_t count = rig_saved_count (file, 2 * model->kv_heads * model->head_dim);
    tl_safetensors_destroy (&file);
    return count;
}

static void
s_compare_tensor (const case_t *self, const tl_tensor_t *tensor, const tl_safetensors_t *file,
                  case_difference_t *difference)
{
    size_t count = tensor->shape[0] * tensor->shape[1];
    float *values = rig_saved (tensor, file);
    if (!values)
        case_fail (self, "train's adapter has no %s of that size", tensor->name);
    double d_max = 0, t_max = 1e-30, d_sum = 0, t_sum = 1e-30;
    for (size_t i = 0; i < count; i++) {
        double d = fabs ((double)tensor->value[i] - values[i]), t = fabs (values[i]);
        d_max = fmax (d_max, d);
        t_max = fmax (t_max, t);
        d_sum += d * d;
        t_sum += t * t;
    }
    difference->tensors++;
    difference->different += memcmp (tensor->value, values, count * sizeof *values) != 0;
    free (values);
    difference->worst_max = fmax (difference->worst_max, d_max / t_max);
    difference->worst_norm = fmax (difference->worst_norm, sqrt (d_sum / t_sum));
}

void
case_compare (const case_t *self, const char *name, case_difference_t *difference)
{
    tl_error_t err;
    tl_model_t *model = tl_model_open (self->directory, &err);
    s_must (self, model != NULL, &err);
    tl_part_t *part = tl_topology_worker (self->topology, name) >= 0
                          ? tl_part_of_worker (self->topology, model, &err)
                          : tl_part_of_client (self->topology, model, &err);
    s_must (self, part != NULL, &err);
    char *directory = case_adapter (self, name);
    s_must (self, tl_part_load_adapter (part, directory, &err) == 0, &err);
    tl_safetensors_t *file = s_train_file (self);
    for (size_t i = 0; i < tl_part_tensors (part); i++)
        s_compare_tensor (self, tl_part_tensor (part, i), file, difference);
    tl_safetensors_destroy (&file);
    free (directory);
    tl_part_destroy (&part);
    tl_model_destroy (&model);
}
