//  chat: see chat.h.

#include "cli/chat.h"

#include "clock.h"
#include "data/utf8.h"
#include "log.h"
#include "memory.h"
#include "ui/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

volatile sig_atomic_t tl_interrupted;

typedef struct {
    tl_engine_t *engine;
    tl_writing_options_t writing;
    tl_format_t format;
    bool terminal;   //  somebody types
    tl_said_t *said; //  [count] the conversation; texts are owned
    size_t count;
    size_t system; //  turns at its beginning that always stay: 1 with a system message
    bool begun;    //  something of the answer was shown
} s_chat_t;

static void
s_on_interrupt (int signal)
{
    tl_interrupted = 1;
}

void
tl_interruptible (void)
{
    //  Without SA_RESTART: waiting for a line ends, too.
    struct sigaction action = {.sa_handler = s_on_interrupt};
    sigaction (SIGINT, &action, NULL);
    //  An actor that has run here keeps it blocked.
    sigset_t set;
    sigemptyset (&set);
    sigaddset (&set, SIGINT);
    sigprocmask (SIG_UNBLOCK, &set, NULL);
}

int
tl_chat_check (const char *what, const char *text, size_t size, tl_error_t *err)
{
    size_t valid = tl_utf8_valid (text, size);
    if (valid == size)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "generate: %s: byte %zu (0x%02x) is not valid UTF-8; write the text in UTF-8",
                    what, valid + 1, (unsigned char)text[valid]);
}

json_t *
tl_written_json (const tl_said_t *prompt, const tl_written_t *written, double seconds)
{
    json_t *said = json_stringn (prompt->text, prompt->size), *ids = json_array ();
    json_t *text = json_stringn (written->text, written->size);
    for (size_t i = 0; i < written->count; i++)
        json_array_append_new (ids, json_integer (written->ids[i]));
    return json_pack ("{so so so ss sI sI sf sf}", "prompt", said ? said : json_null (), "text",
                      text ? text : json_null (), "ids", ids, "ended", written->reason,
                      "prompt_tokens", (json_int_t)written->prompt, "tokens",
                      (json_int_t)written->count, "seconds", seconds, "tokens_per_second",
                      seconds > 0 ? (double)written->count / seconds : 0.0);
}

//  ---------------------------------------------------------------------------------------------
//  The conversation

static void
s_say (s_chat_t *self, tl_speaker_t speaker, const char *text, size_t size)
{
    self->said = realloc (self->said, (self->count + 1) * sizeof *self->said);
    if (!self->said)
        abort ();
    tl_said_t *said = &self->said[self->count++];
    *said = (tl_said_t){speaker, tl_alloc (size + 1), size};
    memcpy (said->text, text, size);
}

//  Forgets the turns from first on, count of them.
static void
s_forget (s_chat_t *self, size_t first, size_t count)
{
    if (count == 0)
        return;
    for (size_t i = first; i < first + count; i++)
        free (self->said[i].text);
    memmove (self->said + first, self->said + first + count,
             (self->count - first - count) * sizeof *self->said);
    self->count -= count;
}

//  A line end before an answer belongs to some models' layout, not to the answer.
static size_t
s_skip (const char *text, size_t size)
{
    return size && *text == '\n' ? 1 : 0;
}

static void
s_on_piece (void *arg, const char *text, size_t size)
{
    s_chat_t *self = arg;
    size_t skip = self->begun ? 0 : s_skip (text, size);
    self->begun = true;
    fwrite (text + skip, 1, size - skip, stdout);
    fflush (stdout);
}

