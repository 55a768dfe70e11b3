/* What `rolecall.store` does, in C: to put the next row into the map of a journal's end. And `unpack`, which reads such
   a row for `rolecall.packed`.

   A training loop fills the processor's caches between two rows, and code that ran a millisecond ago is cold. The same
   work in Python touches ten times the memory (docs/performance.md), so this one step of it stands here. Everything
   else, and this too where it was not built, is Python. A courier shares its processor with the SDK that it feeds, and
   reading a row was a twentieth of what that takes.

   To put a row, the interpreter lock is held from the first look at it to the end of the store, and nothing in between
   runs Python code or allocates what the garbage collector knows. So no thread and no signal handler can come in. To
   read one is not like that: it makes a row, and keeps nothing that someone who comes in could change. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>
#include <time.h>

#if PY_BIG_ENDIAN
#error "rows are packed as they are in memory, little-endian"
#endif
#ifdef Py_GIL_DISABLED
#error "there is no interpreter lock to hold"
#endif

#define MADE_FOR 2     /* the number that rolecall.compiled expects: another with each change of what is here */

#define FORMS 16       /* that are tried before Python is asked; a role that logs more kinds of rows in turn is rare */
#define NAMED 20       /* `first`, `second` and `form` of rolecall.packed */
#define HEAD (24 + NAMED)
#define MARKED 9       /* the checksum's digits and `=`, before the payload */

typedef struct {
    PyObject *names;   /* a tuple of str */
    PyObject *letters; /* bytes, `d` or `q` for each */
    char named[NAMED];
} Form;

typedef struct {
    PyObject_HEAD
    Py_buffer pages;   /* no `obj`: closed */
    long long start, limit, end, rows;
    double since, until;
    Form forms[FORMS];
    int known;
    char *scratch;     /* a packed row, and behind it its line */
    size_t room;
} Store;

/* ------------------------------------------------------------------ a line */

/* CRC-32 as in zlib, four bytes at a time by their eight halves: tables of 512 bytes, where whole bytes take 4 KiB,
   of which more is to be fetched anew for a row than is gained. */
static uint32_t checks[8][16];

static void
fill_checks(void)
{
    for (uint32_t half = 0; half < 16; half++) {
        uint32_t check = half;
        for (int table = 0; table < 8; table++) {
            for (int bit = 0; bit < 4; bit++) {
                check = (check & 1) ? 0xEDB88320u ^ (check >> 1) : check >> 1;
            }
            checks[table][half] = check;
        }
    }
}

/* Of base64, which comes in fours. */
static uint32_t
checksum(const char *data, size_t size)
{
    uint32_t check = ~0u;
    for (; size > 0; size -= 4, data += 4) {
        uint32_t four;
        memcpy(&four, data, 4);
        check ^= four;
        check = checks[7][check & 15] ^ checks[6][check >> 4 & 15] ^ checks[5][check >> 8 & 15]
              ^ checks[4][check >> 12 & 15] ^ checks[3][check >> 16 & 15] ^ checks[2][check >> 20 & 15]
              ^ checks[1][check >> 24 & 15] ^ checks[0][check >> 28];
    }
    return ~check;
}

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Writes the base64 of some bytes; returns its end. */
static char *
put_base64(char *to, const unsigned char *body, size_t size)
{
    for (; size >= 3; size -= 3, body += 3) {
        uint32_t three = (uint32_t)body[0] << 16 | (uint32_t)body[1] << 8 | body[2];
        *to++ = base64[three >> 18];
        *to++ = base64[three >> 12 & 63];
        *to++ = base64[three >> 6 & 63];
        *to++ = base64[three & 63];
    }
    if (size > 0) {
        uint32_t rest = (uint32_t)body[0] << 16 | (size == 2 ? (uint32_t)body[1] << 8 : 0);
        *to++ = base64[rest >> 18];
        *to++ = base64[rest >> 12 & 63];
        *to++ = size == 2 ? base64[rest >> 6 & 63] : '=';
        *to++ = '=';
    }
    return to;
}

