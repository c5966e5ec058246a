//  schema_table: the rows. A new key of a topology is a line here and a field in topology.h.

#include "schema.h"

#include <float.h>
#include <stdint.h>

#define OF(field) offsetof (tl_topology_t, field)
#define OF_WORKER(field) offsetof (tl_worker_spec_t, field)
#define OF_CLIENT(field) offsetof (tl_client_spec_t, field)

#define BELOW_ONE (1.0 - DBL_EPSILON)
#define COUNTED 9007199254740992.0 //  2^53: whole numbers that a double can bound exactly

static const tl_choice_t s_version[] = {{"1", 0, NULL}, {NULL, 0, NULL}};

static const tl_choice_t s_model_dtypes[] = {
    {"stored", TL_MODEL_STORED, NULL},
    {"fp32", TL_MODEL_F32, NULL},
    {"bf16", TL_MODEL_BF16, NULL},
    {"fp16", 0, "products in fp16 are not in this version; use bf16, or leave the key out"},
    {NULL, 0, NULL}};

static const tl_choice_t s_methods[] = {{"lora", TL_METHOD_LORA, NULL},
                                        {"full", TL_METHOD_FULL, NULL},
                                        {"ptuning", TL_METHOD_PTUNING, NULL},
                                        {NULL, 0, NULL}};

static const tl_choice_t s_parts[] = {{"front", TL_PART_FRONT, NULL},
                                      {"trunk", TL_PART_TRUNK, NULL},
                                      {"tail", TL_PART_TAIL, NULL},
                                      {NULL, 0, NULL}};

static const tl_choice_t s_yes_no[] = {
    {"true", true, NULL}, {"false", false, NULL}, {NULL, 0, NULL}};

static const tl_choice_t s_splits[] = {{"none", true, NULL}, {NULL, 0, NULL}};

static const tl_choice_t s_schedules[] = {{"linear", TL_RATE_LINEAR, NULL},
                                          {"cosine", TL_RATE_COSINE, NULL},
                                          {"constant", TL_RATE_CONSTANT, NULL},
                                          {NULL, 0, NULL}};

static const tl_choice_t s_modes[] = {{"batch", TL_MODE_BATCH, NULL},
                                      {"serial", TL_MODE_SERIAL, NULL},
                                      {"fanout", TL_MODE_FANOUT, NULL},
                                      {"auto", TL_MODE_AUTO, NULL},
                                      {NULL, 0, NULL}};

static const tl_choice_t s_joins[] = {
    {"all", false, NULL}, {"window", true, NULL}, {NULL, 0, NULL}};

static const tl_choice_t s_federations[] = {{"personal", TL_CLIENTS_PERSONAL, NULL},
                                            {"average", TL_CLIENTS_AVERAGE, NULL},
                                            {"sync", TL_CLIENTS_SYNC, NULL},
                                            {NULL, 0, NULL}};

static const tl_choice_t s_servers[] = {{"none", TL_SERVER_NONE, NULL},
                                        {"avgm", TL_SERVER_AVGM, NULL},
                                        {"adam", TL_SERVER_ADAM, NULL},
                                        {NULL, 0, NULL}};

static const tl_choice_t s_wires[] = {{"fp32", TL_WIRE_F32, NULL},
                                      {"bf16", TL_WIRE_BF16, NULL},
                                      {"fp16", TL_WIRE_F16, NULL},
                                      {"int8", 0, "not in this version; use bf16"},
                                      {NULL, 0, NULL}};

static const tl_choice_t s_zero[] = {{"0", 0, NULL}, {"0.0", 0, NULL}, {NULL, 0, NULL}};

#define ADDRESS_EXPECTED "an address like tcp://127.0.0.1:5570 with a port from 1 to 65535"
#define NAME_EXPECTED "a name of at most 32 letters, digits, - and _"

