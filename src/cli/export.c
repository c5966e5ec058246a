/*  export: what was trained, for other programs: a PEFT directory, a whole Hugging Face model, an adapter for llama.cpp.

    Of a topology it joins what one site and the worker saved; what is not on this disk can't be exported. */

#include "cli/verbs.h"

#include "actors/save.h"
#include "cli/site.h"
#include "fed/parts.h"
#include "file.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "model/export.h"
#include "model/gguf.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST_ADAPTERS = 2, SHARD_MB = 5000 };

typedef struct {
    const char *as, *out, *model, *adapter, *site, *dtype; //  as given; NULL: not
    uint64_t shard_mb;                                     //  --shard-mb
    bool force;                                            //  --force
} s_options_t;

typedef struct {
    const s_options_t *options;
    const tl_topology_t *topology; //  NULL with --model
    tl_model_t *model;
    char *adapters[MOST_ADAPTERS]; //  directories
    size_t count;
} s_export_t;

static const char s_peft[] = "peft", s_hf[] = "hf", s_gguf[] = "gguf-lora";

static int
s_check_options (const s_options_t *options, bool topology, tl_error_t *err)
{
    if (!options->as || (strcmp (options->as, s_peft) != 0 && strcmp (options->as, s_hf) != 0 &&
                         strcmp (options->as, s_gguf) != 0))
        return tl_fail (err, TL_BAD_INPUT,
                        "export: --as: expected peft, hf or gguf-lora, found %s%s%s; give one",
                        options->as ? "'" : "", options->as ? options->as : "nothing",
                        options->as ? "'" : "");
    if (!options->out)
        return tl_fail (err, TL_BAD_INPUT,
                        "export: expected --out PATH, found nothing; say where to write");
    if (topology == (options->model != NULL))
        return tl_fail (err, TL_BAD_INPUT,
                        "export: expected a TOPOLOGY or --model DIR, found %s; give one of them",
                        topology ? "both" : "neither");
    if (options->site && (!topology || options->adapter))
        return tl_fail (err, TL_BAD_INPUT,
                        "export: --site chooses among the saved parts of a topology; leave it out "
                        "with --model and --adapter");
    if ((options->dtype || options->shard_mb != SHARD_MB) && strcmp (options->as, s_hf) != 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "export: --dtype and --shard-mb are about whole models; leave them out, or "
                        "say --as hf");
    return 0;
}

static int
s_read_dtype (const char *name, tl_dtype_t *dtype, tl_error_t *err)
{
    static const tl_dtype_t dtypes[] = {TL_F32, TL_F16, TL_BF16};
    for (size_t i = 0; name && i < 3; i++)
        if (strcmp (tl_dtype_name (dtypes[i]), name) == 0) {
            *dtype = dtypes[i];
            return 0;
        }
    return !name ? 0
                 : tl_fail (err, TL_BAD_INPUT,
                            "export: --dtype: expected fp32, fp16 or bf16, found '%s'; use one of "
                            "these",
                            name);
}

//  ---------------------------------------------------------------------------------------------
//  Where to

//  True if inner is outer or lies below it; both as the disk knows them.
static bool
s_holds (const char *outer, const char *inner)
{
    char one[PATH_MAX], two[PATH_MAX];
    if (!realpath (outer, one) || !realpath (inner, two))
        return false;
    size_t length = strlen (one);
    return strncmp (one, two, length) == 0 && (two[length] == 0 || two[length] == '/');
}

static bool
s_is_export (const char *out)
{
    struct stat status;
    char *config = tl_format ("%s/config.json", out);
    char *adapter = tl_format ("%s/adapter_config.json", out);
    bool is = lstat (out, &status) == 0 && S_ISDIR (status.st_mode) &&
              (tl_exists (config) || tl_exists (adapter));
    free (adapter);
    free (config);
    return is;
}

//  What is replaced must look like an earlier export, and be none of what is read.
static int
s_check_out (const s_export_t *self, tl_error_t *err)
{
    const char *out = self->options->out;
    struct stat status;
    if (lstat (out, &status) != 0)
        return 0;
    if (!self->options->force)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s exists; choose another --out, or replace it with --force", out);
    bool inside = s_holds (out, tl_model_path (self->model));
    for (size_t i = 0; i < self->count; i++)
        inside = inside || s_holds (out, self->adapters[i]);
    if (inside)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s holds the model or the adapter that is exported; choose another --out",
                        out);
    bool file = strcmp (self->options->as, s_gguf) == 0;
    if (file ? tl_gguf_is (out) : s_is_export (out))
        return 0;
    return tl_fail (
        err, TL_BAD_INPUT,
        "%s is no %s, --force does not replace it; remove it yourself or choose another "
        "--out",
        out, file ? "GGUF file" : "directory of a model or an adapter");
}

//  ---------------------------------------------------------------------------------------------
//  What

static int
s_add_saved (s_export_t *self, const char *name, tl_error_t *err)
{
    char *saves = tl_save_directory (self->topology, name);
    char *directory = tl_format ("%s/adapter", saves);
    free (saves);
    self->adapters[self->count++] = directory;
    if (tl_exists (directory))
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s isn't there: what %s trained was never saved on this machine; export where "
                    "it was, or name an adapter of the whole model with --adapter",
                    directory, name);
}