/* What a frame of a packed row begins with: the checksum, and how it is encoded. */
static void
put_mark(char *line, const char *payload, size_t size)
{
    uint32_t check = checksum(payload, size);
    for (int digit = 0; digit < 8; digit++) {
        line[digit] = "0123456789abcdef"[check >> (28 - 4 * digit) & 15];
    }
    line[8] = '=';
}

/* The frame of a packed row, as `rolecall.frames.encode_packed` makes it; its length. */
static size_t
put_frame(char *line, const char *body, size_t size)
{
    char *payload = line + MARKED, *end = put_base64(payload, (const unsigned char *)body, size);
    put_mark(line, payload, end - payload);
    *end++ = '\n';
    return end - line;
}

/* Whether a line begins as its payload, of whole fours, would have it. */
static int
is_sound(const char *line, size_t size)
{
    char mark[MARKED];
    if (size <= MARKED || line[8] != '=' || (size - MARKED) % 4 != 0) {
        return 0;
    }
    put_mark(mark, line + MARKED, size - MARKED);
    return memcmp(line, mark, MARKED) == 0;
}

static signed char sixths[256]; /* what a letter of base64 stands for; -1 if it is none */

static void
fill_sixths(void)
{
    memset(sixths, -1, sizeof(sixths));
    for (int value = 0; value < 64; value++) {
        sixths[(unsigned char)base64[value]] = (signed char)value;
    }
}

/* Three bytes of four letters; 0 if these are others. */
static int
get_three(unsigned char *to, const unsigned char *from)
{
    int first = sixths[from[0]], second = sixths[from[1]], third = sixths[from[2]], fourth = sixths[from[3]];
    if ((first | second | third | fourth) < 0) {
        return 0;
    }
    to[0] = (unsigned char)(first << 2 | second >> 4);
    to[1] = (unsigned char)(second << 4 | third >> 2);
    to[2] = (unsigned char)(third << 6 | fourth);
    return 1;
}

/* Reads base64 of whole fours, as `put_base64` writes it and no other; how many bytes, or -1. There is to be room for
   three bytes of each four. */
static Py_ssize_t
get_base64(unsigned char *to, const char *from, size_t size)
{
    const unsigned char *text = (const unsigned char *)from, *last = text + size - 4;
    unsigned char *start = to, ending[4], three[3];
    for (; text < last; text += 4, to += 3) {
        if (!get_three(to, text)) {
            return -1;
        }
    }
    int missing = last[3] != '=' ? 0 : last[2] != '=' ? 1 : 2;
    memcpy(ending, last, 4);
    memset(ending + 4 - missing, 'A', missing);
    if (!get_three(three, ending) || memcmp(three + 3 - missing, "\0\0", missing) != 0) {
        return -1;
    }
    memcpy(to, three, 3 - missing);
    return to + 3 - missing - start;
}

/* ------------------------------------------------------------------- forms */

static int
is_same_name(PyObject *one, PyObject *other)
{
    if (one == other) {
        return 1;
    }
    /* the comparison of anything else may be anything; that of two texts cannot fail */
    return PyUnicode_CheckExact(one) && PyUnicode_Compare(one, other) == 0;
}

/* Writes a value as it is in memory; 0 if it is not of the kind. */
static int
put_value(char *to, PyObject *value, char letter)
{
    if (letter == 'd') {
        if (!PyFloat_CheckExact(value)) {
            return 0;
        }
        double number = PyFloat_AsDouble(value);
        memcpy(to, &number, 8);
        return 1;
    }
    int beyond;
    if (!PyLong_CheckExact(value)) {
        return 0;
    }
    long long number = PyLong_AsLongLongAndOverflow(value, &beyond);
    memcpy(to, &number, 8);
    return beyond == 0;
}

/* Writes all values, if the row has this form. */
static int
put_values(char *to, PyObject *data, const Form *form)
{
    Py_ssize_t at = 0, position = 0, count = PyTuple_Size(form->names);
    PyObject *name, *value;
    const char *letters = PyBytes_AsString(form->letters);
    if (PyDict_Size(data) != count) {
        return 0;
    }
    while (PyDict_Next(data, &position, &name, &value)) {
        if (at == count || !is_same_name(name, PyTuple_GetItem(form->names, at))
            || !put_value(to + 8 * at, value, letters[at])) {
            return 0;
        }
        at++;
    }
    return at == count;
}

