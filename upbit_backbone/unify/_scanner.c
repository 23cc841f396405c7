/* Reads messages of Upbit's usual shape: proves every field sound, and makes only what is wanted.

   An option for speed, compiled where setup.py is asked to. It takes nothing but the very shape that Upbit writes: one
   flat object, no white space, plain ASCII texts without escapes, numbers of sensible size. Whatever else
   comes it leaves to the readers in Python by answering None, and those say what is wrong with it. So all errors, all
   old spellings and all odd numbers are read in one place, and what is read here is read there just the same
   (tests/unify/test_scanner.py compares the two).

   A bytes object ends with a NUL that is not counted, and no loop here goes past one: a byte may be looked at without
   asking first whether it is there. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <datetime.h>
#include <string.h>

/* How a field is read; `KINDS` gives the numbers to Python. */
enum kind { ANY, SYMBOL, TEXT, WORD, AMOUNT, SIGNED, WHOLE, MOMENT, DAY, FLAG, UNITS };

static const char *const KINDS[] = {
    "ANY", "SYMBOL", "TEXT", "WORD", "AMOUNT", "SIGNED", "WHOLE", "MOMENT", "DAY", "FLAG", "UNITS",
};

#define MOST_FIELDS 64 /* as many as a mask of those seen has bits */
#define MOST_DIGITS 40 /* of a number; Upbit's longest have some twenty */
#define MOST_ZEROS 40 /* that a positive exponent may stand for */
#define MOST_SYMBOL_BYTES 40 /* as to_symbol in exchange/values.py */
#define MOST_WHOLE_DIGITS 18 /* fits 64 bits for certain */
#define DIRECT_PLACES 6 /* behind the point: Decimal writes what begins further down with an exponent */
#define PAST_MOMENTS (8589934592LL * 1000) /* as LAST_DIRECT_MILLISECOND of exchange/values.py */
#define MOST_LEVELS 64 /* of a book; Upbit's have 30 */
#define UNIT_FIELDS 4 /* of a level, in this order: */
enum { ASK_PRICE, BID_PRICE, ASK_SIZE, BID_SIZE };

typedef struct {
    PyObject *key; /* bytes: the name in quotes, and the colon */
    PyObject *words; /* of a WORD: a tuple of pairs, the text as bytes and what it stands for */
    enum kind kind;
    int is_needed, is_wanted;
} Field;

typedef struct {
    PyObject_HEAD
    Field *fields;
    Py_ssize_t count, wanted;
    PyObject *unit_keys[UNIT_FIELDS]; /* bytes, as Field.key; NULL where there are no levels */
    PyObject *number; /* called with a plain text */
    PyObject *odd_number; /* called with a text that is not: an exponent, a sign, something very small */
} Scanner;

/* A piece of a frame. */
typedef struct {
    const char *start, *end;
} Span;

typedef struct {
    Span all, digits; /* `digits` without sign and exponent */
    int is_negative, has_exponent;
    const char *point; /* NULL where there is none */
} Number;

static int
is_digit(char character)
{
    return character >= '0' && character <= '9';
}

/* -- what stands at a place: each returns where it ends, NULL where it is not what is expected -------------------- */

static const char *
skip_exponent(const char *at)
{
    int is_negative = *at == '-';
    at += is_negative || *at == '+';
    if (!is_digit(*at))
        return NULL;
    int exponent = *at++ - '0';
    if (is_digit(*at)) {
        if (is_negative) /* this near to zero only the readers in Python look */
            return NULL;
        exponent = 10 * exponent + (*at++ - '0');
    }
    return is_digit(*at) || exponent > MOST_ZEROS ? NULL : at;
}

static const char *
read_number(const char *at, Number *number)
{
    number->all.start = at;
    number->is_negative = *at == '-';
    at += number->is_negative;
    number->digits.start = at;
    if (*at == '0')
        at++;
    else if (is_digit(*at))
        do
            at++;
        while (is_digit(*at));
    else
        return NULL;
    number->point = NULL;
    if (*at == '.') {
        number->point = at++;
        if (!is_digit(*at))
            return NULL;
        do
            at++;
        while (is_digit(*at));
    }
    number->digits.end = at;
    if (at - number->digits.start > MOST_DIGITS)
        return NULL;
    number->has_exponent = *at == 'e' || *at == 'E';
    if (number->has_exponent && (at = skip_exponent(at + 1)) == NULL)
        return NULL;
    number->all.end = at;
    return at;
}