static const tl_setting_t s_keys[] = {
    {"version", TL_SETTING_ONLY, 0, 0, 0, NULL, "1", "1", "version of this file's format",
     s_version},
    {"name", TL_SETTING_NAME, OF (name), 0, 0, NULL, NAME_EXPECTED, "my-run",
     "name of the run; it is saved under checkpoint.dir/name", NULL},

    {"model", TL_SETTING_SECTION, 0, 0, 0, NULL, "a mapping with the key path",
     "{path: models/tiny-glm}", "the checkpoint to tune", NULL},
    {"model.path", TL_SETTING_TEXT, OF (model.path), 0, 0, "", "a directory or a file",
     "models/tiny-glm",
     "Hugging Face directory (config.json, *.safetensors, tokenizer) or GGUF file", NULL},
    {"model.dtype", TL_SETTING_CHOICE, OF (model.dtype), 0, 0, "stored", "stored, fp32 or bf16",
     NULL,
     "frozen weights in memory: as stored, or expanded to fp32; or bf16 with products in bf16, "
     "where the processor has "
     "instructions for it",
     s_model_dtypes},
    {"model.synthetic", TL_SETTING_OPTION, OF (model.synthetic), 0, 0, "{}",
     "a mapping with the key hidden", "{hidden: 256}",
     "no model: all parts wait instead of computing, to load a broker or to try schedules", NULL},
    {"model.synthetic.hidden", TL_SETTING_COUNT, OF (model.hidden), 1, 1048576, "256",
     "a whole number from 1 to 1048576", NULL, "columns of the rows that cross the cuts", NULL},

    {"split", TL_SETTING_SECTION, OF (split.none), 0, 0, "{}",
     "a mapping with the keys front and tail, or none", "{front: 1, tail: 1}",
     "where the model is cut; none: each client has all of it and only adapters travel (FedAvg)",
     s_splits},
    {"split.front", TL_SETTING_COUNT, OF (split.front), 0, 4096, "1",
     "a number of blocks from 0 to 4096", NULL,
     "blocks after the embedding that stay at the client", NULL},
    {"split.tail", TL_SETTING_COUNT, OF (split.tail), 0, 4096, "1",
     "a number of blocks from 0 to 4096", NULL, "blocks before the head that stay at the client",
     NULL},

    {"tune", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with keys like method and rank",
     "{method: lora, rank: 8}", "what is trained", NULL},
    {"tune.method", TL_SETTING_CHOICE, OF (tune.method), 0, 0, "lora", "lora, full or ptuning",
     NULL, "low-rank adapters, every weight, or a prefix of keys and values (P-tuning v2)",
     s_methods},
    {"tune.rank", TL_SETTING_COUNT, OF (tune.rank), 1, 1024, "8", "a whole number from 1 to 1024",
     NULL, "rank of the LoRA factors", NULL},
    {"tune.prefix", TL_SETTING_COUNT, OF (tune.prefix), 1, 4096, "128",
     "a whole number from 1 to 4096", NULL,
     "P-tuning: rows in front of every block's keys and values", NULL},
    {"tune.alpha", TL_SETTING_REAL, OF (tune.alpha), DBL_MIN, 1e6, "16",
     "a number above 0, at most 1e6", NULL, "LoRA's strength: its update is scaled by alpha / rank",
     NULL},
    {"tune.rslora", TL_SETTING_FLAG, OF (tune.rslora), 0, 0, "false", "true or false", NULL,
     "LoRA's update is scaled by alpha / sqrt (rank) instead", s_yes_no},
    {"tune.dropout", TL_SETTING_REAL, OF (tune.dropout), 0, BELOW_ONE, "0.05",
     "a number from 0 to below 1", NULL, "share of a LoRA input that is dropped in training", NULL},
    {"tune.targets", TL_SETTING_TARGETS, OF (tune), 0, 0, "", "a list of at most 8 module names",
     "[query_key_value]", "linears that get an adapter; left out: the family's usual ones", NULL},
    {"tune.freeze", TL_SETTING_FREEZE, OF (tune), 0, 0, "",
     "a list of at most 16 of embedding, head, norms, biases, blocks.2-5 and patterns of tensor "
     "names",
     "[embedding, blocks.0-3, '*.mlp.*']",
     "what is not trained; with lora: blocks without an adapter", NULL},
    {"tune.parts", TL_SETTING_PARTS, OF (tune.parts), 0, 0, "front,trunk,tail",
     "a list of front, trunk and tail", NULL, "parts that are trained; the others stay frozen",
     s_parts},

    {"train", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with keys like steps and lr",
     "{steps: 200, lr: 2e-4}", "how it is trained", NULL},
    {"train.steps", TL_SETTING_COUNT, OF (train.steps), 0, COUNTED, "100",
     "a whole number of at least 0", NULL, "optimizer steps of the run", NULL},
    {"train.batch_size", TL_SETTING_COUNT, OF (train.batch_size), 1, 65536, "4",
     "a whole number from 1 to 65536", NULL, "sequences of each client in a step", NULL},
    {"train.micros", TL_SETTING_COUNT, OF (train.micros), 1, 1024, "1",
     "a whole number from 1 to 1024", NULL, "a step's sequences are computed in so many portions",
     NULL},
    {"train.max_length", TL_SETTING_COUNT, OF (train.max_length), 8, 1048576, "256",
     "a whole number from 8 to 1048576", NULL, "longest sequence in tokens; the rest is cut off",
     NULL},
    {"train.lr", TL_SETTING_REAL, OF (train.lr), 0, 1e3, "2e-4", "a number from 0 to 1000", NULL,
     "peak learning rate of AdamW", NULL},
    {"train.warmup", TL_SETTING_COUNT, OF (train.warmup), 0, COUNTED, "0",
     "a whole number of at least 0", NULL, "steps until the learning rate is reached", NULL},
    {"train.lr_min", TL_SETTING_REAL, OF (train.lr_min), 0, 1e3, "0", "a number from 0 to train.lr",
     NULL, "what linear and cosine schedules fall to at the run's end", NULL},
    {"train.schedule", TL_SETTING_CHOICE, OF (train.schedule), 0, 0, "linear",
     "linear, cosine or constant", NULL,
     "learning rate after the warm-up: falls in a line or a half wave, or stays", s_schedules},
    {"train.clip", TL_SETTING_REAL, OF (train.clip), 0, 1e9, "1.0", "a number from 0 to 1e9", NULL,
     "largest global norm of a gradient; 0: no clipping", NULL},
    {"train.weight_decay", TL_SETTING_REAL, OF (train.weight_decay), 0, 1, "0.01",
     "a number from 0 to 1", NULL, "AdamW's decoupled weight decay", NULL},
    {"train.beta1", TL_SETTING_REAL, OF (train.beta1), 0, BELOW_ONE, "0.9",
     "a number from 0 to below 1", NULL, "AdamW's average of gradients", NULL},
    {"train.beta2", TL_SETTING_REAL, OF (train.beta2), 0, BELOW_ONE, "0.999",
     "a number from 0 to below 1", NULL, "AdamW's average of squares", NULL},
    {"train.eps", TL_SETTING_REAL, OF (train.eps), DBL_MIN, 1, "1e-8",
     "a number above 0, at most 1", NULL, "AdamW's guard against division by 0", NULL},
    {"train.seed", TL_SETTING_COUNT, OF (train.seed), 0, COUNTED, "1",
     "a whole number of at least 0", NULL, "every random draw follows from it", NULL},
    {"train.memory_mb", TL_SETTING_MEGABYTES, OF (train.memory), 0, 16777216, "0",
     "a whole number from 0 to 16777216", NULL,
     "memory in MiB that one process may plan, buffers of messages apart: what would not fit is "
     "computed a second time; 0: no "
     "limit",
     NULL},

    {"schedule", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the key mode", "{mode: batch}",
     "who shares a forward", NULL},
    {"schedule.mode", TL_SETTING_CHOICE, OF (schedule.mode), 0, 0, "batch",
     "serial, batch, fanout or auto", NULL,
     "one client a step in turn, all clients of a step together, groups of them with a worker "
     "each, or "
     "whichever is measured to be fastest",
     s_modes},
    {"schedule.join", TL_SETTING_FLAG, OF (schedule.window), 0, 0, "all", "all or window", NULL,
     "a step holds every live client, or begins with who is ready when waiting for the others "
     "costs more than they save",
     s_joins},
    {"schedule.window_ms", TL_SETTING_MS, OF (schedule.window_ms), 1, 3600000, "1000",
     "milliseconds from 1 to 3600000", NULL,
     "join: window: no step waits longer for others once somebody is ready", NULL},
    {"schedule.start", TL_SETTING_COUNT, OF (schedule.start), 0, 65536, "0",
     "a whole number from 0 to 65536", NULL,
     "clients that the first step waits for, the others join when they come; 0: all", NULL},
    {"schedule.hysteresis", TL_SETTING_REAL, OF (schedule.hysteresis), 0, 1, "0.03",
     "a number from 0 to 1", NULL,
     "auto: another arrangement must promise so much more rows a second before it is taken", NULL},

    {"federate", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with keys like clients and every",
     "{clients: average, every: 20}", "how adapters of several owners come together", NULL},
    {"federate.clients", TL_SETTING_CHOICE, OF (federate.clients), 0, 0, "personal",
     "personal, average or sync", NULL,
     "fronts and tails: each client's own, their mean after every period, or one gradient of all "
     "at every step",
     s_federations},
    {"federate.every", TL_SETTING_COUNT, OF (federate.every), 1, COUNTED, "20",
     "a whole number of at least 1", NULL,
     "rounds of a period, at whose end what is apart is averaged", NULL},
    {"federate.quorum", TL_SETTING_COUNT, OF (federate.quorum), 1, 65536, "1",
     "a whole number from 1 to 65536", NULL,
     "parts that an average needs at least; all, where fewer are in the run", NULL},
    {"federate.deadline_s", TL_SETTING_REAL, OF (federate.deadline), 0, 1e6, "0",
     "a number of seconds from 0 to 1e6", NULL,
     "an average is made without parts that come later than that after they were asked for; 0: it "
     "waits for all that are here",
     NULL},
    {"federate.proximal", TL_SETTING_REAL, OF (federate.proximal), 0, 1e6, "0",
     "a number from 0 to 1e6", NULL,
     "FedProx: what is averaged is held to where its period began by so much; 0: it is not", NULL},
    {"federate.server", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the key optimizer",
     "{optimizer: avgm}", "what is made of the mean of a period", NULL},
    {"federate.server.optimizer", TL_SETTING_CHOICE, OF (federate.server.optimizer), 0, 0, "none",
     "none, avgm or adam", NULL,
     "none: the mean itself (FedAvg); else momentum or Adam over what the period changed",
     s_servers},
    {"federate.server.lr", TL_SETTING_REAL, OF (federate.server.lr), 0, 1e3, "0",
     "a number from 0 to 1000", NULL,
     "its learning rate; 0: 1 - momentum with avgm, 0.01 with adam", NULL},
    {"federate.server.momentum", TL_SETTING_REAL, OF (federate.server.momentum), 0, BELOW_ONE,
     "0.9", "a number from 0 to below 1", NULL, "its average of changes", NULL},
    {"federate.server.beta2", TL_SETTING_REAL, OF (federate.server.beta2), 0, BELOW_ONE, "0.99",
     "a number from 0 to below 1", NULL, "adam's average of their squares", NULL},
    {"federate.server.eps", TL_SETTING_REAL, OF (federate.server.eps), DBL_MIN, 1, "1e-3",
     "a number above 0, at most 1", NULL, "adam's guard against division by 0", NULL},

    {"wire", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the key dtype", "{dtype: bf16}",
     "what crosses the network", NULL},
    {"wire.dtype", TL_SETTING_CHOICE, OF (wire.dtype), 0, 0, "bf16", "fp32, bf16 or fp16", NULL,
     "precision of hidden rows and their gradients on the way", s_wires},
    {"wire.max_message_mb", TL_SETTING_MEGABYTES, OF (wire.max_message), 1, 65536, "256",
     "a whole number from 1 to 65536", NULL, "largest tensor that is accepted", NULL},
    {"wire.credit_mb", TL_SETTING_MEGABYTES, OF (wire.credit), 0, 1048576, "0",
     "a whole number from 0 to 1048576", NULL,
     "what a receiver lets a peer have under way; 0: as much as a step needs", NULL},

    {"privacy", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping", "{noise: 0}",
     "protection against the broker and the workers", NULL},
    {"privacy.noise", TL_SETTING_ONLY, 0, 0, 0, "0",
     "0: noise on hidden rows is not in this version", NULL, "Gaussian noise on hidden rows",
     s_zero},
    {"privacy.clip", TL_SETTING_ONLY, 0, 0, 0, "0",
     "0: clipping of hidden rows is not in this version", NULL, "largest norm of a hidden row",
     s_zero},
    {"privacy.allow_unsafe_split", TL_SETTING_FLAG, OF (privacy.allow_unsafe_split), 0, 0, "false",
     "true or false", NULL,
     "split.front or split.tail may be 0, though text can then be read from what crosses the wire",
     s_yes_no},

    {"checkpoint", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the keys dir, every and keep",
     "{dir: runs, every: 50}", "saves of a run", NULL},
    {"checkpoint.dir", TL_SETTING_TEXT, OF (checkpoint.dir), 0, 0, "runs", "a directory", NULL,
     "runs are saved below it", NULL},
    {"checkpoint.every", TL_SETTING_COUNT, OF (checkpoint.every), 1, COUNTED, "50",
     "a whole number of at least 1", NULL, "committed steps between two saves", NULL},
    {"checkpoint.keep", TL_SETTING_COUNT, OF (checkpoint.keep), 1, 1000000, "3",
     "a whole number from 1 to 1000000", NULL,
     "how many of the latest saves stay; clients keep two more, in case others have to go back",
     NULL},

    {"liveness", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the keys ping_ms and expire_ms",
     "{ping_ms: 2000, expire_ms: 10000}", "when a quiet peer counts as lost", NULL},
    {"liveness.ping_ms", TL_SETTING_MS, OF (liveness.ping_ms), 10, 3600000, "2000",
     "milliseconds from 10 to 3600000", NULL, "quiet for so long: a PING asks", NULL},
    {"liveness.expire_ms", TL_SETTING_MS, OF (liveness.expire_ms), 20, 86400000, "10000",
     "milliseconds from 20 to 86400000", NULL, "silent for so long: expired", NULL},

    {"trunk", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping", "{release: false}",
     "who may have the trunk's adapter", NULL},
    {"trunk.release", TL_SETTING_LATER, 0, 0, 0, "", NULL, NULL,
     "sending the trunk's adapter to sites is not in this version; remove it, export works where "
     "both "
     "were saved",
     NULL},

    {"keys", TL_SETTING_TEXT, OF (keys), 0, 0, "keys", "a directory", NULL,
     "key files, made by trunkline keys make", NULL},

    {"broker", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with keys like control and clients",
     "{control: tcp://127.0.0.1:5569}", "where peers meet", NULL},
    {"broker.host", TL_SETTING_TEXT, OF (broker.host), 0, 0, "localhost", "a host name", NULL,
     "machine that runs the broker", NULL},
    {"broker.control", TL_SETTING_ADDRESS, OF (broker.control), 0, 0, "tcp://127.0.0.1:5569",
     ADDRESS_EXPECTED, NULL, "control socket of all peers", NULL},
    {"broker.clients", TL_SETTING_ADDRESS, OF (broker.clients), 0, 0, "tcp://127.0.0.1:5570",
     ADDRESS_EXPECTED, NULL, "data socket of the clients", NULL},
    {"broker.workers", TL_SETTING_ADDRESS, OF (broker.workers), 0, 0, "tcp://127.0.0.1:5571",
     ADDRESS_EXPECTED, NULL, "data socket of the workers", NULL},
    {"broker.metrics", TL_SETTING_LATER, 0, 0, 0, "", NULL, NULL,
     "the metrics page is not in this version; remove it, trunkline status shows the counters",
     NULL},
    {"broker.threads", TL_SETTING_INTEGER, OF (broker.threads), 1, 64, "1",
     "a whole number from 1 to 64", NULL, "threads that encrypt and move bytes", NULL},

    {"aggregator", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the key host",
     "{host: localhost}", "who averages, where the settings need it", NULL},
    {"aggregator.host", TL_SETTING_TEXT, OF (aggregator.host), 0, 0, "localhost", "a host name",
     NULL, "machine that runs it", NULL},

    {"workers", TL_SETTING_PEERS, OF (workers), 0, 0, NULL, "a list of workers",
     "[{name: trunk-1}]", "who computes the trunk", NULL},
    {"workers[].name", TL_SETTING_NAME, OF_WORKER (name), 0, 0, NULL, NAME_EXPECTED, "trunk-1",
     "unique among all peers", NULL},
    {"workers[].host", TL_SETTING_TEXT, OF_WORKER (host), 0, 0, "localhost", "a host name", NULL,
     "machine that runs it", NULL},
    {"workers[].threads", TL_SETTING_INTEGER, OF_WORKER (threads), 1, 1024, "1",
     "a whole number from 1 to 1024", NULL, "threads that compute", NULL},
    {"workers[].count", TL_SETTING_COUNT, OF_WORKER (count), 1, 65536, "1",
     "a whole number from 1 to 65536", NULL,
     "so many alike, named NAME-1 and on; synthetic ones only", NULL},
    {"workers[].compute", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the key synthetic",
     "{synthetic: {base_ms: 20, us_per_row: 10}}", "what stands for computing", NULL},
    {"workers[].compute.synthetic", TL_SETTING_OPTION, OF_WORKER (synthetic.is), 0, 0, "{}",
     "a mapping with keys like base_ms", "{base_ms: 20, us_per_row: 10}",
     "it waits so long for each micro instead of computing it; needs model.synthetic", NULL},
    {"workers[].compute.synthetic.base_ms", TL_SETTING_REAL, OF_WORKER (synthetic.base_ms), 0,
     3.6e6, "0", "milliseconds from 0 to 3.6e6", NULL, "of every micro, each way", NULL},
    {"workers[].compute.synthetic.us_per_row", TL_SETTING_REAL, OF_WORKER (synthetic.us_per_row), 0,
     1e6, "0", "microseconds from 0 to 1e6", NULL, "added for every row", NULL},
    {"workers[].compute.synthetic.changes_at", TL_SETTING_COUNT, OF_WORKER (synthetic.changes_at),
     0, COUNTED, "0", "a whole number of at least 0", NULL,
     "round from which on all takes changes_by times as long; 0: never", NULL},
    {"workers[].compute.synthetic.changes_by", TL_SETTING_REAL, OF_WORKER (synthetic.changes_by),
     1e-6, 1e6, "1", "a number from 1e-6 to 1e6", NULL, "how many times as long", NULL},

    {"clients", TL_SETTING_PEERS, OF (clients), 0, 0, NULL, "a list of clients",
     "[{name: north, data: data/north.jsonl}]", "one for each site", NULL},
    {"clients[].name", TL_SETTING_NAME, OF_CLIENT (name), 0, 0, NULL, NAME_EXPECTED, "north",
     "the site's name, unique among all peers", NULL},
    {"clients[].host", TL_SETTING_TEXT, OF_CLIENT (host), 0, 0, "localhost", "a host name", NULL,
     "machine that runs it", NULL},
    {"clients[].threads", TL_SETTING_INTEGER, OF_CLIENT (threads), 1, 1024, "1",
     "a whole number from 1 to 1024", NULL, "threads that compute", NULL},
    {"clients[].data", TL_SETTING_TEXT, OF_CLIENT (data), 0, 0, "", "a JSONL file",
     "data/north.jsonl", "the site's training text; it never leaves this client", NULL},
    {"clients[].eval", TL_SETTING_TEXT, OF_CLIENT (eval), 0, 0, "", "a JSONL file",
     "data/north.eval.jsonl", "the site's held-out text", NULL},
    {"clients[].steps", TL_SETTING_COUNT, OF_CLIENT (steps), 0, COUNTED, "0",
     "a whole number of at least 0", NULL,
     "rounds that this client takes part in, from the first; 0: all of train.steps", NULL},
    {"clients[].columns", TL_SETTING_LATER, 0, 0, 0, "", NULL, NULL,
     "text is told apart by its keys in this version; remove it and name them prompt and "
     "completion",
     NULL},
    {"clients[].count", TL_SETTING_COUNT, OF_CLIENT (count), 1, 65536, "1",
     "a whole number from 1 to 65536", NULL,
     "so many alike, named NAME-1 and on; synthetic ones only", NULL},
    {"clients[].compute", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the key synthetic",
     "{synthetic: {base_ms: 20, us_per_row: 10}}", "what stands for computing", NULL},
    {"clients[].compute.synthetic", TL_SETTING_OPTION, OF_CLIENT (synthetic.is), 0, 0, "{}",
     "a mapping with keys like base_ms", "{base_ms: 20, us_per_row: 10}",
     "it waits so long for each micro instead of computing it; needs model.synthetic", NULL},
    {"clients[].compute.synthetic.base_ms", TL_SETTING_REAL, OF_CLIENT (synthetic.base_ms), 0,
     3.6e6, "0", "milliseconds from 0 to 3.6e6", NULL, "of every micro, each way", NULL},
    {"clients[].compute.synthetic.us_per_row", TL_SETTING_REAL, OF_CLIENT (synthetic.us_per_row), 0,
     1e6, "0", "microseconds from 0 to 1e6", NULL, "added for every row", NULL},
    {"clients[].compute.synthetic.changes_at", TL_SETTING_COUNT, OF_CLIENT (synthetic.changes_at),
     0, COUNTED, "0", "a whole number of at least 0", NULL,
     "round from which on all takes changes_by times as long; 0: never", NULL},
    {"clients[].compute.synthetic.changes_by", TL_SETTING_REAL, OF_CLIENT (synthetic.changes_by),
     1e-6, 1e6, "1", "a number from 1e-6 to 1e6", NULL, "how many times as long", NULL},
    {"clients[].compute.synthetic.rows", TL_SETTING_COUNT, OF_CLIENT (synthetic.rows), 1, 1048576,
     "256", "a whole number from 1 to 1048576", NULL, "of each of its micros", NULL},
};

const tl_setting_t *
tl_schema (size_t *count)
{
    *count = sizeof s_keys / sizeof s_keys[0];
    return s_keys;
}
