//  config_read: see config_read.h.

#include "config_read.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

//  The value as a person would find it in the file.
static void
s_show (const json_t *value, char *text, size_t size)
{
    char *dump = value ? json_dumps (value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    snprintf (text, size, "%s", dump ? dump : "missing");
    free (dump);
}

json_t *
tl_read_value (const tl_reader_t *self, const char *key)
{
    json_t *value = json_object_get (self->object, key);
    return json_is_null (value) ? NULL : value;
}

const char *
tl_read_text (const tl_reader_t *self, const char *key)
{
    return json_string_value (tl_read_value (self, key));
}

int
tl_read_refuse (const tl_reader_t *self, const char *key, const char *wanted)
{
    char shown[200];
    s_show (json_object_get (self->object, key), shown, sizeof shown);
    return tl_fail (self->err, TL_BAD_INPUT,
                    "%s: %s is %s, expected %s; correct the file or choose "
                    "another model",
                    self->file, key, shown, wanted);
}

int
tl_read_unsupported (const tl_reader_t *self, const char *key)
{
    char shown[200];
    s_show (json_object_get (self->object, key), shown, sizeof shown);
    return tl_fail (
        self->err, TL_BAD_INPUT,
        "%s: %s %s is not supported; this version reads the architectures of ChatGLM-6B, "
        "ChatGLM2 and 3, GLM-4 (model_type chatglm and glm), Llama and Mistral "
        "(model_type llama and mistral) and Qwen2 (model_type qwen2); choose such a "
        "model",
        self->file, key, shown);
}

int
tl_read_size (const tl_reader_t *self, const char *key, size_t limit, size_t otherwise, size_t *out)
{
    const json_t *value = tl_read_value (self, key);
    if (!value && otherwise) {
        *out = otherwise;
        return 0;
    }
    json_int_t number = json_is_integer (value) ? json_integer_value (value) : 0;
    if (number < 1 || (uint64_t)number > limit) {
        char wanted[80];
        snprintf (wanted, sizeof wanted, "a whole number from 1 to %zu", limit);
        return tl_read_refuse (self, key, wanted);
    }
    *out = (size_t)number;
    return 0;
}

int
tl_read_real (const tl_reader_t *self, const char *key, double low, double high, double otherwise,
              double *out)
{
    const json_t *value = tl_read_value (self, key);
    if (!value && !isnan (otherwise)) {
        *out = otherwise;
        return 0;
    }
    double number = json_is_number (value) ? json_number_value (value) : NAN;
    if (!(number >= low && number <= high)) {
        char wanted[80];
        snprintf (wanted, sizeof wanted, "a number from %g to %g", low, high);
        return tl_read_refuse (self, key, wanted);
    }
    *out = number;
    return 0;
}

int
tl_read_flag (const tl_reader_t *self, const char *key, bool otherwise, bool *out)
{
    const json_t *value = tl_read_value (self, key);
    if (value && !json_is_boolean (value))
        return tl_read_refuse (self, key, "true or false");
    *out = value ? json_is_true (value) : otherwise;
    return 0;
}

//  One id; value may be an element of the key's list.
static int
s_id (const tl_reader_t *self, const char *key, const json_t *value, size_t vocab, int32_t *out)
{
    json_int_t number = json_is_integer (value) ? json_integer_value (value) : -2;
    if (number < -1 || number >= (json_int_t)vocab) {
        char wanted[80];
        snprintf (wanted, sizeof wanted, "a token id below vocab_size %zu", vocab);
        return tl_read_refuse (self, key, wanted);
    }
    *out = (int32_t)number;
    return 0;
}

int
tl_read_id (const tl_reader_t *self, const char *key, size_t vocab, int32_t otherwise, int32_t *out)
{
    const json_t *value = tl_read_value (self, key);
    if (json_is_array (value))
        value = json_array_get (value, 0);
    if (value)
        return s_id (self, key, value, vocab, out);
    *out = otherwise >= 0 && (size_t)otherwise >= vocab ? -1 : otherwise;
    return 0;
}

int
tl_read_ends (const tl_reader_t *self, int32_t otherwise, tl_config_t *config)
{
    const char *key = "eos_token_id";
    const json_t *list = tl_read_value (self, key);
    size_t count = json_array_size (list); //  0 for a single id
    config->end_count = 0;
    if (tl_read_id (self, key, config->vocab, otherwise, &config->eos) != 0)
        return -1;
    if (count > 1 + TL_MAX_ENDS) {
        char wanted[80];
        snprintf (wanted, sizeof wanted, "a list of at most %d token ids", 1 + TL_MAX_ENDS);
        return tl_read_refuse (self, key, wanted);
    }
    for (size_t i = 1; i < count; i++)
        if (s_id (self, key, json_array_get (list, i), config->vocab,
                  &config->ends[config->end_count++]) != 0)
            return -1;
    return 0;
}

int
tl_read_none_of (const tl_reader_t *self, const char *const *keys)
{
    for (; *keys; keys++) {
        const json_t *value = tl_read_value (self, *keys);
        bool off = !value || json_is_false (value) ||
                   (json_is_number (value) && json_number_value (value) == 0) ||
                   (json_is_string (value) && json_string_length (value) == 0);
        if (!off)
            return tl_read_unsupported (self, *keys);
    }
    return 0;
}

int
tl_read_all_of (const tl_reader_t *self, const char *const *keys)
{
    for (; *keys; keys++) {
        const json_t *value = tl_read_value (self, *keys);
        if (value && !json_is_true (value))
            return tl_read_unsupported (self, *keys);
    }
    return 0;
}
