/*
 * What helps to write a remediation plugin for Infra Sentinel in C.
 *
 * `sentinel plugin build` puts this file beside the plugin's bindings: do not edit it there. A
 * plugin is two functions, `exports_remediation_describe` and `exports_remediation_remediate`;
 * remediation.h has the calls of the contract, as far as `uses` in plugin.yaml names them.
 *
 * Nothing has to be freed: each run has an instance of its own, which is gone when it ends.
 */
#ifndef SENTINEL_H
#define SENTINEL_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "remediation.h"

/* A grace that is the container's own: its stop timeout, or Docker's ten seconds. */
#define SENTINEL_OWN_GRACE ((uint64_t)1 << 62)

/* A text of the contract has no zero at its end: printf("%.*s", SENTINEL_TEXT(text)). */
#define SENTINEL_TEXT(text) (int)(text).len, (const char *)(text).ptr

/* A text for a call, of one that lives as long as the call. */
static inline remediation_string_t sentinel_text(const char *text) {
  return (remediation_string_t){(uint8_t *)text, strlen(text)};
}

/* Whether a text of the contract is this one. */
static inline bool sentinel_is(remediation_string_t text, const char *other) {
  return text.len == strlen(other) && memcmp(text.ptr, other, text.len) == 0;
}

/* A text made as printf makes one. */
static inline remediation_string_t sentinel_vprint(const char *format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  int length = vsnprintf(NULL, 0, format, arguments);
  remediation_string_t text = {NULL, 0};
  char *bytes = length < 0 ? NULL : malloc((size_t)length + 1);
  if (bytes != NULL) {
    vsnprintf(bytes, (size_t)length + 1, format, again);
    text = (remediation_string_t){(uint8_t *)bytes, (size_t)length};
  }
  va_end(again);
  return text;
}

/* Lines for the incident's timeline. */
#define sentinel_debug(...) sentinel_log(SENTINEL_PLUGIN_LOG_LEVEL_DEBUG, __VA_ARGS__)
#define sentinel_info(...) sentinel_log(SENTINEL_PLUGIN_LOG_LEVEL_INFO, __VA_ARGS__)
#define sentinel_warn(...) sentinel_log(SENTINEL_PLUGIN_LOG_LEVEL_WARN, __VA_ARGS__)
#define sentinel_error(...) sentinel_log(SENTINEL_PLUGIN_LOG_LEVEL_ERROR, __VA_ARGS__)

__attribute__((format(printf, 2, 3))) static inline void
sentinel_log(sentinel_plugin_log_level_t level, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  remediation_string_t text = sentinel_vprint(format, arguments);
  va_end(arguments);
  sentinel_plugin_log_write(level, &text);
  free(text.ptr);
}

/* What the plugin says of itself; `schema` is the JSON Schema of its params. */
static inline void sentinel_describe(remediation_description_t *description, const char *name,
                                     const char *version, const char *summary,
                                     const char *schema) {
  remediation_string_dup(&description->name, name);
  remediation_string_dup(&description->version, version);
  remediation_string_dup(&description->summary, summary);
  remediation_string_dup(&description->params_schema, schema);
}

/* The schema of no params. */
#define SENTINEL_NO_PARAMS "{\"type\": \"object\", \"additionalProperties\": false}"

/* return sentinel_changed(outcome, "restarted %s", name); */
__attribute__((format(printf, 2, 3))) static inline bool
sentinel_changed(remediation_outcome_t *outcome, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  outcome->tag = SENTINEL_PLUGIN_TYPES_OUTCOME_CHANGED;
  outcome->val.changed = sentinel_vprint(format, arguments);
  va_end(arguments);
  return true;
}

/* return sentinel_unchanged(outcome, "%s is healthy", name); */
__attribute__((format(printf, 2, 3))) static inline bool
sentinel_unchanged(remediation_outcome_t *outcome, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  outcome->tag = SENTINEL_PLUGIN_TYPES_OUTCOME_UNCHANGED;
  outcome->val.unchanged = sentinel_vprint(format, arguments);
  va_end(arguments);
  return true;
}

/* return sentinel_fail(failure, SENTINEL_PLUGIN_TYPES_FAILURE_PERMANENT, "no such thing"); */
__attribute__((format(printf, 3, 4))) static inline bool
sentinel_fail(remediation_failure_t *failure, uint8_t kind, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  failure->tag = kind;
  failure->val.permanent = sentinel_vprint(format, arguments);
  va_end(arguments);
  return false;
}

