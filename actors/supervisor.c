#include "supervisor.h"

#include "actors/actor.h"
#include "actors/child.h"
#include "actors/credentials.h"
#include "actors/restarts.h"
#include "clock.h"
#include "file.h"
#include "log.h"
#include "memory.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    GRACE_MS = 25000, //  the broker may take so long to end a run in order
    BYE_MS = 2000,    //  parts hear its BYE within that, or are told to stop
    KILL_MS = 10000,  //  whoever was told must be gone by then
    MOST_LOADS = 4    //  processes of the clients of one entry
};

static const char *const s_states[] = {"running", "stopping"};
enum { RUNNING, STOPPING };

typedef struct tl_supervisor tl_supervisor_t;

//  A part of the run, and the process that is it now.
typedef struct {
    tl_supervisor_t *supervisor;
    const char *role;      //  "broker", "aggregator", "worker", "client", "load"
    size_t first, clients; //  load: index of its first client, and how many; client: clients is 1
    const char *name;      //  "" for broker and aggregator
    char title[96];        //  "client/north"
    tl_child_t *child;
    tl_restarts_t restarts;
    int timer;       //  of the next start, 0: none
    bool came;       //  broker: it said that it is up
    bool begun;      //  broker: there is a run to resume
    bool told;       //  to stop; a second signal would cut it short
    bool failed;     //  for good
    char last[1024]; //  last error sentence it printed
} tl_part_of_run_t;

struct tl_supervisor {
    const tl_topology_t *topology;
    tl_supervisor_options_t options;
    tl_actor_t *actor;
    tl_part_of_run_t *parts;
    size_t count;
    FILE *log;
    int grace;     //  timer: after it everybody is told to stop; 0: none
    bool waiting;  //  parts are started when the broker of this machine is up
    bool began;    //  a step was committed
    int64_t step;  //  that is open, as far as the broker has told
    int64_t saved; //  step of the last common save, 0: none
    bool over;     //  the broker said that the run is done, or ended
    bool complete; //  and that all rounds are done and saved
    bool serving;  //  it said that it goes on serving: a worker is still needed
    int code;
    char text[1100]; //  why code is not 0
};

static int s_start (tl_part_of_run_t *part, tl_error_t *err);
static void s_start_others (tl_supervisor_t *self);
static void s_check_all (tl_supervisor_t *self);

static void
s_say (tl_supervisor_t *self, const char *format, ...)
{
    char line[1400];
    va_list args;
    va_start (args, format);
    vsnprintf (line, sizeof line, format, args);
    va_end (args);
    self->options.on_line (self->options.arg, line);
}

static void
s_fail (tl_supervisor_t *self, int code, const char *text)
{
    if (self->code)
        return;
    self->code = code;
    snprintf (self->text, sizeof self->text, "%.1023s", text);
}

//  The same, with where to find what was saved.
static void
s_fail_saved (tl_supervisor_t *self, int code, const char *text)
{
    char whole[1400];
    snprintf (whole, sizeof whole, "%.700s; what was saved is in %.280s/%.100s", text,
              self->topology->checkpoint.dir, self->topology->name);
    s_fail (self, code, self->began ? whole : text);
}

//  --- what children say ------------------------------------------------------------------------

static bool
s_is_broker (const tl_part_of_run_t *part)
{
    return strcmp (part->role, "broker") == 0;
}

static void
s_on_broker_event (tl_part_of_run_t *part, const char *name, const json_t *event)
{
    tl_supervisor_t *self = part->supervisor;
    json_int_t step = json_integer_value (json_object_get (event, "step"));
    if (strcmp (name, "up") == 0) {
        part->came = true;
        s_start_others (self);
    } else if (strcmp (name, "begun") == 0)
        part->begun = true;
    else if (strcmp (name, "done") == 0) {
        self->over = true;
        self->complete = json_is_true (json_object_get (event, "complete"));
    } else if (strcmp (name, "closed") == 0) {
        self->began = true;
        self->step = step + 1;
    } else if (strcmp (name, "restore") == 0)
        self->step = step;
    else if (strcmp (name, "saved") == 0 || strcmp (name, "resumed") == 0)
        self->saved = step;
    else if (strcmp (name, "serving") == 0)
        self->over = self->serving = true;
    else if (strcmp (name, "ending") == 0)
        self->serving = false;
}

