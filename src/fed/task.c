#include "fed/task.h"

#include "data/jsonl.h"
#include "file.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

//  A line that is read.
typedef struct {
    tl_task_t *task;
    const json_t *object;
    const char *name; //  of the file
    size_t line;      //  from 1
    tl_error_t *err;
} s_line_t;

//  Reading a file.
typedef struct {
    tl_task_t *task;
    tl_task_wanted_t wanted;
    size_t room; //  items
} s_reading_t;

static int
s_fail (const s_line_t *self, const char *key, const char *wanted)
{
    json_t *value = json_object_get (self->object, key);
    char *shown = value ? json_dumps (value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    tl_fail (self->err, TL_BAD_INPUT, "%s:%zu: '%s' is %.60s, expected %s; correct the line",
             self->name, self->line, key, shown ? shown : "missing", wanted);
    free (shown);
    return -1;
}

static tl_text_t
s_text (const json_t *value)
{
    return (tl_text_t){json_string_value (value), json_string_length (value)};
}

//  A said text is not changed by anybody: it stays in the JSON.
static void
s_say (tl_item_t *item, tl_speaker_t speaker, const json_t *value)
{
    item->said[item->said_count++] = (tl_said_t){
        speaker, (char *)(uintptr_t)json_string_value (value), json_string_length (value)};
}

//  ---------------------------------------------------------------------------------------------
//  Parts of a line

static int
s_read_messages (const s_line_t *self, tl_item_t *item)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    const json_t *messages = json_object_get (self->object, "messages");
    size_t count = json_array_size (messages);
    if (count == 0)
        return s_fail (self, "messages", "a list of messages");
    item->chat = true;
    item->said = tl_alloc (count * sizeof *item->said);
    for (size_t i = 0; i < count; i++) {
        const json_t *message = json_array_get (messages, i);
        const json_t *content = json_object_get (message, "content");
        const char *role = json_string_value (json_object_get (message, "role"));
        size_t speaker = 0;
        while (speaker < 3 && !(role && strcmp (role, roles[speaker]) == 0))
            speaker++;
        if (speaker == 3 || !json_is_string (content))
            return s_fail (self, "messages",
                           "messages of a 'role' (system, user, assistant) and a 'content'");
        s_say (item, (tl_speaker_t)speaker, content);
    }
    return 0;
}

static int
s_read_prompt (const s_line_t *self, tl_item_t *item)
{
    const json_t *prompt = json_object_get (self->object, "prompt");
    if (!prompt && json_object_get (self->object, "messages"))
        return s_read_messages (self, item);
    if (!json_is_string (prompt))
        return s_fail (self, "prompt", "a text");
    item->said = tl_alloc (sizeof *item->said);
    s_say (item, TL_SAID_USER, prompt);
    return 0;
}

static int
s_read_texts (const s_line_t *self, const char *key, size_t least, tl_item_t *item)
{
    const json_t *list = json_object_get (self->object, key);
    size_t count = json_array_size (list);
    if (json_is_string (list) && least == 1)
        count = 1;
    if (count < least)
        return s_fail (self, key,
                       least > 1 ? "a list of two or more texts" : "a text or a list of texts");
    item->texts = tl_alloc (count * sizeof *item->texts);
    for (; item->count < count; item->count++) {
        const json_t *text = json_is_array (list) ? json_array_get (list, item->count) : list;
        if (!json_is_string (text) || (least > 1 && json_string_length (text) == 0))
            return s_fail (self, key, "texts, none of them empty");
        item->texts[item->count] = s_text (text);
    }
    return 0;
}

static int
s_read_answer (const s_line_t *self, tl_item_t *item)
{
    const json_t *answer = json_object_get (self->object, "answer");
    size_t found = item->count;
    if (json_is_integer (answer) && json_integer_value (answer) >= 0)
        found = (size_t)json_integer_value (answer);
    for (size_t i = 0; json_is_string (answer) && i < item->count; i++)
        if (item->texts[i].size == json_string_length (answer) &&
            memcmp (item->texts[i].text, json_string_value (answer), item->texts[i].size) == 0 &&
            found == item->count)
            found = i;
    char wanted[96];
    snprintf (wanted, sizeof wanted, "the index of a choice, from 0 to %zu, or its text",
              item->count - 1);
    item->answer = found;
    return found < item->count ? 0 : s_fail (self, "answer", wanted);
}

static int
s_read_choice (const s_line_t *self, tl_item_t *item)
{
    const tl_item_t *first = self->task->items;
    if (s_read_prompt (self, item) || s_read_texts (self, "choices", 2, item) ||
        s_read_answer (self, item))
        return -1;
    bool same = item->count == first->count || item == first;
    for (size_t i = 0; same && item != first && i < item->count; i++)
        same = item->texts[i].size == first->texts[i].size &&
               memcmp (item->texts[i].text, first->texts[i].text, first->texts[i].size) == 0;
    self->task->classes = self->task->classes && same;
    return 0;
}

