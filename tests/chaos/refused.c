/*  Whoever may not take part is refused with a sentence: strangers, keys in the wrong role, peers that speak
    something else, parts that disagree with the broker; and files and ports that can't be used. The run goes
    on.                                                                                             */

#include "chaos/stage.h"

#include "actors/broker.h"
#include "file.h"
#include "memory.h"
#include "net/keys.h"
#include "ports.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

static case_spec_t
s_case (size_t sites, uint64_t steps)
{
    static char settings[512];
    snprintf (settings, sizeof settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.05}\n"
              "train: {steps: %d, batch_size: 8, micros: 2, max_length: 64, lr: 2e-3, warmup: 3}\n"
              "wire: {dtype: fp32}\nliveness: {ping_ms: 300, expire_ms: 3000}\n",
              (int)steps);
    return (case_spec_t){.model = tiny_llama (false),
                         .sites = sites,
                         .examples = 16,
                         .letters = {40, 24, 12},
                         .steps = steps,
                         .save_every = 5,
                         .settings = settings};
}

//  Expects the part to end with that code and a sentence that has these words.
static void
s_ends (const stage_t *stage, part_t *part, int code, const char *words)
{
    int got = part_wait (part);
    if (got != code || !strstr (part_err (part), words))
        stage_fail (stage, "expected code %d and \"%s\", got code %d", code, words, got);
}

static size_t
s_lines_with (const char *text, const char *words)
{
    size_t count = 0;
    for (const char *at = text; (at = strstr (at, words)); at++)
        count++;
    return count;
}

//  The same, and says it once.
static void
s_ends_once (const stage_t *stage, part_t *part, int code, const char *words)
{
    s_ends (stage, part, code, words);
    stage_check (stage, s_lines_with (part_err (part), words) == 1, "the sentence once");
}

static char *
s_path (const stage_t *stage, const char *name)
{
    return tl_format ("%s/%s", stage_case (stage)->directory, name);
}

//  The pair of from_role.from becomes that of role.name in another directory of keys.
static void
s_copy_key (const stage_t *stage, const char *from_role, const char *from, const char *role,
            const char *name, const char *directory)
{
    char *command = tl_format ("cd %s && for x in key secret; do "
                               "sed 's/%s/%s/; s/%s/%s/' keys/%s.%s.$x > %s/%s.%s.$x || exit 1; "
                               "chmod 600 %s/%s.%s.$x; done",
                               stage_case (stage)->directory, from_role, role, from, name,
                               from_role, from, directory, role, name, directory, role, name);
    stage_check (stage, system (command) == 0, command);
    free (command);
}

static int64_t
s_refused (stage_t *stage, const char *kind)
{
    part_t *status = stage_verb (stage, "status", "--format", "json", NULL);
    stage_check (stage, part_wait (status) == 0, "status answers");
    json_error_t error;
    json_t *report = json_loads (part_out (status), 0, &error);
    json_int_t count =
        json_integer_value (json_object_get (json_object_get (report, "refused"), kind));
    json_decref (report);
    return count;
}

static int
s_port (const char *endpoint)
{
    return atoi (strrchr (endpoint, ':') + 1);
}

//  --- keys

//  A keys directory of its own, with the broker's public key in it; the caller frees.
static char *
s_directory (const stage_t *stage, const char *name)
{
    char *path = s_path (stage, name);
    char *command = tl_format ("mkdir -m 700 -p %s && cp %s/keys/broker.broker.key %s/", path,
                               stage_case (stage)->directory, path);
    stage_check (stage, system (command) == 0, command);
    free (command);
    return path;
}

static void
s_make_keys (stage_t *stage)
{
    s_ends (stage, stage_up (stage, "--set", "train.steps=1", NULL), 0, "made");
}

