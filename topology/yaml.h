/*  yaml: a YAML file as a plain tree in which every value knows where it was written, and --set
    overrides laid over it.

    Takes one document of scalars, lists and mappings; anchors, aliases and tags are refused, they would make
    places ambiguous. Knows nothing about which keys exist. libfyaml does the parsing.             */

#ifndef TL_YAML_H
#define TL_YAML_H

#include "error.h"

#include <stddef.h>

typedef enum { TL_YAML_NULL, TL_YAML_SCALAR, TL_YAML_LIST, TL_YAML_MAP } tl_yaml_kind_t;

typedef struct tl_yaml tl_yaml_t;
struct tl_yaml {
    tl_yaml_kind_t kind;      //  what the value is; a NULL is a key without a value
    char *key;                //  of a mapping's child, else NULL
    char *text;               //  of a scalar, else NULL
    int line, column;         //  of the value, 1-based; a list's or mapping's is that of its key
    int key_line, key_column; //  of the key, 1-based; the same as the value's where there is none
    char *origin;             //  "--set a.b" when an override put it there, else NULL
    tl_yaml_t **children;     //  [count] of a list or mapping, owned
    size_t count;             //  how many children
};

//  Parses text of size bytes; name is the file's, for messages. The tree's root is a mapping.
//  NULL and "name:line:column: ..." on failure. Release with tl_yaml_destroy.
tl_yaml_t *tl_yaml_parse (const char *name, const char *text, size_t size, tl_error_t *err);
void tl_yaml_destroy (tl_yaml_t **self_p);

//  Lays "a.b.0.c=value" over the tree: mappings on the way are made when missing, a number counts into
//  a list (one past the end appends). A value that begins with [ or { is read as YAML.
int tl_yaml_set (tl_yaml_t *root, const char *assignment, tl_error_t *err);

//  The child under a dotted path like "clients.0.name", or NULL.
const tl_yaml_t *tl_yaml_find (const tl_yaml_t *root, const char *path);
//  The child of a mapping under key, or NULL.
const tl_yaml_t *tl_yaml_child (const tl_yaml_t *map, const char *key);

#endif
