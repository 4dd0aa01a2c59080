"""llama.cpp, called through the libraries that node-llama-cpp ships."""

import ctypes
import json
import platform
import sys
import time
from ctypes import POINTER, byref, c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint32, c_void_p
from pathlib import Path

F32 = 0  # GGML_TYPE_F32
CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU
MMAP = 1  # LLAMA_LOAD_MODE_MMAP
TOKENS_PER_CALL = 2048  # llama.cpp's default of n_batch


def fields(*groups):
    """Returns the fields of a structure from pairs of a type and names."""
    return [(name, kind) for kind, names in groups for name in names.split()]


class ModelParams(ctypes.Structure):
    """`llama_model_params` of the release that package.json pins."""

    _fields_ = fields(
        (c_void_p, "devices tensor_buft_overrides"),
        (c_int32, "n_gpu_layers split_mode load_mode lazy_mode main_gpu"),
        (c_void_p, "tensor_split progress_callback progress_callback_user_data kv_overrides"),
        (c_bool, "vocab_only check_tensors use_extra_bufts no_host no_alloc load_mtp"),
    )


class ContextParams(ctypes.Structure):
    """`llama_context_params` of the release that package.json pins."""

    _fields_ = fields(
        (c_uint32, "n_ctx n_batch n_ubatch n_seq_max n_rs_seq n_outputs_max n_outputs_max_per_seq"),
        (c_int32, "n_threads n_threads_batch"),
        (c_int32, "ctx_type rope_scaling_type pooling_type attention_type flash_attn_type"),
        (c_float, "rope_freq_base rope_freq_scale yarn_ext_factor yarn_attn_factor yarn_beta_fast yarn_beta_slow"),
        (c_uint32, "yarn_orig_ctx"),
        (c_float, "defrag_thold"),
        (c_void_p, "cb_eval cb_eval_user_data"),
        (c_int32, "type_k type_v"),
        (c_void_p, "abort_callback abort_callback_data"),
        (c_bool, "embeddings offload_kqv no_perf op_offload swa_full kv_unified"),
        (c_void_p, "samplers"),
        (c_size_t, "n_samplers"),
        (c_void_p, "ctx_other"),
    )


class Batch(ctypes.Structure):
    """`llama_batch`"""

    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


class ThreadpoolParams(ctypes.Structure):
    """`ggml_threadpool_params`"""

    _fields_ = [("cpumask", c_bool * 512)] + fields(
        (c_int32, "n_threads prio"), (c_uint32, "poll"), (c_bool, "strict_cpu paused")
    )


def folder(modules):
    """Returns the folder of the libraries for this machine."""
    system = {"Linux": "linux", "Darwin": "mac"}.get(platform.system(), platform.system())
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    name = {"mac-arm64": "mac-arm64-metal"}.get(f"{system}-{machine}", f"{system}-{machine}")
    package = Path(modules) / "@node-llama-cpp" / name
    if not package.exists():
        raise FileNotFoundError(f"{package} is missing; run `npm install --ignore-scripts` in benches/peers")
    return next(path for path in (package / "bins").iterdir() if path.is_dir())


class Libraries:
    """The functions of llama.cpp and ggml that are used here."""

    def __init__(self, path):
        suffix = "dylib" if sys.platform == "darwin" else "so"
        ggml, llama = (
            ctypes.CDLL(str(min(path.glob(f"lib{name}.*{suffix}"), key=lambda found: len(found.name))))
            for name in ["ggml", "llama"]
        )
        for library, name, result, arguments in [
            (ggml, "ggml_backend_load_all_from_path", None, [c_char_p]),
            (ggml, "ggml_backend_dev_by_type", c_void_p, [c_int32]),
            (ggml, "ggml_backend_dev_backend_reg", c_void_p, [c_void_p]),
            (ggml, "ggml_backend_reg_get_proc_address", c_void_p, [c_void_p, c_char_p]),
            (llama, "ggml_threadpool_params_default", ThreadpoolParams, [c_int32]),
            (llama, "llama_log_set", None, [c_void_p, c_void_p]),
            (llama, "llama_backend_init", None, []),
            (llama, "llama_model_default_params", ModelParams, []),
            (llama, "llama_model_load_from_file", c_void_p, [c_char_p, ModelParams]),
            (llama, "llama_model_get_vocab", c_void_p, [c_void_p]),
            (llama, "llama_vocab_n_tokens", c_int32, [c_void_p]),
            (llama, "llama_context_default_params", ContextParams, []),
            (llama, "llama_init_from_model", c_void_p, [c_void_p, ContextParams]),
            (llama, "llama_free", None, [c_void_p]),
            (llama, "llama_attach_threadpool", None, [c_void_p, c_void_p, c_void_p]),
            (llama, "llama_get_memory", c_void_p, [c_void_p]),
            (llama, "llama_memory_clear", None, [c_void_p, c_bool]),
            (llama, "llama_batch_init", Batch, [c_int32, c_int32, c_int32]),
            (llama, "llama_decode", c_int32, [c_void_p, Batch]),
            (llama, "llama_get_logits_ith", POINTER(c_float), [c_void_p, c_int32]),
        ]:
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.silent = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)(lambda *_: None)
        self.llama_log_set(self.silent, None)
        self.ggml_backend_load_all_from_path(str(path).encode())
        self.llama_backend_init()