static void
s_on_event_line (void *arg, const char *line)
{
    tl_part_of_run_t *part = arg;
    json_error_t error;
    json_t *event = json_loads (line, 0, &error);
    const char *name = event ? json_string_value (json_object_get (event, "event")) : NULL;
    if (name) {
        if (s_is_broker (part))
            s_on_broker_event (part, name, event);
        part->supervisor->options.on_event (part->supervisor->options.arg, part->title, event);
    }
    json_decref (event);
}

//  A log line is "HH:MM:SS.mmm level who: text"; a last word is "trunkline: sentence".
static void
s_on_log_line (void *arg, const char *line)
{
    tl_part_of_run_t *part = arg;
    tl_supervisor_t *self = part->supervisor;
    fprintf (self->log, "%s\n", line);
    fflush (self->log);
    if (strncmp (line, "trunkline: ", 11) == 0)
        snprintf (part->last, sizeof part->last, "%s", line + 11);
    else if (strlen (line) > 19 &&
             (strncmp (line + 13, "warn", 4) == 0 || strncmp (line + 13, "error", 5) == 0))
        self->options.on_line (self->options.arg, line);
}

static void
s_on_closed (void *arg)
{
    tl_part_of_run_t *part = arg;
    s_check_all (part->supervisor);
}

//  --- stopping ---------------------------------------------------------------------------------

static void
s_signal_all (tl_supervisor_t *self, int signal_number)
{
    for (size_t i = 0; i < self->count; i++)
        tl_child_signal (self->parts[i].child, signal_number);
}

static void
s_on_kill (void *arg)
{
    tl_supervisor_t *self = arg;
    s_signal_all (self, SIGKILL);
}

static void
s_tell (tl_part_of_run_t *part)
{
    if (!part->told)
        tl_child_signal (part->child, SIGTERM);
    part->told = true;
}

static void
s_on_grace (void *arg)
{
    tl_supervisor_t *self = arg;
    self->grace = 0;
    for (size_t i = 0; i < self->count; i++)
        s_tell (&self->parts[i]);
    tl_actor_timer (self->actor, KILL_MS, 1, s_on_kill, self);
}

static void
s_grace (tl_supervisor_t *self, size_t ms)
{
    tl_actor_cancel (self->actor, self->grace);
    self->grace = tl_actor_timer (self->actor, ms, 1, s_on_grace, self);
}

//  Nothing is started any more, and within grace_ms everything is to be over.
static void
s_wind_up (tl_supervisor_t *self, size_t grace_ms)
{
    tl_actor_go (self->actor, STOPPING, "stop");
    for (size_t i = 0; i < self->count; i++) {
        tl_actor_cancel (self->actor, self->parts[i].timer);
        self->parts[i].timer = 0;
    }
    s_grace (self, grace_ms);
}

//  The broker ends the run politely and tells everybody; without a broker each part is told itself.
static void
s_stop (tl_supervisor_t *self)
{
    if (tl_actor_state (self->actor) == STOPPING)
        return;
    tl_part_of_run_t *broker = &self->parts[0];
    bool polite = s_is_broker (broker) && tl_child_alive (broker->child);
    s_wind_up (self, polite ? GRACE_MS : 1);
    if (polite)
        s_tell (broker);
    s_check_all (self);
}

static void
s_on_stop (void *arg)
{
    s_stop (arg);
}

//  Ends when nothing runs, nothing is to be started and everything that was said has been read.
static void
s_check_all (tl_supervisor_t *self)
{
    size_t clients = 0, expected = 0;
    bool busy = false;
    for (size_t i = 0; i < self->count; i++) {
        tl_part_of_run_t *part = &self->parts[i];
        bool alive = tl_child_alive (part->child) || part->timer;
        busy |= part->timer || tl_child_busy (part->child);
        if (part->clients) {
            expected += part->clients;
            clients += alive;
        }
    }
    if (!busy)
        tl_actor_end (self->actor, self->code);
    else if (expected && !clients && !self->waiting && !self->over &&
             tl_actor_state (self->actor) == RUNNING && expected == self->topology->client_count) {
        s_say (self, "no client is left: stopping the run");
        s_stop (self);
    }
}