//  An unknown key; a client's key as a worker's, and a worker's as a client's; none at all. Then the real one comes, and the
//  run goes its way.
static void
s_keys (void)
{
    case_spec_t spec = s_case (2, 5);
    stage_t *stage = stage_new (&spec);
    s_make_keys (stage);
    part_t *broker = stage_run (stage, "broker", NULL, NULL);
    part_t *site_0 = stage_run (stage, "client", "site-0", NULL);
    part_event (site_0, "ready", NULL, 0);
    tl_error_t err;
    char *strange = s_directory (stage, "strange"), *wrong = s_directory (stage, "wrong");
    char *set_strange = tl_format ("keys=%s", strange), *set_wrong = tl_format ("keys=%s", wrong);
    stage_check (stage, tl_keys_make (strange, "client", "site-1", &err) == 0, "a pair");
    s_ends (stage, stage_run (stage, "client", "site-1", "--set", set_strange, NULL), 2,
            "refused the key");
    tl_key_t *keys;
    size_t count;
    stage_check (stage, tl_keys_list (strange, &keys, &count, &err) == 0, "the stranger's key");
    for (size_t i = 0; i < count; i++)
        if (strcmp (keys[i].role, "client") == 0)
            part_log (broker, keys[i].fingerprint);
    free (keys);
    stage_check (stage, s_refused (stage, "unknown_key") >= 1, "an unknown key is counted");

    s_copy_key (stage, "client", "site-0", "worker", "trunk", "wrong");
    s_copy_key (stage, "worker", "trunk", "client", "site-1", "wrong");
    s_ends (stage, stage_run (stage, "worker", "trunk", "--set", set_wrong, NULL), 2, "refused");
    s_ends (stage, stage_run (stage, "client", "site-1", "--set", set_wrong, NULL), 2, "refused");
    stage_check (stage, s_refused (stage, "wrong_role") >= 2, "keys in wrong roles are counted");
    part_log (broker, "has no business on the workers socket");
    s_ends (stage, stage_run (stage, "client", "site-1", "--set", "keys=nowhere", NULL), 4,
            "nowhere");

    part_t *worker = stage_run (stage, "worker", "trunk", NULL);
    part_t *site_1 = stage_run (stage, "client", "site-1", NULL);
    part_log (worker, "admitted by the broker at tcp://127.0.0.1:");
    part_log (site_1, "admitted by the broker at tcp://127.0.0.1:");
    stage_check (stage,
                 part_wait (site_0) == 0 && part_wait (site_1) == 0 && part_wait (worker) == 0 &&
                     part_wait (broker) == 0,
                 "code 0 of all");
    free (set_strange);
    free (set_wrong);
    free (strange);
    free (wrong);
    stage_end (&stage);
}

//  A copy of the broker's public key that isn't its key (any more): who has it ends with what to do, soon, and the broker
//  tells it from plain text, once for each of its sockets.
static void
s_other_key (void)
{
    static const char sentence[] = "holds another key than";
    case_spec_t spec = s_case (2, 5);
    stage_t *stage = stage_new (&spec);
    s_make_keys (stage);
    part_t *broker = stage_run (stage, "broker", NULL, NULL);
    part_t *site_0 = stage_run (stage, "client", "site-0", NULL);
    part_event (site_0, "ready", NULL, 0);
    char *old = s_path (stage, "old"), *set = tl_format ("keys=%s", old);
    char *command = tl_format ("cp -r %s/keys %s && rm %s/broker.broker.*",
                               stage_case (stage)->directory, old, old);
    tl_error_t err;
    stage_check (stage, system (command) == 0, command);
    stage_check (stage, tl_keys_make (old, "broker", "broker", &err) == 0, "another pair");
    int64_t began = stage_ms ();
    part_t *parts[] = {stage_run (stage, "client", "site-1", "--set", set, NULL),
                       stage_run (stage, "worker", "trunk", "--set", set, NULL),
                       stage_verb (stage, "status", "--set", set, NULL),
                       stage_verb (stage, "down", "--set", set, NULL),
                       stage_verb (stage, "generate", "--live", "--site", "site-0", "--prompt",
                                   "word", "--set", set, NULL)};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        s_ends (stage, parts[i], 2, sentence);
        stage_check (stage, strstr (part_err (parts[i]), "old/broker.broker.key") != NULL,
                     "the file by name");
    }
    stage_check (stage, stage_ms () - began < 10000, "the end within seconds");
    //  Each said its first word three times at least
    stage_check (stage, s_refused (stage, "other_broker") >= 15, "they are counted");
    //  Who had enough on one of its sockets may have hung up in the middle of a handshake on the other
    stage_check (stage, s_refused (stage, "plain_text") <= 5, "and not as plain text");
    part_log (broker, "it takes another key for this broker's");

    part_t *worker = stage_run (stage, "worker", "trunk", NULL);
    part_t *site_1 = stage_run (stage, "client", "site-1", NULL);
    stage_check (stage,
                 part_wait (site_0) == 0 && part_wait (site_1) == 0 && part_wait (worker) == 0 &&
                     part_wait (broker) == 0,
                 "code 0 of all");
    //  One line at once for each socket, and a number at the end
    stage_check (stage, s_lines_with (part_err (broker), "it takes another key") <= 6,
                 "a line a socket and a number behind, not one a connection");
    stage_check (stage, strstr (part_err (broker), "more in the last") != NULL, "a number");
    free (command);
    free (set);
    free (old);
    stage_end (&stage);
}

