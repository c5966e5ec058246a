//  bench_material: see the header.

#include "bench/bench_material.h"

#include "bench/bench_run.h"
#include "error.h"
#include "file.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

static void
s_fail (const char *format, const char *what)
{
    fprintf (stderr, "bench: ");
    fprintf (stderr, format, what);
    fprintf (stderr, "\n");
    exit (TL_FAILED);
}

static void
s_write (const char *path, const char *text)
{
    tl_error_t err;
    if (tl_file_write (path, text, strlen (text), 0644, &err))
        s_fail ("%s", err.text);
}

static const char *const s_words[] = {
    "animal", "plant", "large", "small", "of",   "the",  "with", "and", "that", "lives", "in",
    "water",  "tree",  "leaf",  "genus", "from", "used", "as",   "any", "kind", "made",  "red",
    "green",  "white", "long",  "tail",  "part", "for",  "a",    "or",  "have", "its",   "one"};

//  Text that is the same in every run: a small generator of its own.
void
bench_say (FILE *file, uint32_t *state, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        *state = *state * 1664525u + 1013904223u;
        fprintf (file, "%s%s", i ? " " : "",
                 s_words[(*state >> 16) % (sizeof s_words / sizeof *s_words)]);
    }
}

char *
bench_rows (const char *dir, size_t rows)
{
    uint32_t state = 1;
    char *path = tl_format ("%s/rows.jsonl", dir);
    FILE *file = fopen (path, "we");
    if (!file)
        s_fail ("%s can't be written", path);
    for (size_t i = 0; i < 256; i++) {
        fprintf (file, "{\"text\": \"");
        bench_say (file, &state, 2 * rows);
        fprintf (file, "\"}\n");
    }
    fclose (file);
    return path;
}

static void
s_ignore (void *arg, const char *line, double at)
{
}

static char *
s_make_model (const char *trunkline, const char *dir, const char *log, const char *from,
              const char *name)
{
    char *to = tl_format ("%s/%s", dir, name), *weights = tl_format ("%s/model.safetensors", to);
    const char *argv[] = {trunkline, "make-model", from, to, NULL};
    bench_usage_t usage;
    if (!tl_exists (weights) && bench_run (argv, log, s_ignore, NULL, &usage))
        s_fail ("no model could be made; look into %s", log);
    free (weights);
    return to;
}

char *
bench_large (const char *trunkline, const char *dir, const char *log)
{
    tl_error_t err;
    size_t size;
    char *from = tl_format ("%s/large-config", dir);
    char *config = tl_format ("%s/config.json", from);
    char *tokenizer = tl_format ("%s/tokenizer.model", from);
    char *pieces = tl_file_read ("models/tiny-glm/ice_text.model", (size_t)1 << 24, &size, &err);
    if (!pieces || tl_mkdirs (from, &err) || tl_file_write (tokenizer, pieces, size, 0644, &err))
        s_fail ("%s", err.text);
    s_write (config,
             "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
             "\"hidden_size\": 576, \"intermediate_size\": 1536, \"num_hidden_layers\": 30, "
             "\"num_attention_heads\": 9, \"num_key_value_heads\": 3, "
             "\"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-05, "
             "\"rope_theta\": 10000.0, \"vocab_size\": 49152, \"tie_word_embeddings\": true, "
             "\"hidden_act\": \"silu\", \"bos_token_id\": 1, \"eos_token_id\": 2}\n");
    char *model = s_make_model (trunkline, dir, log, from, "large");
    free (pieces);
    free (tokenizer);
    free (config);
    free (from);
    return model;
}

char *
bench_tiny (const char *trunkline, const char *dir, const char *log)
{
    if (tl_exists ("models/tiny-glm/model.safetensors"))
        return tl_strdup ("models/tiny-glm");
    return s_make_model (trunkline, dir, log, "models/tiny-glm", "tiny");
}
