//  yaml: from libfyaml's document to our own tree, so that nothing else depends on libfyaml.

#include "yaml.h"

#include "assert.h"
#include "memory.h"

#include <libfyaml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistr.h>

enum { MAX_DEPTH = 16, MAX_CHILDREN = 100000 };

//  ---------------------------------------------------------------------------------------------
//  Tree

static tl_yaml_t *
s_node_new (tl_yaml_kind_t kind, int line, int column)
{
    tl_yaml_t *self = tl_alloc (sizeof *self);
    self->kind = kind;
    self->line = self->key_line = line;
    self->column = self->key_column = column;
    return self;
}

void
tl_yaml_destroy (tl_yaml_t **self_p)
{
    tl_assert (self_p);
    tl_yaml_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->count; i++)
        tl_yaml_destroy (&self->children[i]);
    free (self->children);
    free (self->key);
    free (self->text);
    free (self->origin);
    free (self);
    *self_p = NULL;
}

static void
s_append (tl_yaml_t *self, tl_yaml_t *child)
{
    //  Grows by doubling: capacity is the next power of two of count.
    if ((self->count & (self->count - 1)) == 0) {
        size_t capacity = self->count ? self->count * 2 : 1;
        tl_yaml_t **children = tl_alloc (capacity * sizeof *children);
        if (self->count)
            memcpy (children, self->children, self->count * sizeof *children);
        free (self->children);
        self->children = children;
    }
    self->children[self->count++] = child;
}

const tl_yaml_t *
tl_yaml_child (const tl_yaml_t *map, const char *key)
{
    if (map && map->kind == TL_YAML_MAP)
        for (size_t i = 0; i < map->count; i++)
            if (strcmp (map->children[i]->key, key) == 0)
                return map->children[i];
    return NULL;
}

//  A list index written in digits only, or -1.
static long
s_index (const char *text)
{
    if (!*text || strlen (text) > 6 || strspn (text, "0123456789") != strlen (text))
        return -1;
    return atol (text);
}

static tl_yaml_t *
s_step (const tl_yaml_t *self, const char *part)
{
    if (self->kind != TL_YAML_LIST)
        return (tl_yaml_t *)tl_yaml_child (self, part);
    long index = s_index (part);
    return index >= 0 && (size_t)index < self->count ? self->children[index] : NULL;
}

const tl_yaml_t *
tl_yaml_find (const tl_yaml_t *root, const char *path)
{
    char *copy = tl_strdup (path), *rest = copy, *part;
    const tl_yaml_t *node = root;
    while (node && (part = strsep (&rest, ".")))
        node = s_step (node, part);
    free (copy);
    return node;
}

//  ---------------------------------------------------------------------------------------------
//  Parsing

typedef struct {
    const char *name; //  of the file
    tl_error_t *err;  //  where the first complaint goes
} s_reader_t;

static tl_yaml_t *
s_refuse (const s_reader_t *self, int line, int column, const char *what)
{
    tl_fail (self->err, TL_BAD_INPUT, "%s:%d:%d: %s", self->name, line, column, what);
    return NULL;
}

static tl_yaml_t *s_convert (const s_reader_t *self, struct fy_node *node, int line, int column,
                             int depth);

static tl_yaml_t *
s_convert_scalar (const s_reader_t *self, struct fy_node *node, int line, int column)
{
    struct fy_token *token = fy_node_get_scalar_token (node);
    const struct fy_mark *mark = token ? fy_token_start_mark (token) : NULL;
    if (mark) {
        line = mark->line + 1;
        //  The mark of a quoted scalar or an alias is behind its first character.
        enum fy_scalar_style style = fy_scalar_token_get_style (token);
        bool behind =
            style == FYSS_SINGLE_QUOTED || style == FYSS_DOUBLE_QUOTED || fy_node_is_alias (node);
        column = mark->column + (behind && mark->column > 0 ? 0 : 1);
    }
    if (fy_node_is_alias (node))
        return s_refuse (self, line, column,
                         "an alias (*name) is not read here; write the value itself");
    if (fy_node_is_null (node))
        return s_node_new (TL_YAML_NULL, line, column);

    size_t size = 0;
    const char *text = fy_node_get_scalar (node, &size);
    if (!text || memchr (text, 0, size))
        return s_refuse (self, line, column, "a value holds a NUL byte; remove it");
    tl_yaml_t *made = s_node_new (TL_YAML_SCALAR, line, column);
    made->text = tl_alloc (size + 1);
    memcpy (made->text, text, size);
    return made;
}

static tl_yaml_t *
s_convert_list (const s_reader_t *self, struct fy_node *node, int line, int column, int depth)
{
    tl_yaml_t *made = s_node_new (TL_YAML_LIST, line, column);
    void *cursor = NULL;
    struct fy_node *item;
    while ((item = fy_node_sequence_iterate (node, &cursor))) {
        tl_yaml_t *child = s_convert (self, item, line, column, depth);
        if (!child) {
            tl_yaml_destroy (&made);
            return NULL;
        }
        s_append (made, child);
    }
    return made;
}