/* Forgets the last form. It may run anyone's code, so the list is in order before. */
static void
drop_last(Store *self)
{
    Form last = self->forms[--self->known];
    Py_DECREF(last.names);
    Py_DECREF(last.letters);
}

static void
drop_all(Store *self)
{
    while (self->known > 0) {
        drop_last(self);
    }
}

/* Moves a form to the front; those before it move back by one. */
static void
move_to_front(Store *self, int at)
{
    Form form = self->forms[at];
    memmove(self->forms + 1, self->forms, at * sizeof(Form));
    self->forms[0] = form;
}

/* The form of a row, whose values are then in the scratch; it comes first from now on. */
static const Form *
find_form(Store *self, PyObject *data)
{
    for (int at = 0; at < self->known; at++) {
        if (put_values(self->scratch + HEAD, data, &self->forms[at])) {
            move_to_front(self, at);
            return self->forms;
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------- Store */

static int
is_open(const Store *self)
{
    return self->pages.obj != NULL;
}

/* Puts a line behind the last one, if there is room. */
static int
store(Store *self, const char *line, size_t size)
{
    if (!is_open(self) || size == 0 || self->end < self->start || self->limit - self->end < (long long)size) {
        return 0;
    }
    self->rows++;
    memcpy((char *)self->pages.buf + (self->end - self->start), line, size);
    self->end += size;
    return 1;
}

static PyObject *
Store_put(Store *self, PyObject *const *args, Py_ssize_t count)
{
    char *line;
    Py_ssize_t size;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "put takes a number and a line");
        return NULL;
    }
    long long seq = PyLong_AsLongLong(args[0]);
    if ((seq == -1 && PyErr_Occurred()) || PyBytes_AsStringAndSize(args[1], &line, &size) < 0) {
        return NULL;
    }
    return PyBool_FromLong(seq == self->rows + 1 && store(self, line, size));
}

static PyObject *
Store_repeat(Store *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "repeat takes a step and metrics");
        return NULL;
    }
    struct timespec clock;
    int beyond = 0;
    if (!is_open(self) || !PyLong_CheckExact(args[0]) || !PyDict_CheckExact(args[1])
        || clock_gettime(CLOCK_REALTIME, &clock) != 0) {
        Py_RETURN_FALSE;
    }
    long long seq = self->rows + 1, step = PyLong_AsLongLongAndOverflow(args[0], &beyond);
    double now = (double)clock.tv_sec + 1e-9 * (double)clock.tv_nsec;
    const Form *form;
    if (beyond || !(self->since <= now && now < self->until) || !(form = find_form(self, args[1]))) {
        Py_RETURN_FALSE;
    }
    char *body = self->scratch;
    size_t size = HEAD + 8 * PyTuple_Size(form->names);
    memcpy(body, &seq, 8);
    memcpy(body + 8, &step, 8);
    memcpy(body + 16, &now, 8);
    memcpy(body + 24, form->named, NAMED);
    return PyBool_FromLong(store(self, body + size, put_frame(body + size, body, size)));
}

/* The bytes that a row of so many values takes in the scratch, and its line behind it. */
static size_t
scratch_of(size_t count)
{
    size_t size = HEAD + 8 * count;
    return size + MARKED + (size + 2) / 3 * 4 + 1;
}

static int
are_texts(PyObject *names)
{
    for (Py_ssize_t at = 0; at < PyTuple_Size(names); at++) {
        if (!PyUnicode_CheckExact(PyTuple_GetItem(names, at))) {
            return 0;
        }
    }
    return 1;
}

