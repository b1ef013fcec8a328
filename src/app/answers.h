/* What the control socket of a running daemon answers. */
#ifndef HV_APP_ANSWERS_H
#define HV_APP_ANSWERS_H

#include "app/control.h"
#include "rt/runtime.h"

struct hv_answers {
    const struct hv_settings *settings;
    struct hv_runtime *const *runtime; /* where it stands; NULL there: it has stopped */
};

extern const struct hv_control_question hv_answers_questions[]; /* their user: struct hv_answers */

#endif