static const char *
read_whole(const char *at, long long *value)
{
    const char *start = at;
    long long found = 0;
    for (; is_digit(*at); at++) {
        if (at - start == MOST_WHOLE_DIGITS)
            return NULL;
        found = 10 * found + (*at - '0');
    }
    if (at == start || (*start == '0' && at - start > 1))
        return NULL;
    *value = found;
    return at;
}

static const char *
read_text(const char *at, Span *text)
{
    if (*at++ != '"')
        return NULL;
    text->start = at;
    while (*at >= ' ' && *at < 127 && *at != '"' && *at != '\\')
        at++;
    text->end = at;
    return *at == '"' ? at + 1 : NULL;
}

/* A market code: printable, without spaces. */
static const char *
read_symbol(const char *at, Span *text)
{
    at = read_text(at, text);
    if (at == NULL || text->start == text->end || text->end - text->start > MOST_SYMBOL_BYTES)
        return NULL;
    return memchr(text->start, ' ', (size_t)(text->end - text->start)) == NULL ? at : NULL;
}

/* A date such as "2026-11-29". */
static const char *
skip_day(const char *at)
{
    static const char shape[] = "\"9999-99-99\"";
    const char *start = at;
    for (const char *each = shape; *each; each++, at++)
        if (*each == '9' ? !is_digit(*at) : *at != *each)
            return NULL;
    int month = 10 * (start[6] - '0') + (start[7] - '0'), day = 10 * (start[9] - '0') + (start[10] - '0');
    /* Whether a month has a 29th is for the calendar to say. */
    return start[1] != '0' && month >= 1 && month <= 12 && day >= 1 && day <= 28 ? at : NULL;
}

static const char *
skip_literal(const char *at, const char *literal)
{
    for (; *literal; literal++, at++)
        if (*at != *literal)
            return NULL;
    return at;
}

static const char *
skip_flag(const char *at)
{
    return *at == 't' ? skip_literal(at, "true") : skip_literal(at, "false");
}

static const char *
skip_any(const char *at)
{
    Number number;
    Span text;
    if (*at == '"')
        return read_text(at, &text);
    if (*at == 't' || *at == 'f')
        return skip_flag(at);
    return *at == 'n' ? skip_literal(at, "null") : read_number(at, &number);
}

/* A field that nobody here has heard of. */
static const char *
skip_new_field(const char *at)
{
    Span key;
    at = read_text(at, &key);
    return at == NULL || *at != ':' ? NULL : skip_any(at + 1);
}

static int
stands_at(const char *at, const char *end, PyObject *key)
{
    Py_ssize_t length = PyBytes_GET_SIZE(key);
    return end - at >= length && memcmp(at, PyBytes_AS_STRING(key), (size_t)length) == 0;
}

/* One level: an object of four numbers, none of them negative, in Upbit's order. */
static const char *
read_level(Scanner *self, const char *at, const char *end, Number numbers[UNIT_FIELDS])
{
    if (*at++ != '{')
        return NULL;
    for (int each = 0; each < UNIT_FIELDS; each++) {
        if (each && *at++ != ',')
            return NULL;
        if (!stands_at(at, end, self->unit_keys[each]))
            return NULL;
        at = read_number(at + PyBytes_GET_SIZE(self->unit_keys[each]), &numbers[each]);
        if (at == NULL || numbers[each].is_negative)
            return NULL;
    }
    return *at == '}' ? at + 1 : NULL;
}

static const char *
skip_levels(Scanner *self, const char *at, const char *end)
{
    Number numbers[UNIT_FIELDS];
    if (self->unit_keys[0] == NULL || *at++ != '[')
        return NULL;
    for (;;) {
        if ((at = read_level(self, at, end, numbers)) == NULL)
            return NULL;
        if (*at == ']')
            return at + 1;
        if (*at++ != ',')
            return NULL;
    }
}

/* -- what is made of it: each returns a new reference, NULL with an exception ------------------------------------- */

static PyObject *
as_text(const char *start, const char *end)
{
    return PyUnicode_FromKindAndData(PyUnicode_1BYTE_KIND, start, end - start);
}

