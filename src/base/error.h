/*  error: one sentence for a person, and the exit code that goes with it.

    Every function that can fail because of input, a file or a peer takes a tl_error_t * as its last
    argument and returns -1 or NULL. The sentence names the field or file, says what was expected and
    what was found, and ends with what to do. Programming errors don't come here: they assert.      */

#ifndef TL_ERROR_H
#define TL_ERROR_H

typedef enum {
    TL_OK = 0,         //  all is well
    TL_FAILED = 1,     //  the run failed
    TL_CONNECTION = 2, //  connection or authentication
    TL_TIMEOUT = 3,    //  nobody answered in time
    TL_BAD_INPUT = 4,  //  bad arguments, configuration, file or data
    TL_INTERNAL = 5    //  a bug
} tl_code_t;

typedef struct {
    tl_code_t code;  //  becomes the process's exit code
    char text[1024]; //  the sentence, without a newline
} tl_error_t;

//  Fills err (which may be NULL) and returns -1, so that callers write return tl_fail (...).
int tl_fail (tl_error_t *err, tl_code_t code, const char *format, ...)
    __attribute__ ((format (printf, 3, 4)));

//  Puts "prefix: " before the sentence already in err. Returns -1.
int tl_fail_in (tl_error_t *err, const char *format, ...) __attribute__ ((format (printf, 2, 3)));

//  Puts ": more" behind the sentence already in err. Returns -1.
int tl_fail_on (tl_error_t *err, const char *format, ...) __attribute__ ((format (printf, 2, 3)));

#endif