/* The failure that fits a call's error: if (!call(…, &error)) return sentinel_failed(failure, &error); */
static inline bool sentinel_failed(remediation_failure_t *failure,
                                   const sentinel_plugin_types_capability_error_t *error) {
  static const char *const words[] = {"denied",      "not found", "invalid",
                                      "unavailable", "timed out", "failed"};
  remediation_string_t text = error->val.denied;
  switch (error->tag) {
  case SENTINEL_PLUGIN_TYPES_CAPABILITY_ERROR_DENIED:
    return sentinel_fail(failure, SENTINEL_PLUGIN_TYPES_FAILURE_DENIED, "%.*s",
                         SENTINEL_TEXT(text));
  case SENTINEL_PLUGIN_TYPES_CAPABILITY_ERROR_NOT_FOUND:
  case SENTINEL_PLUGIN_TYPES_CAPABILITY_ERROR_INVALID:
    return sentinel_fail(failure, SENTINEL_PLUGIN_TYPES_FAILURE_PERMANENT, "%s: %.*s",
                         words[error->tag], SENTINEL_TEXT(text));
  default:
    return sentinel_fail(failure, SENTINEL_PLUGIN_TYPES_FAILURE_RETRYABLE, "%s: %.*s",
                         words[error->tag], SENTINEL_TEXT(text));
  }
}

/*
 * Where the value of a member begins in the params, which are a JSON object; NULL when there is no
 * such member. Names with escapes in them are not found.
 */
static inline const char *sentinel_param(remediation_string_t params, const char *name) {
  const char *at = (const char *)params.ptr, *end = at + params.len, *key = NULL;
  size_t wanted = strlen(name);
  int depth = 0;
  while (at < end) {
    char c = *at;
    if (c == '"') {
      const char *begin = ++at;
      while (at < end && *at != '"') {
        at += *at == '\\' ? 2 : 1;
      }
      /* A text before a colon, directly inside the object, is a name. */
      const char *next = at + 1;
      while (next < end && (*next == ' ' || *next == '\n' || *next == '\t' || *next == '\r')) {
        next++;
      }
      if (depth == 1 && key == NULL && next < end && *next == ':') {
        key = next + 1;
        if ((size_t)(at - begin) == wanted && memcmp(begin, name, wanted) == 0) {
          while (key < end && (*key == ' ' || *key == '\n' || *key == '\t' || *key == '\r')) {
            key++;
          }
          return key < end ? key : NULL;
        }
      }
    } else if (c == '{' || c == '[') {
      depth++;
    } else if (c == '}' || c == ']') {
      depth--;
    } else if (c == ',' && depth == 1) {
      key = NULL;
    }
    at++;
  }
  return NULL;
}

/* A param that is a whole number, or what stands for it when it is not given. */
static inline long long sentinel_param_number(remediation_string_t params, const char *name,
                                              long long otherwise) {
  const char *value = sentinel_param(params, name);
  char digits[24] = {0};
  if (value == NULL) {
    return otherwise;
  }
  size_t left = (size_t)((const char *)params.ptr + params.len - value);
  memcpy(digits, value, left < sizeof digits - 1 ? left : sizeof digits - 1);
  char *behind;
  long long number = strtoll(digits, &behind, 10);
  return behind == digits ? otherwise : number;
}

/* A param that is a text without escapes, or what stands for it when it is not given. */
static inline const char *sentinel_param_text(remediation_string_t params, const char *name,
                                              const char *otherwise) {
  const char *value = sentinel_param(params, name);
  if (value == NULL || *value != '"') {
    return otherwise;
  }
  const char *begin = value + 1, *end = (const char *)params.ptr + params.len, *at = begin;
  while (at < end && *at != '"') {
    at++;
  }
  char *text = malloc((size_t)(at - begin) + 1);
  if (text == NULL) {
    return otherwise;
  }
  memcpy(text, begin, (size_t)(at - begin));
  text[at - begin] = 0;
  return text;
}

/* The value of a label, or an empty text. */
static inline remediation_string_t sentinel_label(sentinel_plugin_types_list_label_t labels,
                                                  const char *name) {
  for (size_t i = 0; i < labels.len; i++) {
    if (sentinel_is(labels.ptr[i].name, name)) {
      return labels.ptr[i].value;
    }
  }
  return (remediation_string_t){NULL, 0};
}

#endif
