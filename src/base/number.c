#include "number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void
tl_number_text (char text[32], double number)
{
    //  A whole number of usual size is written out: 1048576 and 1000000, not 1e+06.
    if (fabs (number) < 1e15 && floor (number) == number) {
        snprintf (text, 32, "%.0f", number);
        return;
    }
    //  17 digits always tell two doubles apart; NaN equals nothing, and ends the loop the same.
    for (int digits = 1; digits <= 17; digits++) {
        snprintf (text, 32, "%.*g", digits, number);
        if (strtod (text, NULL) == number)
            return;
    }
}