static tl_yaml_t *
s_convert_map (const s_reader_t *self, struct fy_node *node, int line, int column, int depth)
{
    tl_yaml_t *made = s_node_new (TL_YAML_MAP, line, column);
    void *cursor = NULL;
    struct fy_node_pair *pair;
    while ((pair = fy_node_mapping_iterate (node, &cursor))) {
        tl_yaml_t *child = NULL;
        struct fy_node *key_node = fy_node_pair_key (pair);
        tl_yaml_t *key = key_node && fy_node_get_type (key_node) == FYNT_SCALAR
                             ? s_convert_scalar (self, key_node, line, column)
                             : s_refuse (self, line, column, "a key must be one plain word");
        if (key && key->kind != TL_YAML_SCALAR)
            s_refuse (self, key->line, key->column, "a key is empty; write its name");
        else if (key) {
            //  A mapping inside a list has no key of its own: its place is that of its first key.
            if (made->count == 0 && key->line > made->line) {
                made->line = key->line;
                made->column = key->column;
            }
            child = s_convert (self, fy_node_pair_value (pair), key->line, key->column, depth);
        }
        if (child) {
            child->key = key->text;
            key->text = NULL;
            child->key_line = key->line;
            child->key_column = key->column;
            s_append (made, child);
        }
        tl_yaml_destroy (&key);
        if (!child) {
            tl_yaml_destroy (&made);
            return NULL;
        }
    }
    return made;
}

//  line and column are those of the key or list the node belongs to: containers carry no place.
static tl_yaml_t *
s_convert (const s_reader_t *self, struct fy_node *node, int line, int column, int depth)
{
    if (!node)
        return s_node_new (TL_YAML_NULL, line, column);
    if (fy_node_get_tag_token (node) || fy_node_get_anchor (node))
        return s_refuse (
            self, line, column,
            "a tag (!name) or an anchor (&name) is not read here; write the value alone");
    if (depth > MAX_DEPTH)
        return s_refuse (self, line, column, "nested too deeply; a topology needs 3 levels");
    if (fy_node_get_type (node) == FYNT_SCALAR)
        return s_convert_scalar (self, node, line, column);

    tl_yaml_t *made = fy_node_get_type (node) == FYNT_SEQUENCE
                          ? s_convert_list (self, node, line, column, depth + 1)
                          : s_convert_map (self, node, line, column, depth + 1);
    if (made && made->count > MAX_CHILDREN) {
        tl_yaml_destroy (&made);
        return s_refuse (self, line, column, "more than 100000 entries; split the run");
    }
    return made;
}

//  libfyaml would print some of its complaints itself.
static void
s_say_nothing (struct fy_diag *diag, void *user, const char *text, size_t size)
{
}

static struct fy_diag *
s_quiet_diag (void)
{
    struct fy_diag_cfg config;
    fy_diag_cfg_default (&config);
    config.fp = NULL;
    config.output_fn = s_say_nothing;
    struct fy_diag *diag = fy_diag_create (&config);
    tl_assert (diag);
    fy_diag_set_collect_errors (diag, true);
    return diag;
}

static tl_yaml_t *
s_refuse_text (const s_reader_t *self, struct fy_diag *diag)
{
    void *cursor = NULL;
    struct fy_diag_error *first = fy_diag_errors_iterate (diag, &cursor);
    char what[400];
    if (!first || !first->msg)
        return s_refuse (self, 1, 1,
                         "there is nothing in it that can be read; write a mapping of keys");
    snprintf (what, sizeof what, "not YAML: %s; correct the text at this place", first->msg);
    return s_refuse (self, first->line > 0 ? first->line : 1, first->column > 0 ? first->column : 1,
                     what);
}

//  Any YAML value; NULL and a complaint when the text is not one.
static tl_yaml_t *
s_parse_any (const s_reader_t *reader, const char *text, size_t size)
{
    struct fy_diag *diag = s_quiet_diag ();
    struct fy_parse_cfg config = {.flags = FYPCF_QUIET, .diag = diag};
    struct fy_parser *parser = fy_parser_create (&config);
    tl_assert (parser && fy_parser_set_string (parser, text, size) == 0);
    struct fy_document *document = fy_parse_load_document (parser);
    struct fy_document *second = document ? fy_parse_load_document (parser) : NULL;
    tl_yaml_t *made = NULL;
    if (second) {
        const struct fy_mark *mark =
            fy_document_state_start_mark (fy_document_get_document_state (second));
        s_refuse (reader, mark ? mark->line + 1 : 1, 1,
                  "a second document begins here, and would not be read; keep one in a file");
    } else if (!document || fy_parser_get_stream_error (parser))
        s_refuse_text (reader, diag);
    else
        made = s_convert (reader, fy_document_root (document), 1, 1, 0);
    fy_parse_document_destroy (parser, second);
    fy_parse_document_destroy (parser, document);
    fy_parser_destroy (parser);
    fy_diag_destroy (diag);
    return made;
}