//  A broker without its ZAP handler lets nobody in, whatever key they have.
static void
s_no_zap (void)
{
    case_spec_t spec = s_case (1, 5);
    stage_t *stage = stage_new (&spec);
    s_make_keys (stage);
    pid_t broker = fork ();
    if (broker == 0) {
        tl_error_t err;
        tl_broker_options_t options = {.no_zap = true};
        prctl (PR_SET_PDEATHSIG, SIGKILL);
        _exit (tl_broker_run (stage_case (stage)->topology, &options, &err));
    }
    part_t *worker = stage_run (stage, "worker", "trunk", NULL);
    part_t *client = stage_run (stage, "client", "site-0", NULL);
    part_log (client, "waiting for the broker");
    part_log (worker, "waiting for the broker");
    part_t *status = stage_verb (stage, "status", NULL);
    stage_check (stage, part_wait (status) != 0, "no answer for an administrator");
    stage_check (stage, part_count (client, "ready") == 0 && part_count (worker, "ready") == 0,
                 "no session for anybody");
    part_kill (client, SIGTERM);
    part_kill (worker, SIGTERM);
    stage_check (stage, part_wait (client) == 0 && part_wait (worker) == 0, "code 0");
    kill (broker, SIGTERM);
    int code;
    stage_check (stage, waitpid (broker, &code, 0) == broker && WIFEXITED (code), "its end");
    stage_end (&stage);
}

//  --- peers that show no key

static void
s_send_garbage (int port, const char *bytes, size_t size)
{
    int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons ((uint16_t)port),
                                  .sin_addr.s_addr = htonl (INADDR_LOOPBACK)};
    if (connect (fd, (struct sockaddr *)&address, sizeof address) == 0) {
        ssize_t put = send (fd, bytes, size, MSG_NOSIGNAL);
        char answer[256];
        //  Until the broker closes it
        while (put > 0 && recv (fd, answer, sizeof answer, 0) > 0)
            ;
    }
    close (fd);
}

static void
s_plain (void)
{
    case_spec_t spec = s_case (1, 100000);
    stage_t *stage = stage_new (&spec);
    const tl_topology_t *t = stage_case (stage)->topology;
    part_t *up = stage_up (stage, NULL);
    part_event (up, "closed", "step", 2);
    //  A ZeroMQ peer without CURVE, which says something that would be HELLO
    const char *const endpoints[] = {t->broker.control, t->broker.clients, t->broker.workers};
    void *context = zmq_ctx_new ();
    void *sockets[3];
    for (int i = 0; i < 3; i++) {
        int linger = 0;
        sockets[i] = zmq_socket (context, ZMQ_DEALER);
        zmq_setsockopt (sockets[i], ZMQ_LINGER, &linger, sizeof linger);
        zmq_connect (sockets[i], endpoints[i]);
        zmq_send (sockets[i], "HELLO", 5, 0);
        part_log (up, "it showed no key");
    }
    for (int i = 0; i < 3; i++)
        zmq_close (sockets[i]);
    zmq_ctx_term (context);
    //  And what is no ZeroMQ at all
    char garbage[4096];
    for (size_t i = 0; i < sizeof garbage; i++)
        garbage[i] = (char)(i * 37 + 11);
    static const char http[] = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";
    s_send_garbage (s_port (t->broker.control), http, sizeof http - 1);
    s_send_garbage (s_port (t->broker.clients), garbage, sizeof garbage);
    s_send_garbage (s_port (t->broker.workers), garbage, 11);
    stage_check (stage, s_refused (stage, "plain_text") >= 4, "they are counted");
    int64_t now = part_int (part_event (up, "closed", NULL, 0), "step");
    part_event (up, "closed", "step", now + 5);
    part_kill (up, SIGTERM);
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_end (&stage);
}

//  --- agreements

