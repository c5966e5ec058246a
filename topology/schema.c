//  schema: from a tree to a tl_topology_t, row by row of the table.

#include "schema.h"

#include "assert.h"
#include "memory.h"
#include "nearest.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof (size_t) == sizeof (uint64_t), "TL_SETTING_COUNT stores both");

enum { PATH_SIZE = 192, NAME_LONGEST = 32, ITEM_LONGEST = 96 };

typedef struct {
    const tl_setting_t *rows; //  [row_count] the table
    size_t row_count;
    const char *whole;       //  what a file of this table is called: "a topology"
    const char *source;      //  the file's path, for messages
    tl_topology_t *topology; //  what is filled; NULL: the table isn't a topology's
    tl_error_t *err;         //  the first complaint
} s_reader_t;

//  One value on its way from the tree to its field.
typedef struct {
    const tl_setting_t *row; //  what is allowed
    const tl_yaml_t *node;   //  where it was written; NULL: the default
    const char *text;        //  the value as written
    const char *path;        //  "clients.0.data", for messages
    void *field;             //  where it goes
} s_value_t;

//  ---------------------------------------------------------------------------------------------
//  Complaints

int
tl_schema_complain (const char *source, const tl_yaml_t *node, bool by_key, const char *path,
                    tl_error_t *err, const char *format, ...)
{
    char sentence[900];
    va_list args;
    va_start (args, format);
    vsnprintf (sentence, sizeof sentence, format, args);
    va_end (args);
    //  The place "--set a.b" names the key, unless it is the place of something above it.
    const char *set = node && node->origin ? node->origin + strlen ("--set ") : NULL;
    size_t size = strlen (path);
    bool named = set && strncmp (set, path, size) == 0 && (!set[size] || set[size] == '.');
    if (set)
        return tl_fail (err, TL_BAD_INPUT, "%s: %s%s%s", node->origin, named ? "" : path,
                        *path && !named ? ": " : "", sentence);
    int line = node ? (by_key ? node->key_line : node->line) : 1;
    int column = node ? (by_key ? node->key_column : node->column) : 1;
    return tl_fail (err, TL_BAD_INPUT, "%s:%d:%d: %s%s%s", source, line, column, path,
                    *path ? ": " : "", sentence);
}

static const char *
s_last_part (const char *path)
{
    const char *dot = strrchr (path, '.');
    return dot ? dot + 1 : path;
}

static int
s_expected (const s_reader_t *self, const s_value_t *value)
{
    const char *example = value->row->example ? value->row->example : value->row->fallback;
    tl_assert (value->node); //  a default that its own row refuses is our bug
    return tl_schema_complain (self->source, value->node, false, value->path, self->err,
                               "expected %s, found '%s'; write for example '%s: %s'",
                               value->row->expected, value->text, s_last_part (value->path),
                               example);
}

//  ---------------------------------------------------------------------------------------------
//  Scalars

static int
s_store_number (const s_reader_t *self, const s_value_t *value)
{
    const tl_setting_t *row = value->row;
    char *end = NULL;
    errno = 0;
    double number;
    uint64_t whole = 0;
    if (row->kind == TL_SETTING_REAL)
        number = strtod (value->text, &end);
    else {
        //  strtoull takes a sign and blanks; a count has neither.
        if (strspn (value->text, "0123456789") != strlen (value->text))
            return s_expected (self, value);
        whole = strtoull (value->text, &end, 10);
        number = (double)whole;
    }
    if (!*value->text || *end || errno == ERANGE || !isfinite (number) || number < row->min ||
        number > row->max)
        return s_expected (self, value);
    switch (row->kind) {
    case TL_SETTING_REAL:
        *(double *)value->field = number;
        break;
    case TL_SETTING_COUNT:
        *(uint64_t *)value->field = whole;
        break;
    case TL_SETTING_MEGABYTES:
        *(size_t *)value->field = (size_t)whole << 20;
        break;
    case TL_SETTING_MS:
        *(int64_t *)value->field = (int64_t)whole;
        break;
    default:
        *(int *)value->field = (int)whole;
    }
    return 0;
}

static bool
s_is_name (const char *text)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    size_t size = strlen (text);
    return size > 0 && size <= NAME_LONGEST && strspn (text, allowed) == size;
}

