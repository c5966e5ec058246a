//  verb: options from a table through getopt_long, help from the same table.

#include "cli/verb.h"

#include "assert.h"
#include "log.h"
#include "memory.h"
#include "nearest.h"
#include "number.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_OPTIONS = 48, FIRST_OWN = 1000 };

static const struct option s_common[] = {
    {"help", no_argument, NULL, 'h'},      {"format", required_argument, NULL, 'f'},
    {"set", required_argument, NULL, 's'}, {"verbose", no_argument, NULL, 'v'},
    {"quiet", no_argument, NULL, 'q'},
};
enum { COMMON = sizeof s_common / sizeof s_common[0] };

static const char s_common_help[] =
    "  --format text|json|jsonl  how the result is written (text)\n"
    "  --set KEY=VALUE           override a key of the topology, like train.lr=1e-4; repeatable\n"
    "  -v, --verbose             log more to stderr; -q, --quiet: warnings only\n"
    "  -h, --help                this text\n";

typedef struct {
    const tl_verb_t *verb; //  whose command line it is
    struct option longs[MAX_OPTIONS + 1];
    tl_arguments_t arguments; //  what is read
    const char **overrides;   //  owned
    void *options;            //  owned copy of the verb's defaults
    bool help;                //  --help was given
} s_line_t;

static void
s_print_help (const tl_verb_t *verb)
{
    printf ("usage: trunkline %s%s%s [OPTION...]\n\n%s\n", verb->name, *verb->words ? " " : "",
            verb->words, verb->help);
    if (verb->more)
        printf ("%s\n", verb->more);
    printf ("\noptions:\n");
    for (const tl_option_t *option = verb->options; option && option->name; option++) {
        char left[64];
        snprintf (left, sizeof left, "--%s%s%s", option->name, option->argument ? " " : "",
                  option->argument ? option->argument : "");
        printf ("  %-25s %s\n", left, option->help);
    }
    fputs (s_common_help, stdout);
}

static int
s_bad_option (const s_line_t *self, const char *given, tl_error_t *err)
{
    const char *names[MAX_OPTIONS];
    size_t count = 0;
    char name[64];
    snprintf (name, sizeof name, "%s", given + strspn (given, "-"));
    name[strcspn (name, "=")] = 0;
    for (const struct option *option = self->longs; option->name; option++)
        names[count++] = option->name;
    const char *near = tl_nearest (name, names, count);
    if (near)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: '%s' is not an option; write --%s if that was meant", self->verb->name,
                        given, near);
    return tl_fail (err, TL_BAD_INPUT,
                    "%s: '%s' is not an option; `trunkline %s --help` lists them", self->verb->name,
                    given, self->verb->name);
}

static int
s_out_of_range (const s_line_t *self, const tl_option_t *option, const char *text, tl_error_t *err)
{
    char min[32], max[32];
    tl_number_text (min, option->min);
    tl_number_text (max, option->max);
    return tl_fail (err, TL_BAD_INPUT,
                    "%s: --%s: expected a %snumber from %s to %s, found '%s'; give one in that "
                    "range",
                    self->verb->name, option->name, option->kind == TL_OPTION_COUNT ? "whole " : "",
                    min, max, text);
}

static int
s_store (const s_line_t *self, const tl_option_t *option, const char *text, tl_error_t *err)
{
    char *field = (char *)self->options + option->offset, *end = NULL;
    if (option->kind == TL_OPTION_FLAG) {
        *(bool *)field = true;
        return 0;
    }
    if (option->kind == TL_OPTION_TEXT) {
        *(const char **)field = text;
        return 0;
    }
    if (option->kind == TL_OPTION_TEXTS) {
        tl_texts_t *texts = (tl_texts_t *)field;
        if (texts->count == TL_TEXTS)
            return tl_fail (err, TL_BAD_INPUT, "%s: --%s can be given %d times; leave some out",
                            self->verb->name, option->name, TL_TEXTS);
        texts->items[texts->count++] = text;
        return 0;
    }
    bool whole = option->kind == TL_OPTION_COUNT;
    errno = 0;
    uint64_t count = whole ? strtoull (text, &end, 10) : 0;
    double number = whole ? (double)count : strtod (text, &end);
    if (!*text || *end || errno || !isfinite (number) || number < option->min ||
        number > option->max || (whole && strspn (text, "0123456789") != strlen (text)))
        return s_out_of_range (self, option, text, err);
    if (whole)
        *(uint64_t *)field = count;
    else
        *(double *)field = number;
    return 0;
}

static int
s_set_format (s_line_t *self, const char *text, tl_error_t *err)
{
    static const char *const names[] = {"text", "json", "jsonl"};
    for (int i = 0; i < 3; i++)
        if (strcmp (text, names[i]) == 0) {
            self->arguments.format = (tl_format_t)i;
            return 0;
        }
    return tl_fail (err, TL_BAD_INPUT,
                    "%s: --format: expected text, json or jsonl, found '%s'; use one "
                    "of these",
                    self->verb->name, text);
}