/* One string for each market, shared by all its data. */
static PyObject *
as_symbol(Span text)
{
    PyObject *symbol = as_text(text.start, text.end);
    if (symbol != NULL)
        PyUnicode_InternInPlace(&symbol);
    return symbol;
}

/* Milliseconds since 1970, below PAST_MOMENTS, as aware UTC. */
static PyObject *
as_moment(long long stamp)
{
    int millisecond = (int)(stamp % 1000), second = (int)(stamp / 1000 % 86400);
    /* Days to a date: years begin in March, so that a leap day is a year's last, and 400 of them are always as long. */
    int day = (int)(stamp / 86400000) + 719468, era = day / 146097, of_era = day % 146097;
    int year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int of_year = of_era - (365 * year + year / 4 - year / 100), month = (5 * of_year + 2) / 153;
    int of_month = of_year - (153 * month + 2) / 5 + 1;
    month += month < 10 ? 3 : -9;
    return PyDateTimeAPI->DateTime_FromDateAndTime(
        400 * era + year + (month <= 2), month, of_month, second / 3600, second / 60 % 60, second % 60,
        millisecond * 1000, PyDateTime_TimeZone_UTC, PyDateTimeAPI->DateTimeType);
}

/* Where the plain spelling of the number ends; NULL where it has none that is merely shorter. */
static const char *
plain_end(const Number *number)
{
    const char *end = number->digits.end, *point = number->point;
    if (number->has_exponent || number->is_negative)
        return NULL;
    if (point == NULL)
        return end;
    while (end[-1] == '0')
        end--;
    if (end[-1] == '.')
        return end - 1;
    if (*number->digits.start != '0')
        return end;
    for (const char *place = point + 1; place <= point + DIRECT_PLACES; place++)
        if (*place != '0')
            return end;
    return NULL;
}

static PyObject *
as_number(Scanner *self, const Number *number)
{
    const char *end = plain_end(number);
    PyObject *text = as_text(number->all.start, end != NULL ? end : number->all.end);
    if (text == NULL)
        return NULL;
    PyObject *made = PyObject_CallOneArg(end != NULL ? self->number : self->odd_number, text);
    Py_DECREF(text);
    return made;
}

/* What the word stands for, borrowed; NULL without an exception where it is not known. */
static PyObject *
meaning(PyObject *words, Span text)
{
    Py_ssize_t length = text.end - text.start;
    for (Py_ssize_t each = 0; each < PyTuple_GET_SIZE(words); each++) {
        PyObject *pair = PyTuple_GET_ITEM(words, each), *word = PyTuple_GET_ITEM(pair, 0);
        if (PyBytes_GET_SIZE(word) == length && memcmp(PyBytes_AS_STRING(word), text.start, (size_t)length) == 0)
            return PyTuple_GET_ITEM(pair, 1);
    }
    return NULL;
}

/* Reads the value of one field. `*made` becomes a new reference where the field is wanted, else it stays NULL. NULL
   where it is not as expected, or with an exception. */
static const char *
read_value(Scanner *self, const Field *field, const char *at, const char *end, PyObject **made)
{
    Number number;
    Span text;
    long long whole;
    PyObject *known;
    if (*at == 'n' && !field->is_needed) {
        at = skip_literal(at, "null");
        if (at != NULL && field->is_wanted)
            *made = Py_NewRef(Py_None);
        return at;
    }
    switch (field->kind) {
    case ANY:
        return skip_any(at);
    case DAY:
        return skip_day(at);
    case FLAG:
        return skip_flag(at);
    case UNITS:
        return skip_levels(self, at, end);
    case SYMBOL:
        at = read_symbol(at, &text);
        if (at != NULL && field->is_wanted && (*made = as_symbol(text)) == NULL)
            return NULL;
        return at;
    case TEXT:
        at = read_text(at, &text);
        if (at != NULL && field->is_wanted && (*made = as_text(text.start, text.end)) == NULL)
            return NULL;
        return at;
    case WORD:
        at = read_text(at, &text);
        if (at == NULL || (known = meaning(field->words, text)) == NULL)
            return NULL;
        if (field->is_wanted)
            *made = Py_NewRef(known);
        return at;
    case AMOUNT:
    case SIGNED:
        at = read_number(at, &number);
        if (at == NULL || (number.is_negative && field->kind == AMOUNT))
            return NULL;
        if (field->is_wanted && (*made = as_number(self, &number)) == NULL)
            return NULL;
        return at;
    case WHOLE:
        at = read_whole(at, &whole);
        if (at != NULL && field->is_wanted && (*made = PyLong_FromLongLong(whole)) == NULL)
            return NULL;
        return at;
    case MOMENT:
        at = read_whole(at, &whole);
        if (at == NULL || whole >= PAST_MOMENTS)
            return NULL;
        if (field->is_wanted && (*made = as_moment(whole)) == NULL)
            return NULL;
        return at;
    }
    return NULL;
}