//  tcp://HOST:PORT or tcp://[IPV6]:PORT. A bind to every interface is refused: the address is also the
//  one that peers connect to.
static bool
s_is_address (const char *text)
{
    if (strncmp (text, "tcp://", 6) != 0)
        return false;
    const char *host = text + 6, *colon = strrchr (host, ':');
    if (!colon || colon == host || strlen (colon + 1) > 5 ||
        strspn (colon + 1, "0123456789") != strlen (colon + 1))
        return false;
    int port = atoi (colon + 1);
    size_t size = (size_t)(colon - host);
    bool bracketed = host[0] == '[' && colon[-1] == ']' && size > 3;
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-";
    static const char ipv6[] = "0123456789abcdefABCDEF:.";
    bool host_ok = bracketed ? strspn (host + 1, ipv6) == size - 2 : strspn (host, plain) == size;
    return port >= 1 && port <= 65535 && host_ok;
}

static int
s_store_text (const s_reader_t *self, const s_value_t *value)
{
    tl_setting_kind_t kind = value->row->kind;
    bool good = kind == TL_SETTING_NAME      ? s_is_name (value->text)
                : kind == TL_SETTING_ADDRESS ? s_is_address (value->text)
                                             : strlen (value->text) < 4096;
    if (!good)
        return s_expected (self, value);
    *(char **)value->field = *value->text ? tl_strdup (value->text) : NULL;
    return 0;
}

static const tl_choice_t *
s_find_choice (const tl_choice_t *choices, const char *text)
{
    for (; choices->word; choices++)
        if (strcmp (choices->word, text) == 0)
            return choices;
    return NULL;
}

static int
s_store_choice (const s_reader_t *self, const s_value_t *value)
{
    const tl_choice_t *choice = s_find_choice (value->row->choices, value->text);
    if (!choice)
        return s_expected (self, value);
    if (choice->refusal)
        return tl_schema_complain (self->source, value->node, false, value->path, self->err,
                                   "'%s': %s", value->text, choice->refusal);
    if (value->row->kind == TL_SETTING_CHOICE)
        *(int *)value->field = choice->value;
    else if (value->row->kind == TL_SETTING_FLAG)
        *(bool *)value->field = choice->value != 0;
    else if (value->row->kind == TL_SETTING_PARTS)
        *(unsigned *)value->field |= (unsigned)choice->value;
    return 0;
}

//  A word at the end of a list that holds at most so many, each once.
static int
s_store_item (const s_reader_t *self, const s_value_t *value, char **list, size_t *count,
              size_t most)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.*?[]!";
    size_t length = strlen (value->text);
    if (length == 0 || length > ITEM_LONGEST || strspn (value->text, allowed) != length ||
        *count == most)
        return s_expected (self, value);
    for (size_t i = 0; i < *count; i++)
        if (strcmp (list[i], value->text) == 0)
            return tl_schema_complain (self->source, value->node, false, value->path, self->err,
                                       "'%s' is listed twice; remove one", value->text);
    list[(*count)++] = tl_strdup (value->text);
    return 0;
}

static int
s_store_scalar (const s_reader_t *self, const s_value_t *value)
{
    switch (value->row->kind) {
    case TL_SETTING_COUNT:
    case TL_SETTING_MEGABYTES:
    case TL_SETTING_INTEGER:
    case TL_SETTING_MS:
    case TL_SETTING_REAL:
        return s_store_number (self, value);
    case TL_SETTING_TEXT:
    case TL_SETTING_NAME:
    case TL_SETTING_ADDRESS:
        return s_store_text (self, value);
    case TL_SETTING_TARGETS:
        return s_store_item (self, value, self->topology->tune.targets,
                             &self->topology->tune.target_count, TL_TOPOLOGY_TARGETS);
    case TL_SETTING_FREEZE:
        return s_store_item (self, value, self->topology->tune.freeze,
                             &self->topology->tune.freeze_count, TL_TOPOLOGY_FREEZE);
    default:
        return s_store_choice (self, value);
    }
}

//  ---------------------------------------------------------------------------------------------
//  Lists of words: [a, b] in the file, or a,b as --set writes it