static int
s_read_option (s_line_t *self, int code, char **argv, tl_error_t *err)
{
    switch (code) {
    case 'h':
        self->help = true;
        return 0;
    case 'f':
        return s_set_format (self, optarg, err);
    case 's':
        self->overrides[self->arguments.override_count++] = optarg;
        return 0;
    case 'v':
        tl_log_level (TL_LOG_DEBUG);
        return 0;
    case 'q':
        tl_log_level (TL_LOG_WARN);
        return 0;
    case ':':
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: %s wants a value; `trunkline %s --help` shows which", self->verb->name,
                        argv[optind - 1], self->verb->name);
    case '?':
        if (optopt && optopt < 256) {
            char letter[3] = {'-', (char)optopt, 0};
            return s_bad_option (self, letter, err);
        }
        return s_bad_option (self, argv[optind - 1], err);
    default:
        return s_store (self, &self->verb->options[code - FIRST_OWN], optarg, err);
    }
}

static int
s_check_words (const s_line_t *self, tl_error_t *err)
{
    const tl_verb_t *verb = self->verb;
    size_t count = self->arguments.word_count;
    if (count < verb->min_words)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: expected %s, found %s; `trunkline %s --help` tells more", verb->name,
                        verb->words, count ? "fewer words" : "nothing", verb->name);
    if (count > verb->max_words)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: '%s' is one word too many; expected %s, leave it out", verb->name,
                        self->arguments.words[verb->max_words],
                        *verb->words ? verb->words : "options only");
    return 0;
}

static int
s_read_line (s_line_t *self, int argc, char **argv, tl_error_t *err)
{
    size_t count = 0;
    for (; count < COMMON; count++)
        self->longs[count] = s_common[count];
    for (const tl_option_t *option = self->verb->options; option && option->name; option++) {
        tl_assert (count < MAX_OPTIONS);
        self->longs[count++] =
            (struct option){option->name, option->argument ? required_argument : no_argument, NULL,
                            FIRST_OWN + (int)(option - self->verb->options)};
    }
    self->overrides = tl_alloc (((size_t)argc + 1) * sizeof *self->overrides);
    self->options = tl_alloc (self->verb->options_size + 1);
    if (self->verb->options_size)
        memcpy (self->options, self->verb->defaults, self->verb->options_size);

    int code, rc = 0;
    optind = 1;
    while (rc == 0 && (code = getopt_long (argc, argv, ":hf:vq", self->longs, NULL)) != -1)
        rc = s_read_option (self, code, argv, err);
    self->arguments.overrides = self->overrides;
    self->arguments.options = self->options;
    self->arguments.words = (const char *const *)argv + optind;
    self->arguments.word_count = (size_t)(argc - optind);
    const char *no_color = getenv ("NO_COLOR");
    self->arguments.color = !(no_color && *no_color) && isatty (STDOUT_FILENO);
    return rc == 0 && !self->help ? s_check_words (self, err) : rc;
}

int
tl_verb_main (const tl_verb_t *verb, int argc, char **argv)
{
    tl_error_t err = {TL_INTERNAL, "failed without saying why; report this"};
    s_line_t line = {.verb = verb};

    int rc = s_read_line (&line, argc, argv, &err);
    if (rc == 0 && line.help)
        s_print_help (verb);
    else if (rc == 0)
        rc = verb->run (&line.arguments, &err);
    free (line.overrides);
    free (line.options);
    if (rc == 0)
        return TL_OK;
    fprintf (stderr, "trunkline: %s\n", err.text);
    return err.code ? (int)err.code : TL_INTERNAL;
}

tl_topology_t *
tl_verb_topology (const tl_arguments_t *arguments, const char *path, tl_error_t *err)
{
    size_t size = strlen (path);
    struct stat is;
    if ((size > 5 && strcmp (path + size - 5, ".gguf") == 0) ||
        (stat (path, &is) == 0 && S_ISDIR (is.st_mode))) {
        tl_fail (err, TL_BAD_INPUT,
                 "%s is no topology, a YAML file; a model is given with --model where a command "
                 "takes one",
                 path);
        return NULL;
    }
    return tl_topology_read (path, arguments->overrides, arguments->override_count, err);
}

//  longer + " --set " + text, in quotes where a shell would take text for more than a word.
static char *
s_add_set (char *longer, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-.,:/=+@%";
    bool quoted = text[strspn (text, plain)] != 0;
    char *whole = tl_format ("%s --set %s%s%s", longer, quoted ? "'" : "", text, quoted ? "'" : "");
    free (longer);
    return whole;
}

char *
tl_verb_again (const tl_arguments_t *arguments, const char *prefix)
{
    char *all = tl_strdup ("");
    for (size_t i = 0; i < arguments->override_count; i++)
        if (strncmp (arguments->overrides[i], prefix, strlen (prefix)) == 0)
            all = s_add_set (all, arguments->overrides[i]);
    return all;
}

bool
tl_verb_is_here (const char *host)
{
    char name[256] = "";
    gethostname (name, sizeof name - 1);
    return strcmp (host, "localhost") == 0 || strcmp (host, name) == 0;
}

bool
tl_verb_is_at (const char *host, const char *wanted)
{
    return wanted ? strcmp (host, wanted) == 0 : tl_verb_is_here (host);
}