//  Front and tail of the site, and the trunk, as far as they train.
static int
s_find_saved (s_export_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    const tl_site_options_t of = {.site = self->options->site};
    int client = tl_site_index (&of, topology, "export", err);
    if (client < 0 || tl_split_check (topology, self->model, err) != 0)
        return -1;
    if (tl_client_trains (topology, self->model) &&
        s_add_saved (self, topology->clients[client].name, err) != 0)
        return -1;
    if (tl_worker_trains (topology, self->model) &&
        s_add_saved (self, topology->workers[0].name, err) != 0)
        return -1;
    tl_site_warn_of_steps (topology, (size_t)client);
    return 0;
}

static int
s_find (s_export_t *self, tl_error_t *err)
{
    const s_options_t *options = self->options;
    const char *path = self->topology ? self->topology->model.path : options->model;
    if (!(self->model =
              self->topology ? tl_model_of (self->topology, err) : tl_model_open (path, err)))
        return -1;
    if (!options->adapter)
        return self->topology ? s_find_saved (self, err) : 0;
    self->adapters[self->count++] = tl_strdup (options->adapter);
    return 0;
}

//  ---------------------------------------------------------------------------------------------

static void
s_print (const s_export_t *self, const tl_export_t *export, tl_format_t format)
{
    const s_options_t *options = self->options;
    const char *what = strcmp (options->as, s_peft) == 0 ? "an adapter for peft"
                       : strcmp (options->as, s_hf) == 0 ? "a Hugging Face model"
                                                         : "an adapter for llama.cpp";
    if (format == TL_FORMAT_TEXT) {
        printf ("%s: %s, %zu trained tensors of %s\n", options->out, what,
                tl_export_tensors (export), tl_model_path (self->model));
        return;
    }
    json_t *result = json_pack ("{ss ss ss sI}", "out", options->out, "as", options->as, "model",
                                tl_model_path (self->model), "trained_tensors",
                                (json_int_t)tl_export_tensors (export));
    json_dumpf (result, stdout, format == TL_FORMAT_JSON ? JSON_INDENT (2) : JSON_COMPACT);
    putchar ('\n');
    json_decref (result);
}

static int
s_write (s_export_t *self, tl_format_t format, tl_error_t *err)
{
    const s_options_t *options = self->options;
    tl_dtype_t dtype = TL_F32;
    if (s_read_dtype (options->dtype, &dtype, err) != 0 || s_find (self, err) != 0 ||
        s_check_out (self, err) != 0)
        return -1;
    tl_export_t *export =
        tl_export_new (self->model, (const char *const *)self->adapters, self->count, err);
    if (!export)
        return -1;
    int rc;
    if (strcmp (options->as, s_peft) == 0)
        rc = tl_export_peft (export, options->out, err);
    else if (strcmp (options->as, s_gguf) == 0)
        rc = tl_export_gguf (export, options->out, err);
    else
        rc = tl_export_hf (export, options->out, !options->dtype, dtype,
                           (size_t)options->shard_mb * 1000000, err);
    if (rc == 0)
        s_print (self, export, format);
    tl_export_destroy (&export);
    return rc;
}

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    s_export_t self = {.options = arguments->options};
    bool named = arguments->word_count > 0;
    if (s_check_options (self.options, named, err) != 0)
        return -1;
    tl_kernels_use (1);
    tl_topology_t *topology = NULL;
    if (named && !(topology = tl_verb_topology (arguments, arguments->words[0], err)))
        return -1;
    self.topology = topology;
    int rc = s_write (&self, arguments->format, err);
    for (size_t i = 0; i < self.count; i++)
        free (self.adapters[i]);
    tl_model_destroy (&self.model);
    tl_topology_destroy (&topology);
    return rc;
}

static const s_options_t s_defaults = {.shard_mb = SHARD_MB};

static const tl_option_t s_table[] = {
    {"as", TL_OPTION_TEXT, offsetof (s_options_t, as), "peft|hf|gguf-lora", 0, 0,
     "an adapter for the Python package peft, the whole model for transformers, an adapter for "
     "llama.cpp"},
    {"out", TL_OPTION_TEXT, offsetof (s_options_t, out), "PATH", 0, 0,
     "directory that is written; gguf-lora: file"},
    {"model", TL_OPTION_TEXT, offsetof (s_options_t, model), "DIR", 0, 0,
     "a model instead of a topology's"},
    {"adapter", TL_OPTION_TEXT, offsetof (s_options_t, adapter), "DIR", 0, 0,
     "this adapter, of the whole model, instead of what the parts of a run saved"},
    {"site", TL_OPTION_TEXT, offsetof (s_options_t, site), "NAME", 0, 0,
     "front and tail of this client of the topology"},
    {"dtype", TL_OPTION_TEXT, offsetof (s_options_t, dtype), "fp32|fp16|bf16", 0, 0,
     "hf: how weights are stored (as in the base)"},
    {"shard-mb", TL_OPTION_COUNT, offsetof (s_options_t, shard_mb), "N", 1, 1e9,
     "hf: weights in files of at most so many million bytes (5000)"},
    {"force", TL_OPTION_FLAG, offsetof (s_options_t, force), NULL, 0, 0,
     "replace an earlier export"},
    {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_export = {
    .name = "export",
    .words = "[TOPOLOGY]",
    .min_words = 0,
    .max_words = 1,
    .help = "write what was trained for other programs: peft, transformers, llama.cpp",
    .more = "With a TOPOLOGY alone it joins what a site and the worker saved under checkpoint.dir "
            "on this\n"
            "machine. peft: LoRA factors and their settings. hf: the base with W + scaling * B A, "
            "or with\n"
            "fully tuned weights, and the files beside it; of a GGUF file without the tokenizer's. "
            "gguf-lora:\n"
            "LoRA for --lora of llama.cpp.",
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