static int
s_store_words (const s_reader_t *self, s_value_t value)
{
    char *copy = tl_strdup (value.text), *rest = copy, *word;
    int rc = 0;
    while (rc == 0 && *copy && (word = strsep (&rest, ","))) {
        value.text = word + strspn (word, " ");
        rc = s_store_scalar (self, &value);
    }
    free (copy);
    return rc;
}

static int
s_store_list (const s_reader_t *self, s_value_t value)
{
    const tl_yaml_t *list = value.node;
    if (list->count == 0 && value.row->kind == TL_SETTING_PARTS) {
        value.text = "[]";
        return s_expected (self, &value);
    }
    for (size_t i = 0; i < list->count; i++) {
        value.node = list->children[i];
        value.text = value.node->kind == TL_YAML_SCALAR ? value.node->text : "a list or mapping";
        if (s_store_scalar (self, &value) != 0)
            return -1;
    }
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Mappings

static int s_read_map (const s_reader_t *self, const tl_yaml_t *map, const char *prefix,
                       const char *shown, void *base);

static const char *
s_kind_name (const tl_yaml_t *node)
{
    static const char *const names[] = {"nothing", "a single value", "a list", "a mapping"};
    static const char *const empty[] = {"nothing", "a single value", "an empty list",
                                        "an empty mapping"};
    return node->count ? names[node->kind] : empty[node->kind];
}

static int
s_wrong_kind (const s_reader_t *self, const tl_yaml_t *node, const tl_setting_t *row,
              const char *path)
{
    const char *example = row->example ? row->example : row->fallback;
    const char *found = node->kind == TL_YAML_SCALAR ? node->text : s_kind_name (node);
    return tl_schema_complain (self->source, node, node->kind == TL_YAML_NULL, path, self->err,
                               "expected %s, found %s%s%s; write for example '%s: %s'",
                               row->expected, node->kind == TL_YAML_SCALAR ? "'" : "", found,
                               node->kind == TL_YAML_SCALAR ? "'" : "", s_last_part (path),
                               example);
}

//  A list of peers as it is read: an entry of the file may stand for several.
typedef struct {
    bool clients; //  else workers
    char *peers;  //  [room] of size
    size_t count, room, size;
} s_peers_t;

enum { MOST_PEERS = 65536 };

static char *
s_grow (s_peers_t *list)
{
    if (list->count == list->room) {
        list->room = 2 * list->room + 8;
        char *grown = tl_alloc (list->room * list->size);
        if (list->count)
            memcpy (grown, list->peers, list->count * list->size);
        free (list->peers);
        list->peers = grown;
    }
    return list->peers + list->count++ * list->size;
}

//  NAME-01 ... NAME-20: all as long as the last.
static void
s_number_name (char **name, size_t number, size_t count)
{
    int digits = snprintf (NULL, 0, "%zu", count);
    char *numbered = tl_format ("%s-%0*zu", *name, digits, number);
    free (*name);
    *name = numbered;
}

//  The entry'th of the file's list, as often as its count says.
static int
s_read_peer (const s_reader_t *self, s_peers_t *list, const tl_yaml_t *node, size_t entry,
             const char *prefix, const char *shown)
{
    size_t copies = 1;
    for (size_t i = 0; i < copies; i++) {
        char *peer = s_grow (list);
        tl_client_spec_t *client = list->clients ? (tl_client_spec_t *)peer : NULL;
        tl_worker_spec_t *worker = list->clients ? NULL : (tl_worker_spec_t *)peer;
        if (s_read_map (self, node, prefix, shown, peer) != 0)
            return -1;
        copies = client ? client->count : worker->count;
        *(client ? &client->entry : &worker->entry) = entry;
        if (list->count - i - 1 + copies > MOST_PEERS)
            return tl_schema_complain (self->source, node, false, shown, self->err,
                                       "that makes more than %d; use a smaller count", MOST_PEERS);
        if (copies > 1)
            s_number_name (client ? &client->name : &worker->name, i + 1, copies);
    }
    return 0;
}

static int
s_read_peers (const s_reader_t *self, const tl_setting_t *row, const tl_yaml_t *node,
              const char *path)
{
    tl_topology_t *topology = self->topology;
    if (node->kind != TL_YAML_LIST || node->count == 0)
        return s_wrong_kind (self, node, row, path);
    s_peers_t list = {.clients = row->offset == offsetof (tl_topology_t, clients)};
    list.size = list.clients ? sizeof (tl_client_spec_t) : sizeof (tl_worker_spec_t);
    char prefix[PATH_SIZE + 4], shown[PATH_SIZE + 24];
    snprintf (prefix, sizeof prefix, "%s[]", path);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < node->count; i++) {
        const tl_yaml_t *peer = node->children[i];
        snprintf (shown, sizeof shown, "%s.%zu", path, i);
        rc = peer->kind == TL_YAML_MAP
                 ? s_read_peer (self, &list, peer, i, prefix, shown)
                 : tl_schema_complain (self->source, peer, false, shown, self->err,
                                       "expected a mapping like %s, found %s", row->example,
                                       s_kind_name (peer));
    }
    //  Also what was read of a broken list is the topology's, for its destructor.
    if (list.clients) {
        topology->clients = (tl_client_spec_t *)list.peers;
        topology->client_count = list.count;
    } else {
        topology->workers = (tl_worker_spec_t *)list.peers;
        topology->worker_count = list.count;
    }
    return rc;
}

