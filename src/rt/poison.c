/* See poison.h. */
#include "rt/poison.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

static const char *const names[] = {[HV_POISON_BLOCK] = "block", [HV_POISON_PARK] = "park", [HV_POISON_SKIP] = "skip"};

const char *hv_poison_name(enum hv_poison policy) {
    return names[policy];
}

/* One "pattern=policy" of the text: lengths, not copies. */
struct rule {
    const char *pattern, *policy;
    size_t pattern_length, policy_length;
};

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n';
}

/* The next rule; false: there is no more. One without '=' has a policy of length 0. */
static bool next_rule(const char **at, struct rule *ret) {
    const char *begin = *at + strspn(*at, " \t\n");
    if (*begin == '\0') {
        return false;
    }
    const char *end = begin + strcspn(begin, ",");
    *at = *end == ',' ? end + 1 : end;
    while (end > begin && is_space(end[-1])) {
        end--;
    }
    const char *sign = memchr(begin, '=', (size_t)(end - begin));
    const char *stop = sign != NULL ? sign : end;
    while (stop > begin && is_space(stop[-1])) {
        stop--;
    }
    const char *policy = sign != NULL ? sign + 1 : end;
    while (policy < end && is_space(*policy)) {
        policy++;
    }
    *ret = (struct rule){begin, policy, (size_t)(stop - begin), (size_t)(end - policy)};
    return true;
}

static bool read_policy(const struct rule *rule, enum hv_poison *ret) {
    for (int i = HV_POISON_BLOCK; i <= HV_POISON_SKIP; i++) {
        if (strlen(names[i]) == rule->policy_length && memcmp(names[i], rule->policy, rule->policy_length) == 0) {
            *ret = (enum hv_poison)i;
            return true;
        }
    }
    return false;
}

static bool is_pattern(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && strchr("._-*?", c) == NULL) {
            return false;
        }
    }
    return length > 0;
}

int hv_poison_check(const char *topics, struct hv_error *err) {
    struct rule rule;
    enum hv_poison policy;
    char part[120], shown[160];
    for (const char *at = topics; next_rule(&at, &rule);) {
        if (!is_pattern(rule.pattern, rule.pattern_length) || !read_policy(&rule, &policy)) {
            snprintf(part, sizeof part, "%.*s", (int)(rule.policy + rule.policy_length - rule.pattern), rule.pattern);
            return hv_error_set(err, "%s is not PATTERN=POLICY: a pattern is of a-z A-Z 0-9 . _ - * ?, a policy block, park or skip; "
                                "a comma between two of them", hv_text_show(part, shown, sizeof shown));
        }
    }
    return 0;
}

/* Steps back to the last * only: that is enough, and takes no more than the product of the lengths. */
static bool fits(const char *pattern, size_t length, const char *name) {
    size_t p = 0, n = 0, star = length, mark = 0;
    while (name[n] != '\0') {
        if (p < length && pattern[p] == '*') {
            star = p++;
            mark = n;
        } else if (p < length && (pattern[p] == '?' || pattern[p] == name[n])) {
            p++;
            n++;
        } else if (star < length) {
            p = star + 1;
            n = ++mark;
        } else {
            return false;
        }
    }
    while (p < length && pattern[p] == '*') {
        p++;
    }
    return p == length;
}

enum hv_poison hv_poison_of(const char *topics, enum hv_poison otherwise, const char *topic) {
    struct rule rule;
    for (const char *at = topics; topic != NULL && next_rule(&at, &rule);) {
        if (fits(rule.pattern, rule.pattern_length, topic)) {
            read_policy(&rule, &otherwise);
            break;
        }
    }
    return otherwise;
}