static int
s_read_writing (const s_line_t *self, tl_item_t *item)
{
    if (s_read_prompt (self, item))
        return -1;
    if (json_object_get (self->object, "references"))
        return s_read_texts (self, "references", 1, item);
    if (json_object_get (self->object, "completion"))
        return s_read_texts (self, "completion", 1, item);
    tl_said_t *last = &item->said[item->said_count - 1];
    if (!item->chat || last->speaker != TL_SAID_ASSISTANT || item->said_count < 2)
        return s_fail (self, "references", "a text or a list of texts");
    item->texts = tl_alloc (sizeof *item->texts);
    item->texts[item->count++] = (tl_text_t){last->text, last->size};
    item->said_count--;
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Groups

typedef struct {
    char *name;  //  the JSON under "group"; NULL: a question of its own
    size_t item; //  its index
} s_member_t;

static int
s_by_name (const void *left, const void *right)
{
    const s_member_t *a = left, *b = right;
    int order =
        a->name && b->name ? strcmp (a->name, b->name) : (b->name != NULL) - (a->name != NULL);
    return order ? order : a->item < b->item ? -1 : 1;
}

static void
s_group (tl_task_t *self)
{
    s_member_t *members = tl_alloc ((self->count + 1) * sizeof *members);
    for (size_t i = 0; i < self->count; i++) {
        const json_t *group = json_object_get (json_array_get (self->lines, i), "group");
        members[i].item = i;
        if (group)
            members[i].name = json_dumps (group, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS);
        self->grouped = self->grouped || group;
    }
    qsort (members, self->count, sizeof *members, s_by_name);
    for (size_t i = 0; i < self->count; i++) {
        bool same = i && members[i].name && members[i - 1].name &&
                    strcmp (members[i].name, members[i - 1].name) == 0;
        self->groups += !same;
        self->items[members[i].item].group = self->groups - 1;
    }
    for (size_t i = 0; i < self->count; i++)
        free (members[i].name);
    free (members);
}

//  ---------------------------------------------------------------------------------------------
//  The file

static tl_task_kind_t
s_kind (const json_t *object, tl_task_wanted_t wanted)
{
    if (wanted == TL_TASK_OF_PROMPTS)
        return TL_TASK_WRITING;
    if (json_object_get (object, "choices") || json_object_get (object, "answer"))
        return TL_TASK_CHOICE;
    if (json_object_get (object, "references") || wanted == TL_TASK_OF_WRITING)
        return TL_TASK_WRITING;
    return TL_TASK_TEXT;
}

static int
s_take (void *arg, const json_t *object, const char *name, size_t number, tl_error_t *err)
{
    static const char *const kinds[] = {"text to be measured", "multiple choice",
                                        "a text to be written"};
    s_reading_t *reading = arg;
    tl_task_t *task = reading->task;
    tl_task_kind_t kind = s_kind (object, reading->wanted);
    if (task->count == 0)
        task->kind = kind;
    if (kind != task->kind)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s:%zu: the line is %s, the lines before it are %s; put them into files "
                        "of their own",
                        name, number, kinds[kind], kinds[task->kind]);
    if (task->count == reading->room) {
        reading->room = reading->room ? 2 * reading->room : 256;
        task->items = realloc (task->items, reading->room * sizeof *task->items);
        if (!task->items)
            abort ();
    }
    tl_item_t *item = &task->items[task->count++];
    *item = (tl_item_t){.line = number};
    json_array_append (task->lines, (json_t *)object);
    s_line_t line = {task, object, name, number, err};
    return kind == TL_TASK_CHOICE                  ? s_read_choice (&line, item)
           : reading->wanted == TL_TASK_OF_PROMPTS ? s_read_prompt (&line, item)
           : kind == TL_TASK_WRITING               ? s_read_writing (&line, item)
                                                   : 0;
}

//  Of a text only the first line is looked at: tl_dataset_open reads it.
static int
s_take_first (void *arg, const json_t *object, const char *name, size_t number, tl_error_t *err)
{
    s_reading_t *reading = arg;
    reading->task->kind = s_kind (object, reading->wanted);
    return 0;
}

static int
s_read (s_reading_t *reading, size_t limit, tl_error_t *err)
{
    tl_task_t *task = reading->task;
    tl_map_t map;
    if (tl_map_open (&map, task->path, err) != 0)
        return -1;
    const char *data = (const char *)map.data;
    int rc = tl_jsonl_read (task->path, data, map.size, 1, s_take_first, reading, err);
    if (rc == 0 && task->kind != TL_TASK_TEXT)
        rc = tl_jsonl_read (task->path, data, map.size, limit, s_take, reading, err);
    tl_map_close (&map);
    return rc;
}

tl_task_t *
tl_task_open (const char *path, tl_task_wanted_t wanted, size_t limit, tl_error_t *err)
{
    tl_task_t *self = tl_alloc (sizeof *self);
    self->path = tl_strdup (path);
    self->lines = json_array ();
    self->classes = true;
    s_reading_t reading = {.task = self, .wanted = wanted};
    if (s_read (&reading, limit, err) != 0)
        tl_task_destroy (&self);
    else
        s_group (self);
    return self;
}

void
tl_task_destroy (tl_task_t **self_p)
{
    tl_task_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->count; i++) {
        free (self->items[i].said);
        free (self->items[i].texts);
    }
    free (self->items);
    free (self->path);
    json_decref (self->lines);
    free (self);
    *self_p = NULL;
}

int
tl_item_prompt (const tl_item_t *self, const tl_tokenizer_t *tokenizer, bool cloze,
                tl_prompt_t *prompt, tl_error_t *err)
{
    if (self->chat)
        return tl_prompt_chat (prompt, tokenizer, self->said, self->said_count, err);
    if (cloze)
        tl_prompt_cloze (prompt, tokenizer, self->said->text, self->said->size);
    else
        tl_prompt_make (prompt, tokenizer, self->said->text, self->said->size);
    return 0;
}