static PyObject *
Store_expect(Store *self, PyObject *args)
{
    PyObject *names, *letters, *named;
    if (!PyArg_ParseTuple(args, "O!O!O!:expect", &PyTuple_Type, &names, &PyBytes_Type, &letters, &PyBytes_Type,
                          &named)) {
        return NULL;
    }
    if (PyBytes_Size(letters) != PyTuple_Size(names) || PyBytes_Size(named) != NAMED || !are_texts(names)) {
        PyErr_SetString(PyExc_ValueError, "a form has texts, a letter for each, and the 20 bytes by which it is named");
        return NULL;
    }
    for (int at = 0; at < self->known; at++) {
        if (memcmp(self->forms[at].named, PyBytes_AsString(named), NAMED) == 0) {
            move_to_front(self, at);
            Py_RETURN_NONE;
        }
    }
    size_t needed = scratch_of(PyTuple_Size(names));
    if (needed > self->room) {
        char *larger = PyMem_Realloc(self->scratch, needed);
        if (larger == NULL) {
            return PyErr_NoMemory();
        }
        self->scratch = larger;
        self->room = needed;
    }
    if (self->known == FORMS) {
        drop_last(self);
    }
    Form form = {.names = Py_NewRef(names), .letters = Py_NewRef(letters)};
    memcpy(form.named, PyBytes_AsString(named), NAMED);
    self->forms[self->known++] = form;
    move_to_front(self, self->known - 1);
    Py_RETURN_NONE;
}

static PyObject *
Store_forget(Store *self, PyObject *ignored)
{
    drop_all(self);
    Py_RETURN_NONE;
}

/* Stores in other pages from now on. To let go of the old ones may run anyone's code, so it comes last. */
static void
turn_to(Store *self, Py_buffer pages, long long start)
{
    Py_buffer before = self->pages;
    self->pages = pages;
    self->start = start;
    self->limit = start + pages.len;
    PyBuffer_Release(&before); /* does nothing if there were none */
}

static PyObject *
Store_close(Store *self, PyObject *ignored)
{
    turn_to(self, (Py_buffer){0}, 0);
    Py_RETURN_NONE;
}