//  A copy of the case's model of which one byte of a tensor is another, the one at that part of its bytes.
static char *
s_other_weights (const stage_t *stage, const char *name, const char *tensor, double part)
{
    char *other = s_path (stage, name), *path = tl_format ("%s/model.safetensors", other);
    const char *directory = stage_case (stage)->directory;
    char *copy = tl_format ("mkdir %s && cp %s/*.json %s/*.model %s/*.safetensors %s/", other,
                            directory, directory, directory, other);
    stage_check (stage, system (copy) == 0, copy);
    tl_error_t err;
    size_t size;
    char *bytes = tl_file_read (path, 1 << 26, &size, &err);
    stage_check (stage, bytes != NULL, "the model's file");
    uint64_t head;
    memcpy (&head, bytes, sizeof head);
    json_error_t error;
    json_t *header = json_loadb (bytes + 8, head, 0, &error);
    json_t *offsets = json_object_get (json_object_get (header, tensor), "data_offsets");
    stage_check (stage, json_array_size (offsets) == 2, tensor);
    double first = json_number_value (json_array_get (offsets, 0));
    double last = json_number_value (json_array_get (offsets, 1));
    bytes[8 + head + (size_t)(first + part * (last - first))] ^= 1;
    stage_check (stage, tl_file_write (path, bytes, size, 0644, &err) == 0, "another model");
    json_decref (header);
    free (bytes);
    free (copy);
    free (path);
    return other;
}

//  The same names and shapes with other weights: of a checkpoint that was trained further, one byte stands for it. What the
//  others hold is compared as well as can be by who holds nothing of it.
static void
s_other_models (void)
{
    static const char trunk[] = "model.layers.2.self_attn.q_proj.weight";
    case_spec_t spec = s_case (2, 5);
    stage_t *stage = stage_new (&spec);
    s_make_keys (stage);
    part_t *broker = stage_run (stage, "broker", NULL, NULL);
    part_t *site_0 = stage_run (stage, "client", "site-0", NULL);
    part_event (site_0, "ready", NULL, 0);
    part_t *worker = stage_run (stage, "worker", "trunk", NULL);
    part_event (worker, "ready", NULL, 0);
    part_kill (worker, SIGTERM);
    stage_check (stage, part_wait (worker) == 0, "code 0");
    static const struct {
        const char *role, *name, *tensor;
        double part;
        const char *words;
    } cases[] = {
        {"client", "site-1", "model.embed_tokens.weight", 0.5, "model.ends is"},
        {"client", "site-1", "lm_head.weight", 0.5, "model.ends is"},
        {"client", "site-1", trunk, 0, "model.weights is"},
        {"worker", "trunk", trunk, 0.5, "model.trunk is"},
        {"worker", "trunk", "lm_head.weight", 0, "model.weights is"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32];
        snprintf (name, sizeof name, "other-%zu", i);
        char *other = s_other_weights (stage, name, cases[i].tensor, cases[i].part);
        char *set = tl_format ("model.path=%s", other);
        part_t *part = stage_run (stage, cases[i].role, cases[i].name, "--set", set, NULL);
        s_ends (stage, part, 2, cases[i].words);
        stage_check (stage, strstr (part_err (part), "the files under model.path differ") != NULL,
                     "what to do");
        free (set);
        free (other);
    }
    //  A copy of the same is the same
    char *command = tl_format ("cd %s && mkdir same && cp *.json *.model *.safetensors same/ && "
                               "ls runs/case/site-1/weights.hash",
                               stage_case (stage)->directory);
    stage_check (stage, system (command) == 0, command);
    char *same = s_path (stage, "same"), *set = tl_format ("model.path=%s", same);
    worker = stage_run (stage, "worker", "trunk", NULL);
    part_t *site_1 = stage_run (stage, "client", "site-1", "--set", set, NULL);
    stage_check (stage,
                 part_wait (site_0) == 0 && part_wait (site_1) == 0 && part_wait (worker) == 0 &&
                     part_wait (broker) == 0,
                 "code 0 of all");
    free (set);
    free (same);
    free (command);
    stage_end (&stage);
}

