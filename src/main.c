//  main: finds the verb. Everything else is the verb's.

#include "cli/verb.h"
#include "nearest.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static void
s_print_help (void)
{
    size_t count;
    const tl_verb_t *const *verbs = tl_verbs (&count);
    printf ("usage: trunkline VERB [ARGUMENT...]\n\n"
            "Fine-tunes a language model on private text that never leaves its owner.\n\nverbs:\n");
    for (size_t i = 0; i < count; i++)
        printf ("  %-10s %s\n", verbs[i]->name, verbs[i]->help);
    printf (
        "\n`trunkline VERB --help` tells more. Exit codes: 0 ok, 1 the run failed, 2 connection "
        "or\n"
        "authentication, 3 timeout, 4 bad arguments, configuration or data, 5 internal error.\n");
}

static int
s_unknown_verb (const char *word)
{
    size_t count;
    const tl_verb_t *const *verbs = tl_verbs (&count);
    const char *names[64];
    for (size_t i = 0; i < count && i < 64; i++)
        names[i] = verbs[i]->name;
    const char *near = tl_nearest (word, names, count);
    if (near)
        fprintf (stderr, "trunkline: '%s' is not a verb; write 'trunkline %s' if that was meant\n",
                 word, near);
    else
        fprintf (stderr, "trunkline: '%s' is not a verb; `trunkline --help` lists them\n", word);
    return TL_BAD_INPUT;
}

static int
s_run (const char *word, int argc, char **argv)
{
    size_t count;
    const tl_verb_t *const *verbs = tl_verbs (&count);
    for (size_t i = 0; i < count; i++)
        if (strcmp (verbs[i]->name, word) == 0)
            return tl_verb_main (verbs[i], argc, argv);
    return s_unknown_verb (word);
}

static int
s_main (int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    if (strcmp (word, "help") == 0 && argc > 2) {
        char *verb_help[] = {argv[2], "--help", NULL};
        return s_run (argv[2], 2, verb_help);
    }
    if (strcmp (word, "--help") == 0 || strcmp (word, "-h") == 0 || strcmp (word, "help") == 0) {
        s_print_help ();
        return TL_OK;
    }
    if (strcmp (word, "--version") == 0) {
        puts ("trunkline " TL_VERSION);
        return TL_OK;
    }
    if (!*word) {
        fputs ("trunkline: expected a verb, found nothing; `trunkline --help` lists them\n",
               stderr);
        return TL_BAD_INPUT;
    }
    return s_run (word, argc - 1, argv + 1);
}

int
main (int argc, char **argv)
{
    //  A reader that goes away ends a write with an error, not the process with a signal.
    signal (SIGPIPE, SIG_IGN);
    //  And a file that may not grow is an error like a full disk.
    signal (SIGXFSZ, SIG_IGN);
    int code = s_main (argc, argv);
    //  Lines were flushed as they came: which of them failed, and why, is not known any more.
    bool good = fflush (stdout) == 0 && ferror (stdout) == 0;
    if (code == TL_OK && !good) {
        fputs ("trunkline: stdout can't be written; free the disk, or see why its reader is gone\n",
               stderr);
        code = TL_FAILED;
    }
    return code;
}