static PyObject *
Store_open(Store *self, PyObject *args)
{
    PyObject *object;
    long long start;
    Py_buffer pages;
    if (!PyArg_ParseTuple(args, "OL:open", &object, &start)
        || PyObject_GetBuffer(object, &pages, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    turn_to(self, pages, start);
    Py_RETURN_NONE;
}

static void
Store_dealloc(Store *self)
{
    PyTypeObject *type = Py_TYPE(self);
    drop_all(self);
    turn_to(self, (Py_buffer){0}, 0);
    PyMem_Free(self->scratch);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"open", (PyCFunction)Store_open, METH_VARARGS, NULL},
    {"close", (PyCFunction)Store_close, METH_NOARGS, NULL},
    {"put", (PyCFunction)(void (*)(void))Store_put, METH_FASTCALL, NULL},
    {"repeat", (PyCFunction)(void (*)(void))Store_repeat, METH_FASTCALL, NULL},
    {"expect", (PyCFunction)Store_expect, METH_VARARGS, NULL},
    {"forget", (PyCFunction)Store_forget, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"rows", T_LONGLONG, offsetof(Store, rows), 0, NULL},
    {"end", T_LONGLONG, offsetof(Store, end), 0, NULL},
    {"limit", T_LONGLONG, offsetof(Store, limit), READONLY, NULL},
    {"since", T_DOUBLE, offsetof(Store, since), 0, NULL},
    {"until", T_DOUBLE, offsetof(Store, until), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "As `rolecall.store.Store`."},
    {Py_tp_dealloc, Store_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "rolecall._speedups.Store",
    .basicsize = sizeof(Store),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

/* ------------------------------------------------------------------ unpack */

/* Adds one key to the metrics; 0, with an exception, if there is no memory for it. It lets go of the value. */
static int
put_metric(PyObject *metrics, PyObject *key, PyObject *value)
{
    int done = value != NULL && PyDict_SetItem(metrics, key, value) == 0;
    Py_XDECREF(value);
    return done;
}

/* The metrics of a row's values. */
static PyObject *
make_metrics(PyObject *keys, const char *letters, const unsigned char *values)
{
    PyObject *metrics = PyDict_New();
    for (Py_ssize_t at = 0; metrics != NULL && at < PyTuple_Size(keys); at++, values += 8) {
        double number;
        long long whole;
        memcpy(&number, values, 8);
        memcpy(&whole, values, 8);
        if (!put_metric(metrics, PyTuple_GetItem(keys, at),
                        letters[at] == 'd' ? PyFloat_FromDouble(number) : PyLong_FromLongLong(whole))) {
            Py_CLEAR(metrics);
        }
    }
    return metrics;
}

/* A row's number, step, time and metrics, if it has this form. */
static PyObject *
make_row(PyObject *form, PyObject *axis, const unsigned char *body, Py_ssize_t size)
{
    PyObject *keys, *letters, *rest;
    long long seq, step;
    double now;
    memcpy(&seq, body, 8);
    memcpy(&step, body + 8, 8);
    memcpy(&now, body + 16, 8);
    if (!PyArg_UnpackTuple(form, "form", 3, 3, &keys, &letters, &rest)) {
        return NULL;
    }
    if (!PyTuple_Check(keys) || !PyBytes_Check(letters) || PyBytes_Size(letters) != PyTuple_Size(keys)) {
        PyErr_SetString(PyExc_ValueError, "a form has keys, and a letter for each");
        return NULL;
    }
    if (size != HEAD + 8 * PyTuple_Size(keys) || !isfinite(now)) {
        Py_RETURN_NONE;
    }
    PyObject *metrics = make_metrics(keys, PyBytes_AsString(letters), body + HEAD);
    if (metrics != NULL && axis != Py_None && !put_metric(metrics, axis, PyLong_FromLongLong(step))) {
        Py_CLEAR(metrics);
    }
    return metrics == NULL ? NULL : Py_BuildValue("LLdN", seq, step, now, metrics);
}

/* The form by which a row is named, a new reference; NULL without an exception if it is not known. */
static PyObject *
get_form(PyObject *forms, const unsigned char *body)
{
    PyObject *named = PyBytes_FromStringAndSize((const char *)body + 24, NAMED);
    PyObject *form = named == NULL ? NULL : PyDict_GetItemWithError(forms, named);
    Py_XDECREF(named);
    return Py_XNewRef(form);
}

/* What a payload holds; None if that is no row of a known form. */
static PyObject *
read_payload(const char *payload, size_t size, PyObject *forms, PyObject *axis, unsigned char *body)
{
    Py_ssize_t length = get_base64(body, payload, size);
    PyObject *form = length < HEAD ? NULL : get_form(forms, body);
    if (form == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    PyObject *row = make_row(form, axis, body, length);
    Py_DECREF(form);
    return row;
}

static PyObject *
unpack(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_CheckExact(args[0]) || !PyDict_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "unpack takes a line, forms by what they are named, and an axis");
        return NULL;
    }
    const char *line = PyBytes_AsString(args[0]);
    size_t size = PyBytes_Size(args[0]);
    if (!is_sound(line, size)) {
        Py_RETURN_NONE;
    }
    /* Its own for each call: anyone's code may run, and unpack, while a row is made, as memory for it may be what sets
       the garbage collector off. */
    unsigned char small[2048], *body = size <= sizeof(small) ? small : PyMem_Malloc(size);
    if (body == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *row = read_payload(line + MARKED, size - MARKED, args[1], args[2], body);
    if (body != small) {
        PyMem_Free(body);
    }
    return row;
}

static PyMethodDef functions[] = {
    {"unpack", (PyCFunction)(void (*)(void))unpack, METH_FASTCALL,
     "The number, step, time and metrics of a packed row; None unless its line is sound and its form is known."},
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    fill_checks();
    fill_sixths();
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int added = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return added < 0 ? added : PyModule_AddIntMacro(module, MADE_FOR);
}

static PyModuleDef_Slot parts[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "rolecall._speedups",
    .m_doc = "What rolecall.store does, and rolecall.packed's unpack, in C.",
    .m_methods = functions,
    .m_slots = parts,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}