//  One field that differs: refused with the field and both values, code 2, and the run is not touched.
static void
s_disagree (void)
{
    static const struct {
        const char *role, *name, *set, *words;
    } cases[] = {
        {"client", "site-1", "split.tail=2", "split.tail is 1 at the broker and 2 at site-1"},
        {"worker", "trunk", "split.front=2", "split.front is 1 at the broker and 2 at trunk"},
        {"client", "site-1", "tune.rank=8", "tune.rank is 4 at the broker and 8 at site-1"},
        {"client", "site-1", "wire.dtype=bf16",
         "wire.dtype is fp32 at the broker and bf16 at site-1"},
        {"client", "site-1", "train.seed=77", "train.seed is 1 at the broker and 77 at site-1"},
        {"client", "site-1", "train.lr=1e-5",
         "train.lr is 0.002 at the broker and 1e-05 at site-1"},
        {"client", "site-1", "tune.freeze=blocks.0,blocks.2",
         "tune.freeze is nothing at the broker and blocks.0,blocks.2 at site-1"},
        {"worker", "trunk", "tune.rslora=true", "tune.rslora is false at the broker and true at"},
        {"client", "site-1", "train.schedule=cosine",
         "train.schedule is linear at the broker and cosine at site-1"},
        {"client", "site-1", "train.lr_min=1e-5",
         "train.lr_min is 0 at the broker and 1e-05 at site-1"},
        {"client", "site-1", "train.steps=7", "train.steps is"},
    };
    case_spec_t spec = s_case (2, 5);
    stage_t *stage = stage_new (&spec);
    s_make_keys (stage);
    part_t *broker = stage_run (stage, "broker", NULL, NULL);
    part_t *site_0 = stage_run (stage, "client", "site-0", NULL);
    part_event (site_0, "ready", NULL, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        s_ends (stage, stage_run (stage, cases[i].role, cases[i].name, "--set", cases[i].set, NULL),
                2, cases[i].words);
    //  Another model, and another tokenizer
    const char *directory = stage_case (stage)->directory;
    char *other = s_path (stage, "other"), *set = tl_format ("model.path=%s", other);
    char *copy = tl_format ("mkdir %s && cp %s/*.json %s/*.model %s/*.safetensors %s/ && "
                            "sed -i 's/1e-0[56]/1e-07/' %s/config.json",
                            other, directory, directory, directory, other, other);
    stage_check (stage, system (copy) == 0, copy);
    s_ends (stage, stage_run (stage, "client", "site-1", "--set", set, NULL), 2, "model is");
    char *tokenizer = tl_format ("cp %s/config.json %s/ && printf '\\220\\003\\001' >> "
                                 "%s/tokenizer.model",
                                 directory, other, other);
    stage_check (stage, system (tokenizer) == 0, tokenizer);
    s_ends (stage, stage_run (stage, "client", "site-1", "--set", set, NULL), 2, "tokenizer is");
    free (set);
    free (tokenizer);
    free (other);
    free (copy);

    part_t *worker = stage_run (stage, "worker", "trunk", NULL);
    part_t *site_1 = stage_run (stage, "client", "site-1", NULL);
    stage_check (stage,
                 part_wait (site_0) == 0 && part_wait (site_1) == 0 && part_wait (worker) == 0 &&
                     part_wait (broker) == 0,
                 "code 0 of all");
    stage_end (&stage);
}

//  Who means another run than the broker's, which has the same addresses, doesn't get it: neither its figures nor its end.
static void
s_other_run (void)
{
    static const char sentence[] = "its run is 'case' and you mean 'other'";
    case_spec_t spec = s_case (1, 100000);
    stage_t *stage = stage_new (&spec);
    //  An aggregator's key as well
    char *make = tl_format ("%s keys make %s --set federate.clients=average >&2",
                            getenv ("TRUNKLINE"), stage_case (stage)->yaml);
    stage_check (stage, system (make) == 0, make);
    free (make);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "closed", "step", 2);
    s_ends (stage, stage_verb (stage, "status", "--set", "name=other", NULL), 2, sentence);
    s_ends (stage, stage_verb (stage, "down", "--set", "name=other", NULL), 2, sentence);
    s_ends (stage, stage_run (stage, "client", "site-0", "--set", "name=other", NULL), 2, sentence);
    s_ends (stage, stage_run (stage, "worker", "trunk", "--set", "name=other", NULL), 2, sentence);
    s_ends (stage, stage_run (stage, "aggregator", NULL, "--set", "federate.clients=average", NULL),
            2, "its run has no aggregator, because nothing is averaged with its settings");
    char *left = s_path (stage, "runs/other"), *its = s_path (stage, "runs/case/aggregator");
    stage_check (stage, !tl_exists (left) && !tl_exists (its), "nothing left of who was refused");
    free (left);
    free (its);
    int64_t now = part_int (part_event (up, "closed", NULL, 0), "step");
    part_event (up, "closed", "step", now + 5);
    s_ends (stage, stage_verb (stage, "down", NULL), 0, "");
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_end (&stage);
}

//  --- files, ports and numbers