//  Another table's list: whoever has that table reads its entries.
static int
s_check_list (const s_reader_t *self, const tl_setting_t *row, const tl_yaml_t *node,
              const char *path)
{
    bool good = !node || (node->kind == TL_YAML_LIST && node->count > 0);
    return good ? 0 : s_wrong_kind (self, node, row, path);
}

static int
s_read_leaf (const s_reader_t *self, const tl_setting_t *row, const tl_yaml_t *node,
             const char *path, void *field)
{
    s_value_t value = {row, node, row->fallback, path, field};
    bool words = row->kind == TL_SETTING_TARGETS || row->kind == TL_SETTING_FREEZE ||
                 row->kind == TL_SETTING_PARTS;
    if (!node || (node->kind == TL_YAML_NULL && row->fallback && !*row->fallback)) {
        if (row->kind == TL_SETTING_LATER)
            return 0;
        return words ? s_store_words (self, value) : s_store_scalar (self, &value);
    }
    if (words && node->kind == TL_YAML_LIST)
        return s_store_list (self, value);
    if (node->kind != TL_YAML_SCALAR)
        return s_wrong_kind (self, node, row, path);
    value.text = node->text;
    if (!*value.text)
        return s_expected (self, &value);
    return words ? s_store_words (self, value) : s_store_scalar (self, &value);
}

static int
s_read_row (const s_reader_t *self, const tl_setting_t *row, const tl_yaml_t *map,
            const tl_yaml_t *node, const char *path, void *base)
{
    if (row->kind == TL_SETTING_LATER && node)
        return tl_schema_complain (self->source, node, true, path, self->err, "%s", row->help);
    if (!node && !row->fallback)
        return tl_schema_complain (self->source, map, false, path, self->err,
                                   "the key is missing: expected %s; write for example '%s: %s'",
                                   row->expected, s_last_part (path), row->example);
    if (row->kind == TL_SETTING_PEERS)
        return !self->topology ? s_check_list (self, row, node, path)
                               : s_read_peers (self, row, node, path);
    if (row->kind == TL_SETTING_SECTION || row->kind == TL_SETTING_OPTION) {
        const tl_choice_t *word = node && node->kind == TL_YAML_SCALAR && row->choices
                                      ? s_find_choice (row->choices, node->text)
                                      : NULL;
        if (word) {
            *(bool *)((char *)base + row->offset) = word->value;
            return s_read_map (self, NULL, row->path, path, base);
        }
        if (node && node->kind != TL_YAML_MAP)
            return s_wrong_kind (self, node, row, path);
        if (row->kind == TL_SETTING_OPTION)
            *(bool *)((char *)base + row->offset) = node != NULL;
        return s_read_map (self, node, row->path, path, base);
    }
    return s_read_leaf (self, row, node, path, (char *)base + row->offset);
}

//  The key of a row that lies directly below prefix, or NULL.
static const char *
s_key_below (const tl_setting_t *row, const char *prefix)
{
    size_t size = strlen (prefix);
    const char *key = row->path;
    if (size > 0) {
        if (strncmp (row->path, prefix, size) != 0 || row->path[size] != '.')
            return NULL;
        key = row->path + size + 1;
    }
    return strpbrk (key, ".[") ? NULL : key;
}