//  --- deaths -----------------------------------------------------------------------------------

static void
s_on_restart (void *arg)
{
    tl_part_of_run_t *part = arg;
    tl_error_t err;
    part->timer = 0;
    if (s_start (part, &err)) {
        s_fail (part->supervisor, TL_FAILED, err.text);
        s_stop (part->supervisor);
    }
}

//  Sets the time of its next start; false if there is none.
static bool
s_start_later (tl_part_of_run_t *part, int status, const char *what)
{
    int wait = tl_restarts_died (&part->restarts, status, part->supervisor->step, tl_clock_ms ());
    if (wait < 0)
        return false;
    s_say (part->supervisor, "%s; starting it again in %.2f s (%d of %d)", what, wait / 1000.0,
           part->restarts.count, TL_RESTARTS);
    part->timer = tl_actor_timer (part->supervisor->actor, (size_t)wait, 1, s_on_restart, part);
    return true;
}

//  A broker that was killed is started again and the run goes on where it was saved. Any other end of it is the run's:
//  either it told the other parts, or they are told now.
static void
s_broker_died (tl_part_of_run_t *part, int status, const char *what, const char *why)
{
    tl_supervisor_t *self = part->supervisor;
    bool clean = WIFEXITED (status) && WEXITSTATUS (status) == 0;
    bool open = !self->over || self->serving;
    if (tl_actor_state (self->actor) == RUNNING && part->came && open &&
        s_start_later (part, status, what))
        return;
    int code = WIFEXITED (status) ? WEXITSTATUS (status) : TL_FAILED;
    char whole[1400], word[1300];
    tl_restarts_last_word (&part->restarts, status, why, self->topology, word, sizeof word);
    if (self->saved)
        snprintf (whole, sizeof whole,
                  "%.900s; the last common save is of step %lld: --resume goes on from there", word,
                  (long long)self->saved);
    else
        snprintf (whole, sizeof whole, "%.900s; there is no common save", word);
    //  Nothing but its BYE was missing
    if (self->complete && !self->serving && WIFSIGNALED (status))
        s_say (self, "%s; the run was complete", word);
    else if (!clean)
        s_fail (self, code, self->began && !self->over ? whole : word);
    self->over = true;
    s_wind_up (self, clean ? BYE_MS : 1);
}

//  The run goes on without a client; not without the trunk, or who averages it.
static bool
s_is_needed (const tl_part_of_run_t *part)
{
    return strcmp (part->role, "worker") == 0 || strcmp (part->role, "aggregator") == 0;
}

//  It was told to leave.
static void
s_left (tl_part_of_run_t *part)
{
    tl_supervisor_t *self = part->supervisor;
    s_say (self, "%s has left", part->title);
    if (!s_is_needed (part))
        return;
    char text[256];
    snprintf (text, sizeof text,
              "the %s was told to leave before the run was over; what was saved is in the run's "
              "directory",
              part->role);
    s_fail (self, TL_FAILED, text);
    s_stop (self);
}

static void
s_died (tl_part_of_run_t *part, int status)
{
    tl_supervisor_t *self = part->supervisor;
    bool worker = strcmp (part->role, "worker") == 0, exited = WIFEXITED (status);
    int code = exited ? WEXITSTATUS (status) : TL_FAILED;
    char how[128], text[1300], why[1300], word[1300];
    tl_restarts_how (status, how, sizeof how);
    snprintf (text, sizeof text, "%s %s%s%s", part->title, how, *part->last ? ": " : "",
              part->last);
    //  A last word says more than a code
    if (*part->last && exited)
        snprintf (why, sizeof why, "%s: %s", part->title, part->last);
    else
        snprintf (why, sizeof why, "%s", text);
    if (s_is_broker (part)) {
        s_broker_died (part, status, text, why);
        return;
    }
    //  Whatever the parts say after the run's end follows from it.
    if (tl_actor_state (self->actor) == STOPPING || (self->over && !(worker && self->serving)))
        return;
    if (exited && code == 0)
        s_left (part);
    else if (!s_start_later (part, status, text)) {
        //  The others go on without a client, but the first step waits for all.
        part->failed = true;
        tl_restarts_last_word (&part->restarts, status, why, self->topology, word, sizeof word);
        if (s_is_needed (part) || self->topology->client_count == 1 || !self->began) {
            s_fail_saved (self, code, word);
            s_stop (self);
        } else {
            s_say (self, "%s", word);
            s_fail (self, code, word);
        }
    }
}