static void
s_port_in_use (void)
{
    case_spec_t spec = s_case (1, 5);
    stage_t *stage = stage_new (&spec);
    int port, fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    tests_ports (&port, 1);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons ((uint16_t)port),
                                  .sin_addr.s_addr = htonl (INADDR_LOOPBACK)};
    stage_check (stage,
                 bind (fd, (struct sockaddr *)&address, sizeof address) == 0 && listen (fd, 1) == 0,
                 "a port");
    char *set = tl_format ("broker.clients=tcp://127.0.0.1:%d", port);
    int64_t began = stage_ms ();
    s_ends (stage, stage_up (stage, "--set", set, NULL), 4, "is already in use");
    stage_check (stage, stage_ms () - began < 8000, "the end within seconds");
    close (fd);
    free (set);
    stage_end (&stage);
}

//  Another `up` of a running one, or on its ports, ends with a sentence, and the running one doesn't notice.
static void
s_second_up (void)
{
    static const char *const kinds[] = {"unknown_key", "wrong_role", "plain_text", "other_broker"};
    case_spec_t spec = s_case (2, 100000);
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "closed", "step", 2);
    for (int i = 0; i < 3; i++) {
        s_ends (stage, stage_up (stage, NULL), 4, "is in use by another process");
        s_ends (stage, stage_up (stage, "--set", "name=other", NULL), 4, "is already in use");
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        stage_check (stage, s_refused (stage, kinds[i]) == 0, kinds[i]);
    stage_check (stage, !strstr (part_err (up), "refused"), "nobody to refuse");
    int64_t now = part_int (part_event (up, "closed", NULL, 0), "step");
    part_event (up, "closed", "step", now + 5);
    part_kill (up, SIGTERM);
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_end (&stage);
}

static void
s_files (void)
{
    case_spec_t spec = s_case (2, 5);
    stage_t *stage = stage_new (&spec);
    s_ends (stage, stage_up (stage, NULL), 0, "");
    //  A secret that others can read
    char *secret = s_path (stage, "keys/client.site-0.secret");
    chmod (secret, 0644);
    s_ends_once (stage, stage_up (stage, NULL), 4, "chmod 600");
    part_t *site = stage_run (stage, "client", "site-0", NULL);
    s_ends_once (stage, site, 4, "chmod 600");
    stage_check (stage, part_count (site, "plan") == 0, "keys before plans");
    chmod (secret, 0600);
    free (secret);
    secret = s_path (stage, "keys/broker.broker.secret");
    chmod (secret, 0640);
    s_ends_once (stage, stage_up (stage, NULL), 4, "chmod 600");
    chmod (secret, 0600);
    free (secret);
    //  A directory that can't be made, for root either
    s_ends (stage, stage_up (stage, "--set", "checkpoint.dir=/proc/nowhere", NULL), 4,
            "/proc/nowhere");
    //  One site's text is broken: the run ends before it begins, and says whose
    char *data = s_path (stage, "1.jsonl");
    tl_error_t err;
    stage_check (stage, tl_file_write (data, "{\"prompt\": 1\n", 13, 0644, &err) == 0,
                 "broken text");
    s_ends_once (stage, stage_up (stage, NULL), 4, "1.jsonl");
    free (data);
    stage_end (&stage);
}

//  The supervisor's directory can be written and a part's can't: that part says so.
static void
s_part_directory (void)
{
    case_spec_t spec = s_case (1, 5);
    stage_t *stage = stage_new (&spec);
    static const char *const parts[] = {"broker", "site-0", "trunk"};
    for (size_t i = 0; i < 3; i++) {
        char *runs = s_path (stage, "runs/case"), *path = tl_format ("%s/%s", runs, parts[i]);
        tl_error_t err;
        tl_remove_tree (runs);
        stage_check (stage, tl_mkdirs (runs, &err) == 0, "a directory");
        stage_check (stage, tl_file_write (path, "", 0, 0644, &err) == 0, "a file in its place");
        s_ends (stage, stage_up (stage, NULL), 4, parts[i]);
        free (runs);
        free (path);
    }
    stage_end (&stage);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {
        {"keys", s_keys},
        {"other_key", s_other_key},
        {"no_zap", s_no_zap},
        {"plain", s_plain},
        {"disagree", s_disagree},
        {"other_run", s_other_run},
        {"other_models", s_other_models},
        {"port_in_use", s_port_in_use},
        {"second_up", s_second_up},
        {"files", s_files},
        {"part_directory", s_part_directory},
        {NULL, NULL},
    };
    return stage_main (argc, argv, tests);
}