static Py_ssize_t
field_at(Scanner *self, const char *at, const char *end, Py_ssize_t expected)
{
    if (expected < self->count && stands_at(at, end, self->fields[expected].key))
        return expected;
    for (Py_ssize_t each = 0; each < self->count; each++)
        if (stands_at(at, end, self->fields[each].key))
            return each;
    return -1;
}

/* Reads the whole frame into `values`, which holds NULL for each wanted field. Whether it is of the usual shape. */
static int
read_frame(Scanner *self, const char *at, const char *end, PyObject *values[])
{
    unsigned long long seen = 0;
    Py_ssize_t expected = 0;
    if (*at++ != '{')
        return 0;
    for (;;) {
        Py_ssize_t place = field_at(self, at, end, expected);
        if (place < 0)
            at = skip_new_field(at);
        else if (seen >> place & 1)
            return 0;
        else {
            const Field *field = &self->fields[place];
            at = read_value(self, field, at + PyBytes_GET_SIZE(field->key), end, &values[place]);
            seen |= 1ULL << place;
            expected = place + 1;
        }
        if (at == NULL)
            return 0;
        if (*at == '}')
            break;
        if (*at++ != ',')
            return 0;
    }
    if (at + 1 != end)
        return 0;
    for (Py_ssize_t each = 0; each < self->count; each++)
        if (self->fields[each].is_needed && !(seen >> each & 1))
            return 0;
    return 1;
}

static int
check_bytes(PyObject *raw)
{
    if (PyBytes_CheckExact(raw))
        return 1;
    PyErr_Format(PyExc_TypeError, "a frame is bytes, not %.100s", Py_TYPE(raw)->tp_name);
    return 0;
}

PyDoc_STRVAR(scan_doc,
    "scan(raw, /) -> tuple | None\n\n"
    "The wanted fields of a frame in their order, None for one that is left out; None where the frame is not of the\n"
    "usual shape in all its parts, wanted or not.");

static PyObject *
scan(Scanner *self, PyObject *raw)
{
    PyObject *values[MOST_FIELDS] = {NULL}, *found = NULL;
    if (!check_bytes(raw))
        return NULL;
    const char *start = PyBytes_AS_STRING(raw);
    int is_usual = read_frame(self, start, start + PyBytes_GET_SIZE(raw), values);
    if (is_usual && (found = PyTuple_New(self->wanted)) != NULL) {
        for (Py_ssize_t each = 0, place = 0; each < self->count; each++)
            if (self->fields[each].is_wanted) {
                PyTuple_SET_ITEM(found, place++, values[each] != NULL ? values[each] : Py_NewRef(Py_None));
                values[each] = NULL;
            }
    }
    for (Py_ssize_t each = 0; each < self->count; each++)
        Py_XDECREF(values[each]);
    if (found != NULL)
        return found;
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(number_doc,
    "number(raw, key, /) -> Decimal | None\n\n"
    "The number under `key` (bytes: in quotes, with the colon) of a frame that `scan` has taken; None where it has\n"
    "none.");

static PyObject *
number_of(Scanner *self, PyObject *const *arguments, Py_ssize_t count)
{
    Number number;
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "number takes a frame and a key, not %zd arguments", count);
    PyObject *raw = arguments[0], *key = arguments[1];
    if (!check_bytes(raw) || !check_bytes(key))
        return NULL;
    /* A text has no quotes in it, so that what looks like the key is the key. */
    const char *at = PyBytes_AS_STRING(raw), *end = at + PyBytes_GET_SIZE(raw);
    while (at < end && (at = memchr(at, '"', (size_t)(end - at))) != NULL) {
        if (stands_at(at, end, key)) {
            if (read_number(at + PyBytes_GET_SIZE(key), &number) == NULL)
                break;
            return as_number(self, &number);
        }
        at++;
    }
    Py_RETURN_NONE;
}

