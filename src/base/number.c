#include "number.h"

#include <stdio.h>
#include <stdlib.h>

void
tl_number_text (char text[32], double number)
{
    //  17 digits always tell two doubles apart; NaN equals nothing, and ends the loop the same.
    for (int digits = 1; digits <= 17; digits++) {
        snprintf (text, 32, "%.*g", digits, number);
        if (strtod (text, NULL) == number)
            return;
    }
}
