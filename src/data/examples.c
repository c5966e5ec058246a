/*  examples: JSONL, one object a line, as examples. The shape of an object is told by its keys; a line
    that has none of the known shapes is refused with the keys it does have. Every message begins with file
    and line. Doesn't tokenize.                                                                     */

#include "internal.h"

#include "jsonl.h"
#include "memory.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

//  What a line is read with.
typedef struct {
    const char *name;     //  of the file
    size_t line;          //  from 1
    tl_columns_t columns; //  no NULLs
    const json_t *object; //  the line
    tl_error_t *err;
} line_t;

//  ---------------------------------------------------------------------------------------------
//  Values

static int
s_fail_key (const line_t *line, const char *key, const json_t *value, const char *wanted)
{
    char *shown = value ? json_dumps (value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    tl_fail (line->err, TL_BAD_INPUT, "%s:%zu: '%.60s' is %.60s, expected %s; correct the line",
             line->name, line->line, key, shown ? shown : "missing", wanted);
    free (shown);
    return -1;
}

//  Appends the text under key; null counts as empty where that is allowed.
static int
s_say (const line_t *line, const json_t *object, const char *key, bool may_be_null,
       tl_speaker_t speaker, tl_example_t *example)
{
    const json_t *value = json_object_get (object, key);
    bool empty = may_be_null && (!value || json_is_null (value));
    if (!empty && !json_is_string (value))
        return s_fail_key (line, key, value, "a text");
    size_t size = empty ? 0 : json_string_length (value);
    tl_said_t *said = &example->said[example->count++];
    *said = (tl_said_t){speaker, tl_alloc (size + 1), size};
    if (size)
        memcpy (said->text, json_string_value (value), size);
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Shapes

static int
s_read_prompt (const line_t *line, tl_example_t *example)
{
    if (s_say (line, line->object, line->columns.prompt, false, TL_SAID_USER, example) != 0)
        return -1;
    return s_say (line, line->object, line->columns.completion, false, TL_SAID_ASSISTANT, example);
}

//  Instruction and input become one prompt with a line end between them.
static int
s_read_instruction (const line_t *line, tl_example_t *example)
{
    if (s_say (line, line->object, line->columns.instruction, false, TL_SAID_USER, example) != 0 ||
        s_say (line, line->object, line->columns.input, true, TL_SAID_USER, example) != 0)
        return -1;
    tl_said_t *instruction = &example->said[0], input = example->said[1];
    example->count = 1;
    if (input.size) {
        char *joined = tl_alloc (instruction->size + input.size + 2);
        memcpy (joined, instruction->text, instruction->size);
        joined[instruction->size] = '\n';
        memcpy (joined + instruction->size + 1, input.text, input.size);
        free (instruction->text);
        instruction->text = joined;
        instruction->size += input.size + 1;
    }
    free (input.text);
    return s_say (line, line->object, line->columns.output, false, TL_SAID_ASSISTANT, example);
}

static int
s_read_text (const line_t *line, tl_example_t *example)
{
    example->whole = true;
    return s_say (line, line->object, line->columns.text, false, TL_SAID_ASSISTANT, example);
}

//  [system] user assistant user assistant ...: whatever else can't be laid out in turns.
static int
s_read_messages (const line_t *line, tl_example_t *example)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    const char *key = line->columns.messages;
    const json_t *messages = json_object_get (line->object, key);
    size_t count = json_array_size (messages);
    if (!json_is_array (messages) || count < 2)
        return s_fail_key (line, key, messages,
                           "a list of at least a user's and an assistant's message");
    free (example->said);
    example->said = tl_alloc (count * sizeof *example->said);
    example->chat = true;
    tl_speaker_t due = TL_SAID_USER;
    for (size_t i = 0; i < count; i++) {
        const json_t *message = json_array_get (messages, i);
        const char *role = json_string_value (json_object_get (message, "role"));
        bool system = i == 0 && role && strcmp (role, "system") == 0;
        if (!system && (!role || strcmp (role, roles[due]) != 0))
            return tl_fail (
                line->err, TL_BAD_INPUT,
                "%s:%zu: message %zu of '%.60s' has role '%.40s', expected '%s' (system "
                "first if at all, then user and assistant in turn); correct the line",
                line->name, line->line, i + 1, key, role ? role : "(missing)", roles[due]);
        if (s_say (line, message, "content", false, system ? TL_SAID_SYSTEM : due, example) != 0)
            return -1;
        if (!system)
            due = due == TL_SAID_USER ? TL_SAID_ASSISTANT : TL_SAID_USER;
    }
    if (due != TL_SAID_USER)
        return tl_fail (
            line->err, TL_BAD_INPUT,
            "%s:%zu: '%.60s' ends with a user's message, there is no answer to learn; add "
            "the assistant's or remove the line",
            line->name, line->line, key);
    return 0;
}

//  None of the shapes: the keys that are there help to see why.
static int
s_fail_shape (const line_t *line)
{
    char keys[200] = "";
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)line->object, key, value)
    {
        size_t used = strlen (keys);
        snprintf (keys + used, sizeof keys - used, "%s%s", used ? ", " : "", key);
    }
    const tl_columns_t *columns = &line->columns;
    return tl_fail (
        line->err, TL_BAD_INPUT,
        "%s:%zu: the line has the keys [%s], expected %s and %s, or %s, or %s and %s, or "
        "%s; rename them",
        line->name, line->line, keys, columns->prompt, columns->completion, columns->messages,
        columns->instruction, columns->output, columns->text);
}