/* Where the first level begins; NULL where there is none. */
static const char *
find_levels(const char *at, const char *end)
{
    at = memchr(at, '[', (size_t)(end - at));
    return at == NULL ? NULL : at + 1;
}

PyDoc_STRVAR(first_doc,
    "first(raw, /) -> tuple | None\n\n"
    "The first level of a book that `scan` has taken: prices of ask and bid, then the sizes.");

static PyObject *
first(Scanner *self, PyObject *raw)
{
    Number numbers[UNIT_FIELDS];
    if (!check_bytes(raw))
        return NULL;
    const char *at = PyBytes_AS_STRING(raw), *end = at + PyBytes_GET_SIZE(raw);
    if (self->unit_keys[0] == NULL || (at = find_levels(at, end)) == NULL || read_level(self, at, end, numbers) == NULL)
        Py_RETURN_NONE;
    PyObject *found = PyTuple_New(UNIT_FIELDS);
    if (found == NULL)
        return NULL;
    for (int each = 0; each < UNIT_FIELDS; each++) {
        PyObject *made = as_number(self, &numbers[each]);
        if (made == NULL) {
            Py_DECREF(found);
            return NULL;
        }
        PyTuple_SET_ITEM(found, each, made);
    }
    return found;
}

/* A book's levels as they are written, in the frame's order. */
typedef struct {
    Number numbers[MOST_LEVELS][UNIT_FIELDS];
    Py_ssize_t count;
} Levels;

/* Whether the levels of the book are of the usual shape, and not too many. */
static int
read_levels(Scanner *self, PyObject *raw, Levels *levels)
{
    const char *at = PyBytes_AS_STRING(raw), *end = at + PyBytes_GET_SIZE(raw);
    levels->count = 0;
    if (self->unit_keys[0] == NULL || (at = find_levels(at, end)) == NULL)
        return 0;
    while (levels->count < MOST_LEVELS) {
        if ((at = read_level(self, at, end, levels->numbers[levels->count])) == NULL)
            return 0;
        levels->count++;
        if (*at == ']')
            return 1;
        if (*at++ != ',')
            return 0;
    }
    return 0;
}

static int
are_same(const Number *one, const Number *other)
{
    size_t length = (size_t)(one->all.end - one->all.start);
    return length == (size_t)(other->all.end - other->all.start) &&
           memcmp(one->all.start, other->all.start, length) == 0;
}

static PyObject *
made_of(Scanner *self, const Number *price, const Number *size, PyObject *make)
{
    PyObject *numbers[2] = {as_number(self, price), NULL}, *level = NULL;
    if (numbers[0] != NULL && (numbers[1] = as_number(self, size)) != NULL)
        level = PyObject_Vectorcall(make, numbers, 2, NULL);
    Py_XDECREF(numbers[0]);
    Py_XDECREF(numbers[1]);
    /* Nothing but two numbers is in it, so that it is in no cycle; fifty thousand of them, of all markets, would keep the
       collector busy for a tenth of a second. */
    if (level != NULL && PyObject_IS_GC(level))
        PyObject_GC_UnTrack(level);
    return level;
}

/* Puts the levels of one side into every other place of `all`, beginning with `side`: those that stand in the book
   before are taken from there. Both go from the best price outwards, so that each is looked for behind the last one
   found. Negative with an exception. */
static int
fill_side(Scanner *self, const Levels *levels, const Levels *before, PyObject *known, PyObject *make, PyObject *all,
          Py_ssize_t side)
{
    int price = side ? BID_PRICE : ASK_PRICE, size = side ? BID_SIZE : ASK_SIZE;
    Py_ssize_t next = 0;
    for (Py_ssize_t each = 0; each < levels->count; each++) {
        const Number *numbers = levels->numbers[each];
        PyObject *level = NULL;
        for (Py_ssize_t place = next; place < before->count && level == NULL; place++)
            if (are_same(&numbers[price], &before->numbers[place][price]) &&
                are_same(&numbers[size], &before->numbers[place][size])) {
                level = Py_NewRef(PyTuple_GET_ITEM(known, 2 * place + side));
                next = place + 1;
            }
        if (level == NULL && (level = made_of(self, &numbers[price], &numbers[size], make)) == NULL)
            return -1;
        PyTuple_SET_ITEM(all, 2 * each + side, level);
    }
    return 0;
}