static void
s_on_end (void *arg, int status)
{
    tl_part_of_run_t *part = arg;
    tl_part_of_run_t *broker = &part->supervisor->parts[0];
    //  A part that left because the broker said that the run is over: so it did before
    if (part != broker && s_is_broker (broker))
        tl_child_hear (broker->child);
    s_died (part, status);
    s_check_all (part->supervisor);
}

//  --- starting ---------------------------------------------------------------------------------

//  What a broker is to do with a run that lies there.
static const char *
s_broker_option (const tl_part_of_run_t *broker)
{
    const tl_supervisor_options_t *options = &broker->supervisor->options;
    return broker->begun || options->resume ? "--resume" : options->replace ? "--replace" : NULL;
}

static int
s_start (tl_part_of_run_t *part, tl_error_t *err)
{
    tl_supervisor_t *self = part->supervisor;
    const char **argv = tl_alloc ((21 + 2 * self->options.override_count) * sizeof *argv);
    size_t count = 0;
    char parent[32];
    snprintf (parent, sizeof parent, "%d", (int)getpid ());
    argv[count++] = "trunkline";
    argv[count++] = "run";
    argv[count++] = part->role;
    argv[count++] = self->options.topology;
    bool load = strcmp (part->role, "load") == 0;
    char first[32], clients[32];
    snprintf (first, sizeof first, "%zu", part->first + 1);
    snprintf (clients, sizeof clients, "%zu", part->clients);
    if (*part->name && !load)
        argv[count++] = part->name;
    if (load) {
        argv[count++] = "--first";
        argv[count++] = first;
        argv[count++] = "--count";
        argv[count++] = clients;
    }
    argv[count++] = "--format";
    argv[count++] = "jsonl";
    argv[count++] = "--parent";
    argv[count++] = parent;
    if (self->options.stay && s_is_broker (part))
        argv[count++] = "--stay";
    if (s_is_broker (part) && s_broker_option (part))
        argv[count++] = s_broker_option (part);
    if (s_is_broker (part) && self->options.fresh)
        argv[count++] = "--fresh";
    for (size_t i = 0; i < self->options.override_count; i++) {
        argv[count++] = "--set";
        argv[count++] = self->options.overrides[i];
    }
    *part->last = 0;
    tl_restarts_born (&part->restarts, tl_clock_ms ());
    int rc = tl_child_start (part->child, self->options.program, argv, part->title, err);
    free (argv);
    return rc;
}

//  Not before the broker: where another program has its ports, parts would knock there, with keys that may be good for it.
static void
s_start_others (tl_supervisor_t *self)
{
    tl_error_t err;
    if (!self->waiting || tl_actor_state (self->actor) != RUNNING)
        return;
    self->waiting = false;
    for (size_t i = 1; i < self->count; i++)
        if (s_start (&self->parts[i], &err)) {
            s_fail (self, TL_FAILED, err.text);
            s_stop (self);
            return;
        }
}

//  --- life -------------------------------------------------------------------------------------

//  NULL if it belongs elsewhere.
static tl_part_of_run_t *
s_add (tl_supervisor_t *self, const char *role, const char *name, const char *host)
{
    if (strcmp (host, "localhost") != 0) {
        s_say (self, "%s%s%s belongs on %s: start it there with `trunkline run %s %s%s%s`%s", role,
               *name ? " " : "", name, host, role, self->options.topology, *name ? " " : "", name,
               self->options.override_count ? " and the same --set" : "");
        return NULL;
    }
    tl_part_of_run_t *part = &self->parts[self->count++];
    *part = (tl_part_of_run_t){.supervisor = self, .role = role, .name = name};
    part->child = tl_child_new (&(tl_child_config_t){.actor = self->actor,
                                                     .on_out = s_on_event_line,
                                                     .on_err = s_on_log_line,
                                                     .on_end = s_on_end,
                                                     .on_closed = s_on_closed,
                                                     .arg = part});
    snprintf (part->title, sizeof part->title, "%s%s%s", role, *name ? "/" : "", name);
    return part;
}