static bool
s_has (const line_t *line, const char *key)
{
    return json_object_get (line->object, key) != NULL;
}

static int
s_read_object (const line_t *line, tl_example_t *example)
{
    const tl_columns_t *columns = &line->columns;
    if (s_has (line, columns->prompt) && s_has (line, columns->completion))
        return s_read_prompt (line, example);
    if (s_has (line, columns->messages))
        return s_read_messages (line, example);
    if (s_has (line, columns->instruction) && s_has (line, columns->output))
        return s_read_instruction (line, example);
    if (s_has (line, columns->text))
        return s_read_text (line, example);
    return s_fail_shape (line);
}

//  ---------------------------------------------------------------------------------------------
//  Lines

static void
s_clear (tl_example_t *example)
{
    for (size_t i = 0; i < example->count; i++)
        free (example->said[i].text);
    free (example->said);
}

//  What the lines are read with.
typedef struct {
    tl_columns_t columns; //  no NULLs
    tl_example_fn *take;
    void *arg; //  of take
} reading_t;

static int
s_read_line (void *arg, const json_t *object, const char *name, size_t number, tl_error_t *err)
{
    const reading_t *self = arg;
    line_t line = {name, number, self->columns, object, err};
    //  Room for what every shape but messages says.
    tl_example_t example = {.said = tl_alloc (3 * sizeof *example.said)};
    int rc = s_read_object (&line, &example);
    if (rc == 0 && self->take (self->arg, &example, err) != 0)
        rc = tl_fail_in (err, "%s:%zu", name, number);
    s_clear (&example);
    return rc;
}

static tl_columns_t
s_columns (const tl_columns_t *given)
{
    tl_columns_t columns = given ? *given : (tl_columns_t){0};
    columns.prompt = columns.prompt ? columns.prompt : "prompt";
    columns.completion = columns.completion ? columns.completion : "completion";
    columns.instruction = columns.instruction ? columns.instruction : "instruction";
    columns.input = columns.input ? columns.input : "input";
    columns.output = columns.output ? columns.output : "output";
    columns.messages = columns.messages ? columns.messages : "messages";
    columns.text = columns.text ? columns.text : "text";
    return columns;
}

int
tl_examples_read (const char *name, const char *data, size_t size, const tl_columns_t *columns,
                  size_t limit, tl_example_fn *take, void *arg, tl_error_t *err)
{
    reading_t reading = {s_columns (columns), take, arg};
    return tl_jsonl_read (name, data, size, limit, s_read_line, &reading, err);
}
