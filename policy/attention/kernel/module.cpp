// The Python module. Tensors come as addresses and strides: with Python's own header alone it compiles in seconds.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "backward.h"
#include "forward.h"

namespace {

using namespace gemsmith;

// The numbers of a call, in the order in which policy/attention/fused.py gives them.
class Numbers {
   public:
    explicit Numbers(PyObject* sequence) : items_(PySequence_Fast(sequence, "expected a sequence of numbers")) {}
    ~Numbers() { Py_XDECREF(items_); }
    int64_t next() {
        if (items_ == nullptr || at_ >= PySequence_Fast_GET_SIZE(items_)) {
            complete_ = false;
            return 0;
        }
        return PyLong_AsLongLong(PySequence_Fast_GET_ITEM(items_, at_++));
    }
    bool done() const { return complete_ && items_ != nullptr && at_ == PySequence_Fast_GET_SIZE(items_); }
    Sizes sizes(float scale) {
        Sizes s{};
        s.batches = next(), s.heads = next(), s.groups = next();
        s.queries = next(), s.keys = next(), s.width = next();
        s.lo = reinterpret_cast<const int32_t*>(next());
        s.hi = reinterpret_cast<const int32_t*>(next());
        s.threads = static_cast<int>(next());
        s.scale = scale;
        return s;
    }
    template <typename T>
    Tensor<T> tensor() {
        T* data = reinterpret_cast<T*>(next());
        const int64_t batch = next(), head = next(), token = next();
        return {data, batch, head, token};
    }

   private:
    PyObject* items_;
    Py_ssize_t at_ = 0;
    bool complete_ = true;
};

template <typename Work>
PyObject* finish(const Numbers& numbers, const Work& work) {
    if (!numbers.done() || PyErr_Occurred()) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "the kernel was given a wrong number of arguments");
        return nullptr;
    }
    bool enough = true;
    Py_BEGIN_ALLOW_THREADS
    try {
        work.run();
    } catch (const std::bad_alloc&) {
        enough = false;
    }
    Py_END_ALLOW_THREADS
    if (!enough) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

template <typename T>
PyObject* run_forward(Numbers& n, float scale) {
    const Sizes s = n.sizes(scale);
    const auto query = n.tensor<const T>(), key = n.tensor<const T>(), value = n.tensor<const T>();
    const auto out = n.tensor<T>();
    float* log_sum = reinterpret_cast<float*>(n.next());
    return finish(n, Forward<T>{s, query, key, value, out, log_sum});
}

template <typename T>
PyObject* run_backward(Numbers& n, float scale) {
    const Sizes s = n.sizes(scale);
    const auto query = n.tensor<const T>(), key = n.tensor<const T>(), value = n.tensor<const T>();
    const auto out = n.tensor<const T>(), grad = n.tensor<const T>();
    const float* log_sum = reinterpret_cast<const float*>(n.next());
    const auto query_grad = n.tensor<T>(), key_grad = n.tensor<T>(), value_grad = n.tensor<T>();
    return finish(n, Backward<T>{s, query, key, value, out, grad, log_sum, query_grad, key_grad, value_grad});
}

PyObject* forward(PyObject*, PyObject* args) {
    PyObject* sequence;
    double scale;
    int half;
    if (!PyArg_ParseTuple(args, "Odp", &sequence, &scale, &half)) return nullptr;
    Numbers numbers(sequence);
    return half ? run_forward<BFloat16>(numbers, static_cast<float>(scale))
                : run_forward<float>(numbers, static_cast<float>(scale));
}

PyObject* backward(PyObject*, PyObject* args) {
    PyObject* sequence;
    double scale;
    int half;
    if (!PyArg_ParseTuple(args, "Odp", &sequence, &scale, &half)) return nullptr;
    Numbers numbers(sequence);
    return half ? run_backward<BFloat16>(numbers, static_cast<float>(scale))
                : run_backward<float>(numbers, static_cast<float>(scale));
}

PyObject* panel(PyObject*, PyObject*) { return PyLong_FromLong(PANEL); }

PyMethodDef methods[] = {
    {"forward", forward, METH_VARARGS, "Attention over key intervals; writes the output and the log-sums."},
    {"backward", backward, METH_VARARGS, "Gradients of queries, keys and values."},
    {"panel", panel, METH_NOARGS, "Head widths must be multiples of this."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "attention", "Gemma 3's attention on a CPU.", -1, methods,
                          nullptr, nullptr, nullptr, nullptr};

}  // namespace

#define JOINED(a, b) a##b
#define INIT(name) JOINED(PyInit_, name)
PyMODINIT_FUNC INIT(TORCH_EXTENSION_NAME)(void) { return PyModule_Create(&definition); }