//  libfyaml looks at values only; a comment or a key would go through.
static tl_yaml_t *
s_refuse_bytes (const s_reader_t *self, const char *text, const char *bad)
{
    int line = 1;
    const char *begin = text;
    for (const char *at = text; at < bad; at++)
        if (*at == '\n') {
            line++;
            begin = at + 1;
        }
    char what[128];
    snprintf (what, sizeof what,
              "the byte 0x%02x is not UTF-8 text; save the file as UTF-8, or write the letter anew",
              (unsigned)(unsigned char)*bad);
    return s_refuse (self, line,
                     (int)u8_mbsnlen ((const uint8_t *)begin, (size_t)(bad - begin)) + 1, what);
}

tl_yaml_t *
tl_yaml_parse (const char *name, const char *text, size_t size, tl_error_t *err)
{
    s_reader_t reader = {name, err};
    //  libfyaml takes 0 to mean "up to the NUL", and reads an empty text as no document at all.
    if (size == 0)
        return s_refuse (&reader, 1, 1, "the file is empty; write a mapping of keys");
    if (memchr (text, 0, size))
        return s_refuse (&reader, 1, 1, "the file holds NUL bytes; it must be UTF-8 text");
    const uint8_t *bad = u8_check ((const uint8_t *)text, size);
    if (bad)
        return s_refuse_bytes (&reader, text, (const char *)bad);

    tl_yaml_t *root = s_parse_any (&reader, text, size);
    if (root && root->kind != TL_YAML_MAP) {
        s_refuse (
            &reader, root->line, root->column,
            "expected a mapping of keys like 'model: {path: ...}'; see topology/one-site.yaml");
        tl_yaml_destroy (&root);
    }
    return root;
}

//  ---------------------------------------------------------------------------------------------
//  Overrides

static void
s_mark_origin (tl_yaml_t *self, const char *origin)
{
    free (self->origin);
    self->origin = tl_strdup (origin);
    for (size_t i = 0; i < self->count; i++)
        s_mark_origin (self->children[i], origin);
}

//  The child called part, made as an empty NULL node when it may be; NULL and a complaint otherwise.
static tl_yaml_t *
s_reach (tl_yaml_t *self, const char *part, const char *origin, tl_error_t *err)
{
    tl_yaml_t *child = s_step (self, part);
    if (child)
        return child;
    if (self->kind == TL_YAML_NULL)
        self->kind = s_index (part) == 0 ? TL_YAML_LIST : TL_YAML_MAP;
    if (self->kind == TL_YAML_SCALAR) {
        tl_fail (err, TL_BAD_INPUT,
                 "%s: '%s' holds the value '%s' and no keys; name a shorter path", origin,
                 self->key ? self->key : "it", self->text);
        return NULL;
    }
    if (self->kind == TL_YAML_LIST && s_index (part) != (long)self->count) {
        tl_fail (err, TL_BAD_INPUT,
                 "%s: a list of %zu entries has no '%s'; count from 0 (%zu appends)", origin,
                 self->count, part, self->count);
        return NULL;
    }
    child = s_node_new (TL_YAML_NULL, self->line, self->column);
    if (self->kind == TL_YAML_MAP)
        child->key = tl_strdup (part);
    s_mark_origin (child, origin);
    s_append (self, child);
    return child;
}

//  Gives target the contents of value (which is consumed), keeping target's key.
static void
s_replace (tl_yaml_t *target, tl_yaml_t *value)
{
    tl_yaml_t old = *target;
    *target = *value;
    target->key = old.key;
    target->key_line = old.key_line;
    target->key_column = old.key_column;
    old.key = value->key;
    *value = old;
    tl_yaml_destroy (&value);
}

int
tl_yaml_set (tl_yaml_t *root, const char *assignment, tl_error_t *err)
{
    const char *equals = strchr (assignment, '=');
    if (!equals || equals == assignment)
        return tl_fail (err, TL_BAD_INPUT,
                        "--set %s: expected key=value; write for example --set train.lr=1e-4",
                        assignment);
    char *path = tl_format ("%.*s", (int)(equals - assignment), assignment);
    char *origin = tl_format ("--set %s", path);
    char *rest = path, *part;
    const char *text = equals + 1;
    tl_yaml_t *node = root, *value = NULL;
    int rc = -1;

    while (node && (part = strsep (&rest, "."))) {
        if (!*part) {
            tl_fail (err, TL_BAD_INPUT, "%s: a part of the path is empty; write it like train.lr",
                     origin);
            node = NULL;
        } else
            node = s_reach (node, part, origin, err);
    }
    if (node && (*text == '[' || *text == '{')) {
        s_reader_t reader = {origin, err};
        value = s_parse_any (&reader, text, strlen (text));
    } else if (node) {
        value = s_node_new (*text ? TL_YAML_SCALAR : TL_YAML_NULL, node->line, node->column);
        value->text = *text ? tl_strdup (text) : NULL;
    }
    if (value) {
        s_mark_origin (value, origin);
        s_replace (node, value);
        rc = 0;
    }
    free (path);
    free (origin);
    return rc;
}