//  The oldest turns give way when there's no room left for an answer.
static tl_writing_t *
s_lay_out (s_chat_t *self, tl_error_t *err)
{
    const tl_config_t *config = self->engine->config;
    size_t wanted = self->writing.max_new, forgotten = 0;
    if (wanted > config->max_positions / 4)
        wanted = config->max_positions / 4;
    for (;;) {
        self->writing.said = self->said;
        self->writing.said_count = self->count;
        tl_writing_t *text = tl_writing_new (self->engine->tokenizer, config, &self->writing, err);
        bool room = text && tl_writing_most (text) - tl_writing_text (text)->count >= wanted;
        if (room || self->count - self->system < 3) {
            if (forgotten && text)
                tl_warn ("the conversation is longer than the model reads: its first %zu turns are "
                         "forgotten",
                         forgotten);
            return text;
        }
        tl_writing_destroy (&text);
        s_forget (self, self->system, 2);
        forgotten += 2;
    }
}

static int
s_answer (s_chat_t *self, tl_error_t *err)
{
    tl_writing_t *text = s_lay_out (self, err);
    if (!text)
        return -1;
    tl_written_t written = {0};
    int64_t began = tl_clock_us ();
    self->begun = false;
    int rc = tl_engine_answer (self->engine, text, &tl_interrupted, err);
    tl_interrupted = 0;
    if (rc == 0) {
        double seconds = (double)(tl_clock_us () - began) / 1e6;
        tl_writing_end (text, &written);
        if (self->format == TL_FORMAT_TEXT)
            putchar ('\n');
        else {
            json_t *turn = tl_written_json (&self->said[self->count - 1], &written, seconds);
            tl_json_print (turn, self->format == TL_FORMAT_JSON);
            json_decref (turn);
        }
        fflush (stdout);
        tl_debug ("%zu tokens in %.2f s, ended: %s", written.count, seconds, written.reason);
        size_t skip = s_skip (written.text, written.size);
        s_say (self, TL_SAID_ASSISTANT, written.text + skip, written.size - skip);
        self->writing.sampling.seed++; //  the next turn has draws of its own
    }
    tl_written_clear (&written);
    tl_writing_destroy (&text);
    return rc;
}

//  ---------------------------------------------------------------------------------------------
//  Lines

//  The next line without its end, into *line [*room]; -1 when there is none.
static ssize_t
s_line (s_chat_t *self, char **line, size_t *room)
{
    tl_interruptible ();
    for (;;) {
        if (self->terminal) {
            fputs ("> ", stdout);
            fflush (stdout);
        }
        errno = 0;
        ssize_t size = getline (line, room, stdin);
        if (size < 0 && errno == EINTR && !feof (stdin)) {
            clearerr (stdin);
            tl_interrupted = 0;
            if (self->terminal)
                puts ("\n/exit or Ctrl-D ends");
            continue;
        }
        while (size > 0 && strchr ("\r\n", (*line)[size - 1]))
            size--;
        if (size != 0)
            return size;
    }
}

int
tl_chat (tl_engine_t *engine, const tl_writing_options_t *writing, const char *system,
         tl_format_t format, tl_error_t *err)
{
    s_chat_t self = {.engine = engine,
                     .writing = *writing,
                     .format = format,
                     .terminal = isatty (STDIN_FILENO) && isatty (STDOUT_FILENO)};
    self.writing.on_piece = format == TL_FORMAT_TEXT ? s_on_piece : NULL;
    self.writing.arg = &self;
    if (system) {
        s_say (&self, TL_SAID_SYSTEM, system, strlen (system));
        self.system = 1;
    }
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    int rc = 0;
    while (rc == 0 && (size = s_line (&self, &line, &room)) > 0) {
        if (size == 5 && memcmp (line, "/exit", 5) == 0)
            break;
        rc = tl_chat_check ("the line", line, (size_t)size, err);
        if (rc == 0) {
            s_say (&self, TL_SAID_USER, line, (size_t)size);
            rc = s_answer (&self, err);
        } else if (self.terminal) {
            //  A slip of the keyboard ends no conversation.
            tl_warn ("%s", err->text);
            rc = 0;
        }
    }
    if (self.terminal && rc == 0 && feof (stdin))
        putchar ('\n');
    free (line);
    s_forget (&self, 0, self.count);
    free (self.said);
    return rc;
}
