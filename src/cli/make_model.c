//  make-model: a model directory with random weights, or with those of a full tuning.

#include "cli/verbs.h"

#include "model/make.h"
#include "ui/json.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const char *trained, *dtype; //  directory; name of the storage type
    uint64_t seed;               //  of random weights
} s_options_t;

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    const s_options_t *options = arguments->options;
    tl_make_t make = {.trained = options->trained, .seed = options->seed, .dtype = TL_F32};
    static const tl_dtype_t dtypes[] = {TL_F32, TL_F16, TL_BF16};
    size_t at = 0;
    while (at < 3 && strcmp (tl_dtype_name (dtypes[at]), options->dtype) != 0)
        at++;
    if (at == 3)
        return tl_fail (err, TL_BAD_INPUT,
                        "make-model: --dtype: expected fp32, fp16 or bf16, found '%s'; "
                        "use one of these",
                        options->dtype);
    make.dtype = dtypes[at];
    if (tl_model_make (arguments->words[0], arguments->words[1], &make, err) != 0)
        return -1;
    if (arguments->format == TL_FORMAT_TEXT)
        printf ("%s: a model in %s, %s\n", arguments->words[1], options->dtype,
                options->trained ? "trained" : "random");
    else {
        json_t *json = json_pack ("{so ss sb}", "model", tl_json_string (arguments->words[1]),
                                  "dtype", options->dtype, "random", !options->trained);
        tl_json_print (json, arguments->format == TL_FORMAT_JSON);
        json_decref (json);
    }
    return 0;
}

static const s_options_t s_defaults = {NULL, "bf16", 1};

static const tl_option_t s_table[] = {
    {"trained", TL_OPTION_TEXT, offsetof (s_options_t, trained), "DIR", 0, 0,
     "weights from this adapter of a full tuning (random)"},
    {"dtype", TL_OPTION_TEXT, offsetof (s_options_t, dtype), "fp32|fp16|bf16", 0, 0,
     "how weights are stored (bf16)"},
    {"seed", TL_OPTION_COUNT, offsetof (s_options_t, seed), "N", 0, 9e15, "of random weights (1)"},
    {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_make_model = {
    .name = "make-model",
    .words = "CONFIG_DIR OUT_DIR",
    .min_words = 2,
    .max_words = 2,
    .help = "make a model directory from a config.json: random weights, or a full tuning's",
    .more = "CONFIG_DIR holds config.json and the tokenizer; they are copied beside the weights.",
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