/* One side of all levels, without padding. */
static PyObject *
side_of(PyObject *all, Py_ssize_t side)
{
    Py_ssize_t count = 0, place = 0;
    for (Py_ssize_t each = side; each < PyTuple_GET_SIZE(all); each += 2)
        count += PyTuple_GET_ITEM(all, each) != Py_None;
    PyObject *found = PyTuple_New(count);
    for (Py_ssize_t each = side; found != NULL && each < PyTuple_GET_SIZE(all); each += 2)
        if (PyTuple_GET_ITEM(all, each) != Py_None)
            PyTuple_SET_ITEM(found, place++, Py_NewRef(PyTuple_GET_ITEM(all, each)));
    return found;
}

PyDoc_STRVAR(sides_doc,
    "sides(raw, before, make, /) -> tuple | None\n\n"
    "Asks and bids of a book that `scan` has taken, and what to hand in as `before` with the market's next one (None\n"
    "with the first): a level that stands there, price and size written alike, is taken from there; for any other\n"
    "`make` is called with the two numbers. What it gives is hidden from the garbage collector, so it may hold nothing\n"
    "but numbers; where it is None the level is left out.");

static PyObject *
sides(Scanner *self, PyObject *const *arguments, Py_ssize_t count)
{
    Levels levels, before;
    before.count = 0;
    if (count != 3)
        return PyErr_Format(PyExc_TypeError, "sides takes a frame, what was before and a callable, not %zd arguments",
                            count);
    PyObject *raw = arguments[0], *kept = arguments[1], *make = arguments[2], *known = NULL;
    if (!check_bytes(raw))
        return NULL;
    if (kept != Py_None) {
        PyObject *old;
        if (!PyArg_ParseTuple(kept, "SO!:before", &old, &PyTuple_Type, &known))
            return NULL;
        if (!read_levels(self, old, &before) || 2 * before.count != PyTuple_GET_SIZE(known))
            before.count = 0;
    }
    if (!read_levels(self, raw, &levels))
        Py_RETURN_NONE;
    PyObject *found = NULL, *asks = NULL, *bids = NULL, *all = PyTuple_New(2 * levels.count);
    if (all != NULL && fill_side(self, &levels, &before, known, make, all, 0) == 0 &&
        fill_side(self, &levels, &before, known, make, all, 1) == 0 && (asks = side_of(all, 0)) != NULL &&
        (bids = side_of(all, 1)) != NULL)
        found = Py_BuildValue("(OO(OO))", asks, bids, raw, all);
    Py_XDECREF(asks);
    Py_XDECREF(bids);
    Py_XDECREF(all);
    return found;
}

/* -- the type ------------------------------------------------------------------------------------------------------ */

static int
take_field(Field *field, PyObject *row)
{
    PyObject *key, *words;
    int kind, is_needed, is_wanted;
    if (!PyArg_ParseTuple(row, "SippO!:field", &key, &kind, &is_needed, &is_wanted, &PyTuple_Type, &words))
        return -1;
    int is_made = kind != ANY && kind != DAY && kind != FLAG && kind != UNITS;
    if (kind < ANY || kind > UNITS || (is_wanted && !is_made)) {
        PyErr_Format(PyExc_ValueError, "%R is no field that can be read so", row);
        return -1;
    }
    for (Py_ssize_t each = 0; each < PyTuple_GET_SIZE(words); each++) {
        PyObject *pair = PyTuple_GET_ITEM(words, each);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyBytes_Check(PyTuple_GET_ITEM(pair, 0))) {
            PyErr_Format(PyExc_ValueError, "%R is no word and what it stands for", pair);
            return -1;
        }
    }
    field->key = Py_NewRef(key);
    field->words = Py_NewRef(words);
    field->kind = (enum kind)kind;
    field->is_needed = is_needed;
    field->is_wanted = is_wanted;
    return 0;
}