class Llama:
    """A model in llama.cpp."""

    def __init__(self, modules, path, threads, cache):
        libraries = folder(modules)
        self.lib, self.threads, self.cache = Libraries(libraries), threads, cache
        release = json.loads((libraries / "_nlcBuildMetadata.json").read_text())
        package = json.loads((libraries.parent.parent / "package.json").read_text())["version"]
        self.version = f"{release['buildOptions']['llamaCpp']['release']}, node-llama-cpp {package}"
        params, defaults = self.lib.llama_model_default_params(), self.lib.llama_context_default_params()
        if (defaults.n_batch, defaults.n_ubatch, defaults.type_k, params.use_extra_bufts) != (2048, 512, 1, True):
            raise RuntimeError("these libraries have structures of another release of llama.cpp")
        params.n_gpu_layers, params.load_mode = 0, MMAP
        self.model = self.lib.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        self.vocab_size = self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(self.model))
        self.batch = self.lib.llama_batch_init(TOKENS_PER_CALL, 0, 1)
        self.pool, self.context, self.room = self.threadpool(), None, None

    def threadpool(self):
        """Returns threads that live as long as the model, as in llama.cpp's own programs."""
        device = self.lib.ggml_backend_dev_by_type(CPU)
        registry = self.lib.ggml_backend_dev_backend_reg(device)
        address = self.lib.ggml_backend_reg_get_proc_address(registry, b"ggml_threadpool_new")
        new = ctypes.CFUNCTYPE(c_void_p, POINTER(ThreadpoolParams))(address)
        return new(byref(self.lib.ggml_threadpool_params_default(self.threads)))

    def reserve(self, batch, length):
        """Creates a context for `batch` sequences of `length` tokens."""
        if self.room == (batch, length):
            return
        if self.context:
            self.lib.llama_free(self.context)
        params = self.lib.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.n_outputs_max = batch * -(-length // 256) * 256, batch, batch
        params.n_threads = params.n_threads_batch = self.threads
        if self.cache == "f32":
            params.type_k = params.type_v = F32
        self.context = self.lib.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("llama.cpp cannot create a context")
        self.lib.llama_attach_threadpool(self.context, self.pool, self.pool)
        self.room = (batch, length)

    def generate(self, prompts, new):
        """Returns the greedy tokens of each prompt, and the seconds until each step was complete."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), False)
        length = len(prompts[0])
        together = max(1, TOKENS_PER_CALL // length)
        tokens, times, start = [[] for _ in prompts], [], time.perf_counter()
        for step in range(new):
            position = length + step - 1 if step else 0
            rows = [[row[-1]] for row in tokens] if step else prompts
            for first in range(0, len(prompts), together if step == 0 else len(prompts)):
                part = rows[first : first + together] if step == 0 else rows
                for row, chosen in enumerate(self.decode(part, first, position), first):
                    tokens[row].append(chosen)
            times.append(time.perf_counter() - start)
        return tokens, times

    def decode(self, rows, first, position):
        """Runs tokens of the sequences from `first` on. Returns the next token of each sequence."""
        import numpy

        batch, n, last = self.batch, 0, []
        for sequence, ids in enumerate(rows, first):
            for offset, token in enumerate(ids):
                batch.token[n], batch.pos[n] = token, position + offset
                batch.n_seq_id[n], batch.logits[n] = 1, offset + 1 == len(ids)
                batch.seq_id[n][0] = sequence
                n += 1
            last.append(n - 1)
        batch.n_tokens = n
        code = self.lib.llama_decode(self.context, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")
        logits = (self.lib.llama_get_logits_ith(self.context, index) for index in last)
        return [int(numpy.ctypeslib.as_array(row, (self.vocab_size,)).argmax()) for row in logits]