//  Synthetic clients share few processes: those of one entry of the file, in up to MOST_LOADS.
static void
s_add_clients (tl_supervisor_t *self)
{
    const tl_topology_t *t = self->topology;
    size_t next;
    for (size_t i = 0; i < t->client_count; i = next) {
        const tl_client_spec_t *client = &t->clients[i];
        size_t each = client->synthetic.is ? (client->count + MOST_LOADS - 1) / MOST_LOADS : 1;
        next = i + 1;
        while (next < i + each && next < t->client_count && t->clients[next].entry == client->entry)
            next++;
        tl_part_of_run_t *part = NULL;
        if (client->synthetic.is && strcmp (client->host, "localhost") != 0)
            s_say (self,
                   "clients from %s belong on %s: start them there with `trunkline run load %s "
                   "--first %zu --count %zu`",
                   client->name, client->host, self->options.topology, i + 1, next - i);
        else
            part =
                s_add (self, client->synthetic.is ? "load" : "client", client->name, client->host);
        if (part) {
            part->first = i;
            part->clients = next - i;
        }
    }
}

//  What every part here would say of its own is said once, before anything runs.
static int
s_check_keys (const tl_supervisor_t *self, tl_error_t *err)
{
    int rc = 0;
    for (size_t i = 0; i < self->count && rc == 0; i++) {
        const tl_part_of_run_t *part = &self->parts[i];
        if (!part->clients)
            rc = tl_credentials_check (self->topology, part->role, part->name, err);
        for (size_t k = 0; k < part->clients && rc == 0; k++)
            rc = tl_credentials_check (self->topology, "client",
                                       self->topology->clients[part->first + k].name, err);
    }
    return rc;
}

static int
s_open (tl_supervisor_t *self, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    char *directory = tl_format ("%s/%s", t->checkpoint.dir, t->name);
    char *path = tl_format ("%s/trunkline.log", directory);
    int rc = tl_mkdirs (directory, err);
    if (rc == 0 && !(self->log = fopen (path, "ae")))
        rc = tl_fail (err, TL_BAD_INPUT, "%s can't be written: %s; choose another checkpoint.dir",
                      path, strerror (errno));
    free (directory);
    free (path);
    if (rc)
        return -1;
    self->parts = tl_alloc ((2 + t->worker_count + t->client_count) * sizeof *self->parts);
    s_add (self, "broker", "", t->broker.host);
    if (tl_topology_aggregates (t))
        s_add (self, "aggregator", "", t->aggregator.host);
    for (size_t i = 0; i < t->worker_count; i++)
        s_add (self, "worker", t->workers[i].name, t->workers[i].host);
    s_add_clients (self);
    if (!self->count)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: nothing in it belongs on this machine: every host is another; start "
                        "single parts with `trunkline run`",
                        t->source);
    rc = s_check_keys (self, err);
    self->waiting = s_is_broker (&self->parts[0]);
    for (size_t i = 0; i < (self->waiting ? 1 : self->count) && rc == 0; i++)
        rc = s_start (&self->parts[i], err);
    if (rc)
        s_signal_all (self, SIGKILL);
    return rc;
}

int
tl_supervisor_run (const tl_topology_t *topology, const tl_supervisor_options_t *options,
                   tl_error_t *err)
{
    tl_supervisor_t *self = tl_alloc (sizeof *self);
    self->topology = topology;
    self->options = *options;
    self->actor = tl_actor_new ("up", s_states, s_on_stop, self);
    int code = s_open (self, err) == 0 ? tl_actor_run (self->actor, err) : (int)err->code;
    if (self->code && code == self->code)
        tl_fail (err, (tl_code_t)self->code, "%s", self->text);
    s_signal_all (self, SIGKILL); //  a second signal leaves no time
    for (size_t i = 0; i < self->count; i++)
        tl_child_destroy (&self->parts[i].child);
    free (self->parts);
    if (self->log)
        fclose (self->log);
    tl_actor_destroy (&self->actor);
    free (self);
    return code;
}
