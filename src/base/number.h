//  number: reals as a person would write them.

#ifndef TL_NUMBER_H
#define TL_NUMBER_H

//  The shortest decimal that reads back as the same double ("0.1", "1e-08", "inf") into text.
void tl_number_text (char text[32], double number);

#endif