static int
s_unknown_key (const s_reader_t *self, const tl_yaml_t *node, const char *shown,
               const char *const *known, size_t known_count)
{
    const char *near = tl_nearest (node->key, known, known_count);
    char list[400] = "";
    size_t used = 0;
    for (size_t i = 0; i < known_count && used < sizeof list - 1; i++)
        used += (size_t)snprintf (list + used, sizeof list - used, "%s%s", i ? ", " : "", known[i]);
    if (near)
        return tl_schema_complain (self->source, node, true, "", self->err,
                                   "'%s' is not a key of %s; write '%s' if that was meant",
                                   node->key, *shown ? shown : self->whole, near);
    return tl_schema_complain (self->source, node, true, "", self->err,
                               "'%s' is not a key of %s; use one of %s", node->key,
                               *shown ? shown : self->whole, list);
}

//  prefix is the table's ("clients[]"), shown the file's ("clients.0"); map NULL gives all defaults.
static int
s_read_map (const s_reader_t *self, const tl_yaml_t *map, const char *prefix, const char *shown,
            void *base)
{
    size_t known_count = 0;
    const tl_setting_t *rows = self->rows;
    const char *known[64];
    const tl_setting_t *below[64];

    for (size_t i = 0; i < self->row_count; i++) {
        const char *key = s_key_below (&rows[i], prefix);
        if (key) {
            tl_assert (known_count < 64);
            known[known_count] = key;
            below[known_count++] = &rows[i];
        }
    }
    for (size_t i = 0; map && i < map->count; i++) {
        size_t at = 0;
        while (at < known_count && strcmp (known[at], map->children[i]->key) != 0)
            at++;
        if (at == known_count)
            return s_unknown_key (self, map->children[i], shown, known, known_count);
    }
    for (size_t i = 0; i < known_count; i++) {
        char path[PATH_SIZE];
        snprintf (path, sizeof path, "%s%s%s", shown, *shown ? "." : "", known[i]);
        if (s_read_row (self, below[i], map, tl_yaml_child (map, known[i]), path, base) != 0)
            return -1;
    }
    return 0;
}

int
tl_schema_read (tl_topology_t *topology, const tl_yaml_t *root, tl_error_t *err)
{
    s_reader_t reader = {
        .whole = "a topology", .source = topology->source, .topology = topology, .err = err};
    reader.rows = tl_schema (&reader.row_count);
    return s_read_map (&reader, root, "", "", topology);
}

int
tl_schema_read_map (const tl_schema_table_t *table, const char *source, const tl_yaml_t *map,
                    const char *prefix, const char *shown, void *base, tl_error_t *err)
{
    s_reader_t reader = {table->rows, table->count, table->whole, source, NULL, err};
    return s_read_map (&reader, map, prefix, shown, base);
}

//  ---------------------------------------------------------------------------------------------
//  Release

static void
s_release_rows (const char *prefix, bool nested, void *base)
{
    size_t count, size = strlen (prefix);
    const tl_setting_t *rows = tl_schema (&count);
    for (size_t i = 0; i < count; i++) {
        bool inside = strstr (rows[i].path, "[]") != NULL;
        bool text = rows[i].kind == TL_SETTING_TEXT || rows[i].kind == TL_SETTING_NAME ||
                    rows[i].kind == TL_SETTING_ADDRESS;
        if (text && inside == nested && strncmp (rows[i].path, prefix, size) == 0) {
            char **field = (char **)((char *)base + rows[i].offset);
            free (*field);
            *field = NULL;
        }
    }
}

void
tl_schema_release (tl_topology_t *topology)
{
    for (size_t i = 0; i < topology->worker_count; i++)
        s_release_rows ("workers[]", true, &topology->workers[i]);
    for (size_t i = 0; i < topology->client_count; i++)
        s_release_rows ("clients[]", true, &topology->clients[i]);
    for (size_t i = 0; i < topology->tune.target_count; i++)
        free (topology->tune.targets[i]);
    for (size_t i = 0; i < topology->tune.freeze_count; i++)
        free (topology->tune.freeze[i]);
    free (topology->workers);
    free (topology->clients);
    s_release_rows ("", false, topology);
}