static PyObject *
scanner_new(PyTypeObject *type, PyObject *arguments, PyObject *names)
{
    static char *known_names[] = {"fields", "unit_keys", "number", "odd_number", NULL};
    PyObject *rows, *unit_keys, *number, *odd_number;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "O!O!OO:Scanner", known_names, &PyTuple_Type, &rows,
                                     &PyTuple_Type, &unit_keys, &number, &odd_number))
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(rows), units = PyTuple_GET_SIZE(unit_keys);
    if (count > MOST_FIELDS || (units != 0 && units != UNIT_FIELDS))
        return PyErr_Format(PyExc_ValueError, "%zd fields and %zd of a level are not what frames have", count, units);
    Scanner *self = (Scanner *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->number = Py_NewRef(number);
    self->odd_number = Py_NewRef(odd_number);
    self->fields = PyMem_Calloc((size_t)count + 1, sizeof(Field));
    if (self->fields == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t each = 0; each < count; each++) {
        if (take_field(&self->fields[each], PyTuple_GET_ITEM(rows, each)) < 0) {
            Py_DECREF(self);
            return NULL;
        }
        self->count++;
        self->wanted += self->fields[each].is_wanted;
    }
    for (Py_ssize_t each = 0; each < units; each++) {
        PyObject *key = PyTuple_GET_ITEM(unit_keys, each);
        if (!check_bytes(key)) {
            Py_DECREF(self);
            return NULL;
        }
        self->unit_keys[each] = Py_NewRef(key);
    }
    return (PyObject *)self;
}

static int
scanner_traverse(Scanner *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    for (Py_ssize_t each = 0; each < self->count; each++)
        Py_VISIT(self->fields[each].words);
    Py_VISIT(self->number);
    Py_VISIT(self->odd_number);
    return 0;
}

static int
scanner_clear(Scanner *self)
{
    for (Py_ssize_t each = 0; each < self->count; each++) {
        Py_CLEAR(self->fields[each].key);
        Py_CLEAR(self->fields[each].words);
    }
    self->count = 0;
    for (int each = 0; each < UNIT_FIELDS; each++)
        Py_CLEAR(self->unit_keys[each]);
    Py_CLEAR(self->number);
    Py_CLEAR(self->odd_number);
    return 0;
}

static void
scanner_dealloc(Scanner *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    scanner_clear(self);
    PyMem_Free(self->fields);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
scanner_repr(Scanner *self)
{
    return PyUnicode_FromFormat("<Scanner of %zd fields, %zd wanted>", self->count, self->wanted);
}

static PyMethodDef scanner_methods[] = {
    {"scan", (PyCFunction)scan, METH_O, scan_doc},
    {"number", (PyCFunction)(void (*)(void))number_of, METH_FASTCALL, number_doc},
    {"first", (PyCFunction)first, METH_O, first_doc},
    {"sides", (PyCFunction)(void (*)(void))sides, METH_FASTCALL, sides_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(scanner_doc,
    "Scanner(fields, unit_keys, number, odd_number)\n--\n\n"
    "Reads frames of one kind and spelling. `fields` are tuples of key (bytes: in quotes, with the colon), kind,\n"
    "whether it is needed, whether it is wanted, and the words it may be; `unit_keys` are the four keys of a level, or\n"
    "none; `number` makes a number of its plain text, `odd_number` of any other. Cannot be changed; safe from any\n"
    "thread.");

static PyType_Slot scanner_slots[] = {
    {Py_tp_doc, (void *)scanner_doc},
    {Py_tp_new, scanner_new},
    {Py_tp_dealloc, scanner_dealloc},
    {Py_tp_traverse, scanner_traverse},
    {Py_tp_clear, scanner_clear},
    {Py_tp_repr, scanner_repr},
    {Py_tp_methods, scanner_methods},
    {0, NULL},
};

static PyType_Spec scanner_spec = {
    .name = "upbit_backbone.unify._scanner.Scanner",
    .basicsize = sizeof(Scanner),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scanner_slots,
};

static int
module_exec(PyObject *module)
{
    PyDateTime_IMPORT;
    if (PyDateTimeAPI == NULL)
        return -1;
    for (int each = ANY; each <= UNITS; each++)
        if (PyModule_AddIntConstant(module, KINDS[each], each) < 0)
            return -1;
    PyObject *type = PyType_FromModuleAndSpec(module, &scanner_spec, NULL);
    if (type == NULL)
        return -1;
    int result = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return result;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_scanner",
    .m_doc = "Reads messages of Upbit's usual shape; see `scanner.py`.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__scanner(void)
{
    return PyModuleDef_Init(&module_definition);
}
